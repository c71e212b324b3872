// What the daemon and its attach server say to each other, over the server's IPC channel.

/** Where a standard stream of the new process comes from: a path to open, such as /proc/PID/fd/N of the daemon. */
export interface StreamSource {
  readonly path: string;
  readonly flags: number;
}

export interface AttachRequest {
  readonly kind: 'attach';
  readonly id: number;
  /** Of the container; `containersPath` is liblxc's "lxcpath". */
  readonly name: string;
  readonly containersPath: string;
  readonly configPath: string;
  readonly argv: readonly string[];
  /** KEY=value; nothing else is in its environment but what the container's configuration says. */
  readonly environment: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly streams: readonly [StreamSource, StreamSource, StreamSource];
}

export interface SignalRequest {
  readonly kind: 'signal';
  readonly id: number;
  readonly signal: number;
}

export type ServerRequest = AttachRequest | SignalRequest;

/** `attached` or `failed` answers a request to attach; `exited` follows `attached`, with the status as wait(2) gives it. */
export type ServerReport =
  | { readonly kind: 'attached'; readonly id: number; readonly pid: number }
  | { readonly kind: 'failed'; readonly id: number; readonly error: string }
  | { readonly kind: 'exited'; readonly id: number; readonly status: number };
