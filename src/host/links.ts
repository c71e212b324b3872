// Network interfaces, addresses and routes of the host: asked and changed without running a program.

export interface Link {
  readonly index: number;
  readonly name: string;
  /** bridge, veth, macvlan, vlan … ; '' for hardware. */
  readonly kind: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly hwaddr: string;
  /** Index of the bridge (or bond) that it belongs to. */
  readonly master?: number;
}

export interface VethKind {
  readonly kind: 'veth';
  /** The other end; `hwaddr` and `mtu` of the request are for both, unless said here. */
  readonly peer: { readonly name: string; readonly hwaddr?: string };
}

export interface VxlanKind {
  readonly kind: 'vxlan';
  readonly id: number;
  readonly group?: string;
  readonly local?: string;
  readonly remote?: string;
  readonly interface?: string;
  readonly port?: number;
  readonly ttl?: number;
}

export interface GretapKind {
  readonly kind: 'gretap';
  readonly local: string;
  readonly remote: string;
}

export type LinkKind =
  | { readonly kind: 'bridge' | 'dummy' }
  | { readonly kind: 'macvlan'; readonly parent: string }
  | { readonly kind: 'ipvlan'; readonly parent: string; readonly mode: 'l2' | 'l3s' }
  | { readonly kind: 'vlan'; readonly parent: string; readonly id: number; readonly gvrp: boolean }
  | VethKind
  | VxlanKind
  | GretapKind;

export interface LinkSettings {
  readonly mtu?: number;
  /** Packets that may wait to be sent; of both ends of a new pair. */
  readonly queueLength?: number;
  readonly hwaddr?: string;
  readonly up?: boolean;
  /** Name of the bridge to join; null: to leave. */
  readonly master?: string | null;
}

export type NewLink = LinkKind & Omit<LinkSettings, 'master'> & { readonly name: string; readonly master?: string };

export interface GivenLink {
  /** Its name here. */
  readonly link: string;
  /** Its name there. */
  readonly name: string;
  readonly hwaddr?: string;
  readonly mtu?: number;
}

export interface Route {
  /** CIDR; 'default' is 0.0.0.0/0 or ::/0. */
  readonly destination: string;
  readonly interface: string;
  readonly gateway?: string;
  readonly source?: string;
  /** Default: 254, the main one. */
  readonly table?: number;
  /** Default: static. */
  readonly protocol?: 'static' | 'boot';
  /** KernelError EEXIST when there is one already. */
  readonly fresh?: boolean;
}

export interface SeenRoute {
  /** CIDR. */
  readonly destination: string;
  readonly index: number;
  readonly table: number;
  /** rtnetlink's number: 2 kernel, 3 boot, 4 static. */
  readonly protocol: number;
}

export interface LinkAddress {
  readonly index: number;
  /** CIDR. */
  readonly address: string;
  readonly scope: 'global' | 'link' | 'local';
}

/** All names are of the daemon's own network namespace. Failed changes reject with KernelError. */
export interface Links {
  list(): Promise<readonly Link[]>;
  /** undefined: there is none of that name. */
  find(name: string): Promise<Link | undefined>;
  /** KernelError EEXIST when the name is taken. */
  create(link: NewLink): Promise<void>;
  change(name: string, settings: LinkSettings & { readonly name?: string }): Promise<void>;
  /** What is absent is not an error. */
  remove(name: string): Promise<void>;
  /** Moves it into the namespace of process `pid`, renames it there and puts it up. */
  give(link: GivenLink, pid: number): Promise<void>;
  /** Moves interface `name` of that namespace back, down and under the name `link`. */
  takeBack(link: Pick<GivenLink, 'link' | 'name'>, pid: number): Promise<void>;
  addresses(): Promise<readonly LinkAddress[]>;
  /** One that is there already is not an error. `address` is a CIDR. */
  addAddress(name: string, address: string): Promise<void>;
  removeAddress(name: string, address: string): Promise<void>;
  routes(): Promise<readonly SeenRoute[]>;
  /** One that is there already is replaced. */
  addRoute(route: Route): Promise<void>;
  /** One that is absent is not an error. */
  removeRoute(route: Route): Promise<void>;
  /** Answers for `address` on this interface (proxy ARP, proxy NDP). */
  addProxy(name: string, address: string): Promise<void>;
  removeProxy(name: string, address: string): Promise<void>;
}
