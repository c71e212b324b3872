// The contract of a device driver: one device of an instance that is neither a nic nor the root disk, made real on the host.
import type { RuntimeMount, RuntimeThrottle } from '../runtime/driver.ts';
import type { ForwardSpec } from '#src/host/forwarding/messages.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { Log } from '#src/lib/log.ts';

export interface DeviceInfo {
  /** Value of `type` in the device. */
  readonly type: string;
  /** Options that update() changes under a running container; any other change removes the device and adds it again. */
  readonly liveOptions: readonly string[];
}

export interface DeviceOwner {
  readonly project: string;
  readonly name: string;
  /** Unique on the host: of its directories. */
  readonly hostName: string;
  /** null: privileged. */
  readonly idMap: IdMapRange | null;
  /** Path of the user namespace that its container is in, or will be started in; absent: not known, or not needed. */
  readonly userNamespace?: string;
  /** All of the instance, expanded. */
  readonly devices: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export interface Device {
  readonly owner: DeviceOwner;
  /** Name of the device. */
  readonly device: string;
  readonly config: Readonly<Record<string, string>>;
}

export interface Watched {
  /** Names that come and go in them count. */
  readonly directories: readonly string[];
  /** Everything that the kernel says of hardware counts. */
  readonly hardware: boolean;
  /** Asked every second: whether what works for the device has ended. */
  readonly hasEnded?: () => Promise<boolean>;
}

/** What a started device is to the runtime. */
export interface StartedDevice {
  readonly mounts: readonly RuntimeMount[];
  /** Nodes that the container may use: "c 10:200 rwm". */
  readonly rules: readonly string[];
}

export const NOTHING: StartedDevice = { mounts: [], rules: [] };

export interface DeviceDriver {
  readonly info: DeviceInfo;
  /** AppError 'invalid' with LXD's words when an option is unknown, missing or malformed. Touches nothing. */
  validate(config: Readonly<Record<string, string>>): void;
  /** Whether the host has what the device of an instance needs, before anything is done. Touches nothing. */
  check?(device: Pick<Device, 'device' | 'config'>): Promise<void>;
  /** What the container may read and write through it, by block device "MAJOR:MINOR". */
  throttles?(config: Readonly<Record<string, string>>): Promise<Readonly<Record<string, RuntimeThrottle>>>;
  /**
   * Prepares the host for a container that is about to start, or that runs and is given the device. After a failure stop() is
   * called.
   */
  start(device: Device, signal: AbortSignal): Promise<StartedDevice>;
  /** What start() made and is still there: to be taken out of a running container before stop(). */
  started(device: Device): Promise<StartedDevice>;
  /** When the container runs; again after the daemon's restart and after a reboot, so it makes sure rather than makes. */
  attach?(device: Device, initPid: number, signal: AbortSignal): Promise<void>;
  /** Undoes attach() while the container runs, and when it is gone. Idempotent. */
  detach?(device: Device): Promise<void>;
  /** AppError 'conflict' when a running container cannot be without it now. */
  refuseUsed?(device: Device): Promise<void>;
  /** Where the device may appear and vanish while the container runs: after a change there isStale() is asked. undefined: nowhere. */
  watched?(device: Device): Watched | undefined;
  /** Whether the host has something else for the device now than start() found: it is taken out then, and started again. */
  isStale?(device: Device): Promise<boolean>;
  /** Undoes start(), after the container is gone or never came, or after the mounts were taken out of it. Idempotent. */
  stop(device: Device): Promise<void>;
  /**
   * For what start() leaves outside the instance's directory of places: ends all of it that an instance that does not run has, whatever its
   * devices are now. A daemon may have been killed before it noted that it was starting one. Asked at every stop, so it must cost next to nothing.
   */
  sweep?(hostName: string): Promise<void>;
}

/** A custom volume, or the root of an instance, as a disk device names it. */
export interface VolumeSource {
  /** Of the instance. */
  readonly project: string;
  /** That has the device. */
  readonly instance: string;
  readonly pool: string;
  readonly name: string;
}

export interface DeviceVolumes {
  /** Where the content lies, and the map through which a container with `idMap` is to see it. AppError with LXD's text when there is none. */
  open(
    source: VolumeSource,
    idMap: IdMapRange | null,
    signal: AbortSignal,
  ): Promise<{ readonly path: string; readonly idMap: IdMapRange | null }>;
  /** The instance does not use it any more, or never came to. Idempotent. */
  close?(source: VolumeSource): Promise<void>;
}

/** What carries connections between the host and containers, and goes on when the daemon does not. */
export interface DeviceForwards {
  /** What is there already, and the same, stays with its connections. AppError with the reason when it cannot listen. */
  add(spec: ForwardSpec): Promise<void>;
  /** Absent is success. `socketPath`: of a Unix socket on the host, which goes when nobody listens on it any more. */
  remove(id: string, socketPath?: string): Promise<void>;
}

export interface DeviceContext {
  readonly forwards: DeviceForwards;
  readonly volumes?: DeviceVolumes;
  /** Default: /sys. */
  readonly sysfs?: string;
  /** The directory that a disk of the project must not lead out of; undefined: it may be anywhere. AppError 'forbidden': nowhere. */
  readonly sourceParent?: (project: string, source: string) => string | undefined;
  readonly host: Host;
  readonly log: Log;
  /** $LIGHTER_DIR/devices: a directory per instance, for mounts and nodes on their way into a container. */
  readonly devicesPath: string;
  /** $LIGHTER_DIR/instances: a directory per instance, for what is to be there when it is started again. */
  readonly homesPath: string;
  /** $LIGHTER_DIR/served-disks: the same for file systems that processes serve. */
  readonly servedPath: string;
}

export interface DeviceModule {
  readonly type: string;
  create(context: DeviceContext): DeviceDriver;
}
