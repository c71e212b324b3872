// The contract of a container runtime.
import type { Readable, Writable } from 'node:stream';
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';

export type RuntimeState =
  | 'stopped'
  | 'starting'
  | 'running'
  | 'stopping'
  | 'aborting'
  | 'freezing'
  | 'frozen'
  | 'thawed';

/** Where the runtime finds one container. */
export interface RuntimeContainer {
  /** Unique on the host: NAME, or PROJECT_NAME outside the default project. */
  readonly name: string;
  /** Absolute path of the lxc configuration file, written by writeConfig(). */
  readonly configPath: string;
  readonly logPath: string;
  readonly consoleLogPath: string;
}

/** One piece of an id map: `size` ids from `containerId` inside are `hostId` and following outside. */
export interface RuntimeIdMapEntry {
  readonly kind: 'uid' | 'gid';
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

/** An interface of the host's namespace that moves into the container. */
export interface RuntimeNic {
  /** Its name on the host, where the runtime puts it back at the end. */
  readonly link: string;
  /** Its name in the container. */
  readonly name: string;
  readonly hwaddr?: string;
  readonly mtu?: number;
  /** Set up before init runs; CIDR. */
  readonly addresses?: readonly string[];
  /** Default routes, one for each family at most. */
  readonly gateways?: readonly string[];
  /** Families whose default route is the interface itself. */
  readonly deviceRoutes?: readonly ('ipv4' | 'ipv6')[];
}

export interface RuntimeMount {
  readonly source: string;
  /** Relative to the root, without a leading slash. */
  readonly target: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** Absent fields: no limit. */
export interface RuntimeLimits {
  readonly memory?: {
    readonly bytes: number;
    readonly enforce: 'hard' | 'soft';
  };
  /** false: the container may not swap at all; bytes: what it may swap beside its memory. Absent: none beside a hard limit of memory. */
  readonly swap?: false | number;
  /** 0–10, 10 is most; cgroup v1 only. */
  readonly swapPriority?: number;
  /** A list as cpuset wants it: "0,1", "0-3,7". */
  readonly cpuSet?: string;
  /** Share of CPU time when it is short: 100 is normal. */
  readonly cpuWeight?: number;
  readonly cpuQuota?: { readonly quotaUs: number; readonly periodUs: number };
  readonly processes?: number;
  /** 0–10. */
  readonly diskPriority?: number;
  /** Page size as the kernel names it (64KB, 1MB, 2MB, 1GB) → bytes. */
  readonly hugepages?: Readonly<Record<string, number>>;
  /** Interface of the host → 0–10; cgroup v1 only, and nothing where the host lacks the controller. */
  readonly networkPriorities?: Readonly<Record<string, number>>;
  /** By block device, "MAJOR:MINOR". */
  readonly throttles?: Readonly<Record<string, RuntimeThrottle>>;
}

/** Per second. */
export interface RuntimeThrottle {
  readonly readBytes?: number;
  readonly writeBytes?: number;
  readonly readOperations?: number;
  readonly writeOperations?: number;
}

/** A container that runs, as what changes it needs to know it. */
export interface RunningContainer {
  readonly container: RuntimeContainer;
  readonly initPid: number;
  /** Of the container's root, as the host sees it; 0 when privileged. */
  readonly rootUid: number;
  readonly rootGid: number;
}

/** System call filter. All absent or false: nothing is filtered. */
export interface RuntimeSeccomp {
  readonly denyDefault: boolean;
  readonly denyCompat: boolean;
  readonly deny: readonly string[];
  /** Not empty: everything else is refused, and the deny fields do not count. */
  readonly allow: readonly string[];
  /** Calls of an unprivileged container that are done for it, as far as that harms nobody; with `raw`, those that it has notified. */
  readonly intercept: readonly InterceptedCall[];
  /** Replaces everything. */
  readonly raw?: string;
}

export type InterceptedCall = 'mknod' | 'setxattr';

/** The state of a container's processes on disk. */
export interface RuntimeCheckpoint {
  /** Nobody else's; as large as the memory of the processes. */
  readonly directory: string;
  /** The program: an absolute path whose last part is `criu`, or that name alone. */
  readonly criu: string;
}

/** Everything that the runtime needs to run one container; lines of configuration are made from it, never by the caller. */
export interface RuntimeSpec {
  readonly hostname: string;
  /** Kernel's machine name: x86_64, i686, aarch64 … */
  readonly architecture: string;
  readonly rootfs: {
    readonly path: string;
    readonly options?: string;
    /** Path of the user namespace, with the id map below, that the container has to be in to be let into its root. */
    readonly userNamespace?: string;
  };
  /** null: privileged. */
  readonly idMap: readonly RuntimeIdMapEntry[] | null;
  readonly nesting: boolean;
  readonly environment: Readonly<Record<string, string>>;
  readonly nics: readonly RuntimeNic[];
  readonly mounts: readonly RuntimeMount[];
  /** Device nodes that a privileged container may use besides the usual: "c 10:200 rwm". */
  readonly deviceRules?: readonly string[];
  readonly limits: RuntimeLimits;
  /** rlimit name in lower case → "N" or "SOFT:HARD" or "unlimited". */
  readonly kernelLimits: Readonly<Record<string, string>>;
  readonly sysctl: Readonly<Record<string, string>>;
  readonly seccomp: RuntimeSeccomp;
  /** Lines for the AppArmor profile. */
  readonly apparmor?: string;
  readonly initCommand?: string;
  /**
   * A file that is made when the container ends in order to start again, for one that was restored: the runtime itself does not start
   * such a container again.
   */
  readonly rebootNote?: string;
  /** raw.lxc: checked lines, appended last. */
  readonly raw?: string;
}

/** How one life of a container ended. `rebooted`: it runs again, with another init. */
export type RuntimeExit = 'stopped' | 'rebooted';

/** What the kernel counts for a running container; absent where the controller is. */
export interface RuntimeUsage {
  readonly cpuNs?: number;
  readonly memoryBytes?: number;
  readonly memoryPeakBytes?: number;
  readonly swapBytes?: number;
  readonly swapPeakBytes?: number;
  readonly processes?: number;
}

/** Transfers of one disk of the host on behalf of a container. */
export interface RuntimeDisk {
  /** MAJOR:MINOR. */
  readonly device: string;
  readonly readBytes: number;
  readonly reads: number;
  readonly writtenBytes: number;
  readonly writes: number;
}

/** Finer figures, for metrics. */
export interface RuntimeStatistics {
  /** Fields of memory.stat that the kernel gives, under its own names. */
  readonly memory: Readonly<Record<string, number>>;
  readonly memoryLimitBytes?: number;
  readonly cpuUserNs?: number;
  readonly cpuSystemNs?: number;
  readonly disks: readonly RuntimeDisk[];
}

export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

/** What the standard streams of a process are. Files are appended to; those not given are /dev/null, as is its input then. */
export type RuntimeStreams =
  | { readonly kind: 'pipes' }
  | { readonly kind: 'terminal'; readonly size?: TerminalSize }
  | { readonly kind: 'files'; readonly stdout?: string; readonly stderr?: string };

export interface RuntimeCommand {
  readonly argv: readonly [string, ...string[]];
  readonly environment: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** As the container sees them. */
  readonly uid: number;
  readonly gid: number;
  readonly streams: RuntimeStreams;
}

/** A process in a container beside its init. It ends with the container, with the daemon, or by itself. */
export interface RuntimeProcess {
  /** The same duplex as stdout for a terminal, which has no stderr; absent for files. */
  readonly stdin?: Writable;
  /** Paused until somebody reads. Ends after the process did, even when another process has it still open. */
  readonly stdout?: Readable;
  readonly stderr?: Readable;
  /** Exit code as shells have it: 126 and 127 when it could not be executed, 128 + N when signal N ended it. */
  readonly exited: Promise<number>;
  /** Does nothing once it has exited. */
  kill(signal: number): void;
  /** Of its terminal. */
  resize(size: TerminalSize): void;
}

/** The console of a running container in somebody's hands. The container never waits for it, whatever they do. */
export interface RuntimeConsole {
  /** What it prints from now on, until it is closed or the container's present life ends. A slow reader misses what is too old. */
  readonly output: Readable;
  /** What is typed. Kept back while no process in the container takes it. */
  readonly input: Writable;
  resize(size: TerminalSize): void;
  /** Ends both streams. Idempotent. */
  close(): void;
}

export interface RuntimeDriver {
  readonly name: string;
  version(signal: AbortSignal): Promise<string>;
  /** Checks raw configuration lines; AppError 'invalid' names the first that is refused. */
  validateRaw(raw: string): void;
  /** The text that writeConfig() writes. AppError 'invalid' when a value cannot be expressed (a line break in it). */
  renderConfig(container: RuntimeContainer, spec: RuntimeSpec, signal: AbortSignal): Promise<string>;
  /** Writes the configuration file and what it refers to. Idempotent. */
  writeConfig(container: RuntimeContainer, spec: RuntimeSpec, signal: AbortSignal): Promise<void>;
  /** Resolves when init runs. After a failure nothing of the container is left, and the error quotes the runtime's log. */
  start(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
  /** AppError 'unsupported', whose message is the exact reason, when the state of containers cannot be kept on this host. */
  checkCheckpoints(criu: string, signal: AbortSignal): Promise<void>;
  /**
   * Writes the state of a running container. `stop`: its processes are gone then, without having noticed; else they run on, or are as
   * frozen as before. Nobody's signal cuts it short. After a failure they run on as well, and the error quotes CRIU's log.
   */
  checkpoint(container: RuntimeContainer, checkpoint: RuntimeCheckpoint & { readonly stop: boolean }): Promise<void>;
  /** Whether a checkpoint that stops its container has come to its end. */
  hasCheckpoint(directory: string): Promise<boolean>;
  /** Like start(), but with the processes of a checkpoint, which stays as it is. */
  restore(container: RuntimeContainer, checkpoint: RuntimeCheckpoint, signal: AbortSignal): Promise<void>;
  /**
   * Resolves at the end of the container's present life: when it is gone with everything of it, or runs again after a reboot.
   * A container that does not run: 'stopped' at once. Costs one open socket and no polling.
   */
  watch(container: RuntimeContainer, signal: AbortSignal): Promise<RuntimeExit>;
  /** Kills every process of the container and waits until it is gone. Stopped is success. */
  kill(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
  /** Sends init its halt signal; does not wait. Stopped is success. */
  requestShutdown(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
  /** Sends init its reboot signal; does not wait. Stopped is success. */
  requestReboot(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
  freeze(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
  unfreeze(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
  /** AppError 'unavailable' when the container's monitor is there but does not answer. */
  state(container: RuntimeContainer, signal: AbortSignal): Promise<RuntimeState>;
  /** Process id of the container's init; undefined when it does not run. */
  initPid(container: RuntimeContainer, signal: AbortSignal): Promise<number | undefined>;
  /** Figures of the container whose init is `initPid`; {} when it is gone. Forks nothing. */
  usage(initPid: number, signal: AbortSignal): Promise<RuntimeUsage>;
  /** Finer figures of the container whose init is `initPid`. Forks nothing. */
  statistics(initPid: number, signal: AbortSignal): Promise<RuntimeStatistics>;
  /**
   * Runs a command in a running container, under all its restrictions: id map, capabilities, control groups, system call filter,
   * AppArmor. Resolves when the process is in the container.
   */
  attach(container: RuntimeContainer, command: RuntimeCommand, signal: AbortSignal): Promise<RuntimeProcess>;
  /** AppError 'invalid' when the container does not run or has no console. */
  openConsole(container: RuntimeContainer, signal: AbortSignal): Promise<RuntimeConsole>;
  /** Mounts into a running container. `source` is bound as it is, with its flags: the container cannot lift them. */
  attachMount(running: RunningContainer, mount: RuntimeMount, signal: AbortSignal): Promise<void>;
  /**
   * Takes up a running container that was started by another daemon: removes what an attachMount() that was cut off has left on the
   * host (nobody attaches anything meanwhile), and goes on with the calls that it intercepts.
   */
  adopt(container: RuntimeContainer): Promise<void>;
  /** Takes a mount off; what is not mounted is success. The placeholder of a file is removed with it. */
  detachMount(running: RunningContainer, mount: Pick<RuntimeMount, 'target' | 'options'>): Promise<void>;
  /** Lets a running privileged container use a device node ("c 10:200 rwm"), or not any more. */
  setDeviceRule(running: RunningContainer, rule: string, allowed: boolean, signal: AbortSignal): Promise<void>;
  /** Replaces the limits of a running container. All or nothing: after a failure they are as `before`. */
  setLimits(initPid: number, before: RuntimeLimits, after: RuntimeLimits): Promise<void>;
  /** Removes what a monitor that was killed left behind. Only for a container that does not run. */
  cleanUp(container: RuntimeContainer, signal: AbortSignal): Promise<void>;
}

export interface RuntimeContext {
  readonly host: Host;
  readonly log: Log;
  /** Where the runtime keeps its containers' directories. */
  readonly containersPath: string;
}

export interface RuntimeModule {
  readonly name: string;
  create(context: RuntimeContext): RuntimeDriver;
}
