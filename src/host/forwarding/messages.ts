// What the daemon and the forward server say to each other: JSON, one message a line.

export interface PortAddress {
  readonly kind: 'tcp' | 'udp';
  /** An IP address; empty: any of this host when listened on, the loopback when connected to. */
  readonly address: string;
  readonly ports: readonly number[];
}

export interface UnixAddress {
  readonly kind: 'unix';
  /** Of the abstract name space: without the leading "@". */
  readonly path: string;
  readonly abstract: boolean;
}

export type ForwardAddress = PortAddress | UnixAddress;

/** An owner as the host sees it. */
export interface HostOwner {
  readonly uid: number;
  readonly gid: number;
}

/** One proxy: what arrives at `listen` goes to `connect`; one of both is in the container whose init is `initPid`. */
export interface ForwardSpec {
  /** Unique in the engine. */
  readonly id: string;
  readonly initPid: number;
  /** In the container; else on the host. */
  readonly listensInside: boolean;
  readonly listen: ForwardAddress;
  readonly connect: ForwardAddress;
  /** Of root in the container: with its rights sockets are made and found there. */
  readonly root: HostOwner;
  /** Of a Unix socket that is listened on. */
  readonly socket: HostOwner & { readonly mode: number };
  /** As whom connections are made. */
  readonly connector: HostOwner;
  /** Every connection begins with a line of the PROXY protocol that says where it comes from. */
  readonly proxyHeader: boolean;
}

export type ForwardRequest =
  | { readonly ask: 'version' }
  | { readonly ask: 'add'; readonly spec: ForwardSpec }
  | { readonly ask: 'remove'; readonly id: string }
  | { readonly ask: 'exit' };

export interface ForwardAnswer {
  /** Absent: done. */
  readonly error?: string;
  readonly version?: number;
}

/** Of this protocol and of what the server does: another one is replaced by the daemon. */
export const FORWARD_VERSION = 1;

/** In the directory that both are given. */
export const CONTROL_SOCKET = 'control';
