// The contract of a network driver: one managed network, made real on the host.
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';

export type NetworkConfig = Readonly<Record<string, string>>;

export interface NetworkInfo {
  readonly type: string;
  /** What a nic on such a network is: its `nictype`. */
  readonly nictype: string;
  /** Options that a nic takes from the network and may not name itself. */
  readonly nicOptions: readonly string[];
  /** Whether the network is an interface of the host, of that name. */
  readonly isInterface: boolean;
  /** Whether addresses on the host can be forwarded into the network. */
  readonly forwards: boolean;
}

export interface ForwardPort {
  readonly description: string;
  readonly protocol: 'tcp' | 'udp';
  /** "80,90-92". */
  readonly listenPort: string;
  /** Empty: the same as listenPort. */
  readonly targetPort: string;
  readonly targetAddress: string;
}

export interface NetworkForward {
  readonly listenAddress: string;
  readonly description: string;
  readonly config: NetworkConfig;
  readonly ports: readonly ForwardPort[];
}

/** A network as it shall be. */
export interface ManagedNetwork {
  readonly name: string;
  /** Complete: without `auto`. */
  readonly config: NetworkConfig;
  /** MAC address if the configuration names none; the same for the life of the network. */
  readonly hwaddr: string;
  readonly forwards: readonly NetworkForward[];
}

export interface NetworkLease {
  readonly hostname: string;
  readonly hwaddr: string;
  readonly address: string;
  readonly type: 'static' | 'dynamic' | 'gateway';
}

/** One line of dhcp-host by the name of its file. */
export type HostEntries = ReadonlyMap<string, string>;

export interface NetworkDriver {
  readonly info: NetworkInfo;
  /** AppError 'invalid' with LXD's words for a configuration as a client wrote it. Touches nothing. */
  validate(name: string, config: NetworkConfig): void;
  /** AppError with LXD's words when the host cannot have such a network. Touches nothing. */
  checkNew(name: string, config: NetworkConfig): Promise<void>;
  /** The configuration with `auto` replaced by what was found; `isNew` adds what a new network has by default. */
  complete(config: NetworkConfig, options: { readonly isNew: boolean }, signal: AbortSignal): Promise<NetworkConfig>;
  /** Makes the host as the network says: changes only what differs. Idempotent; may be called again after it failed half-way. */
  up(network: ManagedNetwork, signal: AbortSignal): Promise<void>;
  /** What on the host keeps a network that is up from working, in words for a warning; undefined: nothing is known. */
  trouble?(network: ManagedNetwork, signal: AbortSignal): Promise<string | undefined>;
  /** Removes from the host what up() made, and its files. What is absent is not an error. */
  down(name: string, signal: AbortSignal): Promise<void>;
  /** What DHCP and DNS know of hosts; absent: the network has none of its own. */
  readonly hosts?: HostRegistry;
}

export interface HostRegistry {
  /** Replaces the entries for which `isOurs` says so; those that serve are told when something is new. */
  set(network: string, entries: HostEntries, isOurs: (file: string) => boolean): Promise<void>;
  /** What was set before. */
  lines(network: string): Promise<HostEntries>;
  /** Given out by DHCP. */
  leases(network: string): Promise<readonly NetworkLease[]>;
  /** Gives back what DHCP has given to nics that are gone, if anything; that takes a moment longer than this. */
  release(network: Pick<ManagedNetwork, 'name' | 'config'>, gone: readonly GoneNic[]): Promise<void>;
}

export interface GoneNic {
  readonly hwaddr: string;
  /** As DHCP was told: leases of IPv6 tell no MAC address. */
  readonly hostname: string;
}

export interface NetworkContext {
  readonly host: Host;
  readonly log: Log;
  /** Holds one directory per network. */
  readonly directory: string;
}

export interface NetworkModule {
  readonly type: string;
  create(context: NetworkContext): NetworkDriver;
}
