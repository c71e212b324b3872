// The contract of a nic driver: one instance device of type nic, made real on the host when its instance starts.
import type { RuntimeNic } from '../runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';
import type { FirewallChain } from './common/firewall.ts';

export interface NicInfo {
  /** Value of `nictype` in the device. */
  readonly nictype: string;
  /** Options of the device that this driver knows, besides type, nictype and network (which the engine has resolved). */
  readonly options: readonly string[];
  readonly required: readonly string[];
  /** Options that update() changes under a running container. */
  readonly liveOptions: readonly string[];
}

export interface NicInstance {
  readonly project: string;
  readonly name: string;
}

/** A nic device with everything that is known about it when the instance starts. */
export interface NicDevice {
  readonly instance: NicInstance;
  /** Name of the device: eth0. */
  readonly device: string;
  /** Checked options; `name` and `hwaddr` are always there (engine: from the device or from volatile). */
  readonly config: Readonly<Record<string, string>>;
  /** volatile.DEVICE.* of the instance, without the prefix. */
  readonly volatile: Readonly<Record<string, string>>;
}

/** volatile.DEVICE.* without the prefix. */
export type NicVolatile = Readonly<Record<string, string>>;

export interface NicDriver {
  readonly info: NicInfo;
  /** AppError 'invalid' with LXD's words when an option is unknown, missing or malformed. Touches nothing. */
  validate(config: Readonly<Record<string, string>>): void;
  /**
   * Decides how things on the host will be called, and looks at what is to be restored later. Touches nothing: its result is stored
   * before start() and comes back in start(), update() and stop(). AppError 'not_found' when the parent is absent.
   */
  plan(nic: NicDevice, signal: AbortSignal): Promise<NicVolatile>;
  /**
   * Prepares an interface in the host's namespace that the runtime takes at its start, or that is given to a running container
   * (`Links.give`). After a failure stop() is called.
   */
  start(nic: NicDevice, signal: AbortSignal): Promise<RuntimeNic>;
  /** Applies changed `liveOptions` to a nic that was started. Absent: there are none. */
  update?(before: NicDevice, after: NicDevice, signal: AbortSignal): Promise<void>;
  /** Chains of the packet filter that a started nic has; made and removed by the other methods. Absent: none. */
  firewall?(nic: NicDevice): readonly FirewallChain[];
  /**
   * Undoes start(), after the container is gone or never came, or after its interface was taken back. Idempotent: what is absent is
   * not an error.
   */
  stop(nic: NicDevice, signal: AbortSignal): Promise<void>;
}

export interface NicContext {
  readonly host: Host;
  readonly log: Log;
}

export interface NicModule {
  readonly nictype: string;
  create(context: NicContext): NicDriver;
}
