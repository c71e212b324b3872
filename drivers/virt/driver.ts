// The contract between compute/ and an engine that runs containers. compute/ knows no engine by name.
import type { Duplex, Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';

/** Nova's power states (nova-compute-contract section 4.10). */
export const POWER_STATE = { nostate: 0, running: 1, paused: 3, shutdown: 4, crashed: 6, suspended: 7 } as const;
export type PowerState = (typeof POWER_STATE)[keyof typeof POWER_STATE];

export interface VirtInfo {
  readonly name: string;
  /** ComputeNode.hypervisor_type; an HVType value. */
  readonly hypervisorType: string;
  /** Names of nova's driver capabilities that are true (section 4.5, capability → trait map). */
  readonly capabilities: ReadonlySet<string>;
  /** Glance disk_format values accepted by spawn(). */
  readonly diskFormats: readonly string[];
}

export interface HostCpu {
  readonly id: number;
  /** NUMA node. */
  readonly node: number;
}

/** What the host has, as ComputeNode and Placement want it. */
export interface HostFacts {
  readonly hypervisorHostname: string;
  /** 5000002 for 5.0.2. */
  readonly hypervisorVersion: number;
  /** Debian-style machine name: x86_64, aarch64 … */
  readonly architecture: string;
  readonly vcpus: number;
  /** Those that are online. */
  readonly cpus: readonly HostCpu[];
  readonly memoryMib: number;
  readonly memoryUsedMib: number;
  readonly diskGib: number;
  readonly diskUsedGib: number;
  /** JSON text. */
  readonly cpuInfo: string;
  readonly uptime: string;
}

export interface VirtInstance {
  readonly uuid: string;
  readonly name: string;
  readonly powerState: PowerState;
  /** It was fetched from another host, and is not this host's before adopt(). */
  readonly isArriving: boolean;
}

/** One network interface, already plugged on the host (drivers/vif). */
export interface SpawnNic {
  readonly vifId: string;
  readonly macAddress: string;
  readonly mtu?: number;
  /** The interface on the host that moves into the container. */
  readonly hostInterface: string;
  /** Its name inside: eth0, eth1 … */
  readonly guestInterface: string;
}

/** A block device of this host that a guest has. */
export interface GuestVolume {
  readonly volumeId: string;
  /** On the host: a name that never means another volume, also after a boot of the host. */
  readonly hostPath: string;
  /** In the guest, such as /dev/sdb. */
  readonly guestPath: string;
  /** The guest has its file system as /, and not the device. */
  readonly isRoot?: true;
  /** The guest has its file system there, and not the device. AppError 'unsupported' where the engine cannot do that. */
  readonly mount?: {
    readonly path: string;
    /** A blank volume gets a file system; else it is refused ('invalid'). */
    readonly formats: boolean;
  };
}

export interface SpawnImage {
  readonly id: string;
  /** Identity of the content: same key, same bytes. The engine's image cache is addressed by it. */
  readonly cacheKey: string;
  readonly name: string;
  readonly diskFormat: string;
  readonly containerFormat: string;
  readonly sizeBytes: number | null;
  readonly properties: Readonly<Record<string, string>>;
  /** Opens the content; called at most once per image and host at a time. */
  open(signal: AbortSignal): Promise<Readable>;
}

export interface SpawnFlavor {
  readonly vcpus: number;
  /** Processors of the host that it runs on and on no others; null: any so many. */
  readonly cpuIds: readonly number[] | null;
  readonly memoryMib: number;
  readonly rootGib: number;
  /** The sizes of the disks beside the root, each its own; they come and go with the guest, and are not in its images. */
  readonly ephemeralsGib: readonly number[];
  readonly swapMib: number;
  readonly extraSpecs: Readonly<Record<string, string>>;
}

/** What an instance is, wherever its root comes from. */
export interface GuestSpec {
  readonly uuid: string;
  /** From instance_name_template, such as instance-0000002a. */
  readonly name: string;
  readonly displayName: string;
  readonly hostname: string;
  readonly projectId: string;
  readonly userId: string;
  readonly flavor: SpawnFlavor;
  /** Of the image that it was made from, in Glance. */
  readonly imageId: string;
}

export interface SpawnSpec extends Omit<GuestSpec, 'imageId'> {
  /** null: its root is on one of the volumes that the hooks connect. */
  readonly image: SpawnImage | null;
}

export interface GuestFile {
  readonly path: string;
  readonly content: Uint8Array;
}

/** Texts for cloud-init's LXD and NoCloud data sources; null: none, so that the image's own defaults hold. */
export interface CloudInitData {
  /** YAML. */
  readonly metaData: string;
  readonly userData: string | null;
  readonly vendorData: string | null;
  /** YAML. */
  readonly networkConfig: string | null;
}

/** A file that cannot be where it is wanted: the fault of who wants it there. */
export class GuestFileError extends AppError {
  constructor(message: string, options?: ErrorOptions) {
    super('invalid', message, options);
  }
}

/** The disk of the image has more room than the root disk of the flavor. */
export class DiskTooSmallError extends AppError {
  readonly flavorBytes: number;
  readonly imageBytes: number;

  constructor({ flavorBytes, imageBytes }: { readonly flavorBytes: number; readonly imageBytes: number }) {
    super('invalid', `the image is a disk of ${imageBytes} bytes, the root disk of the flavor has ${flavorBytes}`);
    this.flavorBytes = flavorBytes;
    this.imageBytes = imageBytes;
  }
}

/** What a guest is told of itself and given before its first boot. */
export interface GuestData {
  readonly cloudInit: CloudInitData;
  /**
   * The tree of the config drive, paths relative; null: no drive. It is the guest's as long as the guest is there, at
   * /config-drive, for its root alone to read.
   */
  readonly configDrive: readonly GuestFile[] | null;
  /** Written into the root file system and never out of it; one that cannot be there fails the spawn (GuestFileError). */
  readonly files: readonly GuestFile[];
  /** Added to the keys by which root may log in, when that can be done. */
  readonly rootKey: string | null;
}

/** Called by spawn() beside the creation of the root file system; init runs after both. A rejection undoes the spawn. */
export interface SpawnHooks {
  /** Plugs the interfaces. */
  readonly network: (signal: AbortSignal) => Promise<readonly SpawnNic[]>;
  /** Called once when network() is done; absent: nothing is told and given. */
  readonly guest?: (signal: AbortSignal) => Promise<GuestData>;
  /** Called once: the volumes of the guest, connected. */
  readonly volumes?: (signal: AbortSignal) => Promise<readonly GuestVolume[]>;
  /**
   * Called once when volumes() is done and the one that is the root holds the bytes of an image and no disk: what was written there when
   * it was made, which open() reads from there. null: nobody knows what it is and where it ends.
   */
  readonly rootImage?: (signal: AbortSignal) => Promise<SpawnImage | null>;
  /** Called once when network() is done: resolves when Neutron has wired what was plugged. */
  readonly wired?: (signal: AbortSignal) => Promise<void>;
}

/** What a running guest has used since its start. */
export interface GuestUsage {
  readonly cpuNanoseconds: number;
  readonly memoryBytes: number;
  readonly processes: number;
  /** The root disk; null when the engine cannot tell. */
  readonly diskBytes: number | null;
  readonly nics: readonly NicUsage[];
}

export interface NicUsage {
  /** Its name inside. */
  readonly name: string;
  readonly macAddress: string;
  readonly receivedBytes: number;
  readonly receivedPackets: number;
  readonly sentBytes: number;
  readonly sentPackets: number;
}

/** The root disk as it was at one moment, until disposed. */
export interface GuestSnapshot extends AsyncDisposable {
  /** Glance's names of what open() gives; spawn() accepts it. */
  readonly diskFormat: string;
  readonly containerFormat: string;
  /** The content, streamed; called at most once. The caller reads or destroys it before it disposes of the snapshot. */
  open(signal: AbortSignal): Promise<Readable>;
}

/** A guest that another host may fetch, once. Disposing of it gives up a transfer that has not ended. */
export interface GuestOffer extends AsyncDisposable {
  /** JSON for receive() of the same driver elsewhere. It holds secrets: never logged, good for seconds. */
  readonly ticket: unknown;
  /** Resolves when the other end has everything, rejects when it said that it failed. */
  fetched(signal: AbortSignal): Promise<void>;
}

/** Moves of stopped guests between hosts; what is on their disks goes from engine to engine. */
export interface GuestMoves {
  /** AppError 'unsupported', with what to do about it, when other hosts cannot fetch guests from here. */
  assertOffers(): void;
  /** `onProgress`: bytes that went. Running: 'conflict'. Absent: 'not_found'. */
  offer(uuid: string, signal: AbortSignal, onProgress?: (bytes: number) => void): Promise<GuestOffer>;
  /**
   * Makes a stopped guest of what another host offers; it has no interfaces and is arriving until adopt(). One that is
   * arriving already is replaced, another one is a 'conflict'. AppError 'invalid' for a ticket that is none. After a
   * failure nothing is left.
   */
  receive(spec: GuestSpec, ticket: unknown, signal: AbortSignal): Promise<void>;
  /** The arrived guest is this host's. Idempotent. Absent: 'not_found'. */
  adopt(uuid: string, signal: AbortSignal): Promise<void>;
  /** Ends offers of the guest that an earlier process left behind. Absent is success. */
  withdraw(uuid: string, signal: AbortSignal): Promise<void>;
}

export interface Login {
  readonly user: string;
  readonly password: string;
}

export interface LifecycleEvent {
  readonly uuid: string;
  readonly event: 'started' | 'stopped' | 'paused' | 'resumed';
}

/** Every method with a uuid acts only on instances that carry Nova's marks (design decision 5). */
export interface VirtDriver {
  readonly info: VirtInfo;
  readonly moves: GuestMoves;
  /** Verifies that the engine answers and has what is needed; AppError 'unavailable' with what to do when not. */
  start(signal: AbortSignal): Promise<void>;
  stop(): Promise<void>;
  /** What killed spawns and deletions left beside the engine; to be called before the first spawn of a process. */
  removeLeftovers(signal: AbortSignal): Promise<void>;
  hostFacts(signal: AbortSignal): Promise<HostFacts>;
  /** Throws an AppError when spawn() or resize() would not take the flavor, with what its owner is to know. */
  checkFlavor(flavor: SpawnFlavor): void;
  listInstances(signal: AbortSignal): Promise<readonly VirtInstance[]>;
  /** `nostate` when absent. */
  powerState(uuid: string, signal: AbortSignal): Promise<PowerState>;
  /**
   * Creates and starts. After a failure nothing is left, except the cached image. A root volume that holds an image gets a file system with
   * what the image has; any other content of it is used as it is or refused, never overwritten. Rejects with AppError:
   * 'invalid' (image or volume unacceptable, flavor too small (DiskTooSmallError): no other host would do better), 'conflict' (exists),
   * or others.
   */
  spawn(spec: SpawnSpec, hooks: SpawnHooks, signal: AbortSignal): Promise<void>;
  /** Has the image ready for spawn(). AppError 'invalid' when it is none that spawn() takes. */
  cacheImage(image: SpawnImage, signal: AbortSignal): Promise<'cached' | 'existing'>;
  /** Whether rescue() is possible; known once start() is done. */
  readonly canRescue: boolean;
  /** Whether spawn() takes a spec without an image; known once start() is done. */
  readonly canBootFromVolume: boolean;
  /**
   * Starts another guest in the place of a stopped one: from the image of `spec`, with the interfaces of its hooks and without the config
   * drive that they tell, and with the root disk of the stopped one at /mnt/rescue. Everything else here is then about the
   * other guest, but snapshot() and destroy(). After a failure nothing of it is left. AppError as of spawn(); 'unsupported' where
   * it is not possible; 'conflict' when the guest runs or is rescued; absent: 'not_found'.
   */
  rescue(spec: SpawnSpec, hooks: SpawnHooks, signal: AbortSignal): Promise<void>;
  /** Removes that other guest; the first one is there as it was, stopped. None is success. Idempotent. */
  unrescue(uuid: string, signal: AbortSignal): Promise<void>;
  /** Stops by force and deletes with all disks, those of a rescued guest as well. Absent is success. Idempotent. */
  destroy(uuid: string, signal: AbortSignal): Promise<void>;
  /** Starts a stopped instance; running is success. `nics` replace the configured ones. */
  powerOn(uuid: string, nics: readonly SpawnNic[], signal: AbortSignal): Promise<void>;
  /** Asks init to shut down and kills after `graceSeconds` (0: at once). Stopped is success. Absent: 'not_found'. */
  powerOff(uuid: string, options: { readonly graceSeconds: number }, signal: AbortSignal): Promise<void>;
  /**
   * Gives the instance the limits and the root disk of another flavor; what lies on the disk stays. Idempotent. A disk
   * that holds more than the new size is refused ('invalid' or 'conflict'). Absent: 'not_found'.
   */
  resize(uuid: string, flavor: SpawnFlavor, signal: AbortSignal): Promise<void>;
  /** soft: restart through init, inside the container's own life. AppError 'unsupported' or 'conflict' when it cannot. */
  softReboot(uuid: string, signal: AbortSignal): Promise<void>;
  /** Stops all processes where they are; paused is success. Stopped: 'conflict'. Absent: 'not_found'. */
  pause(uuid: string, signal: AbortSignal): Promise<void>;
  /** Lets them go on; running is success. Stopped: 'conflict'. Absent: 'not_found'. */
  unpause(uuid: string, signal: AbortSignal): Promise<void>;
  /**
   * Keeps the memory of a running guest on disk and ends it; one that is kept so already is success. After an AppError the guest runs on
   * ('unsupported': this guest, or this host, cannot), unless the engine could not be asked ('unavailable'). Not running: 'conflict'.
   * Absent: 'not_found'.
   */
  suspendToDisk(uuid: string, signal: AbortSignal): Promise<void>;
  /** powerOn() of a guest with its memory, where that was kept; powerOn() itself throws it away. */
  resumeFromDisk(uuid: string, nics: readonly SpawnNic[], signal: AbortSignal): Promise<void>;
  /**
   * Adds an interface, to a running guest at once. When its guestInterface is taken, the first free ethN is its name.
   * One with this MAC address is replaced. Absent: 'not_found'.
   */
  attachNic(uuid: string, nic: SpawnNic, signal: AbortSignal): Promise<void>;
  /** Takes the interface with this MAC address away, from a running guest at once; none is success. Absent: 'not_found'. */
  detachNic(uuid: string, macAddress: string, signal: AbortSignal): Promise<void>;
  /**
   * Gives the guest a volume, while it runs at once. One with this volumeId is replaced. AppError 'unsupported' when the engine is
   * on another host. Absent: 'not_found'. Of a rescued instance these three are about its own guest.
   */
  attachVolume(uuid: string, volume: GuestVolume, signal: AbortSignal): Promise<void>;
  /** Takes a volume away, from a running guest at once; none is success. Absent: 'not_found'. */
  detachVolume(uuid: string, volumeId: string, signal: AbortSignal): Promise<void>;
  /** Makes these the only volumes; of the root it only changes where it is. No request when all is so already. Absent: 'not_found'. */
  setVolumes(uuid: string, volumes: readonly GuestVolume[], signal: AbortSignal): Promise<void>;
  /** Stopped: 'conflict'. Absent: 'not_found'. */
  usage(uuid: string, signal: AbortSignal): Promise<GuestUsage>;
  /** The last `maxBytes` of the console log; empty when nothing was printed yet. Absent: 'not_found'. */
  consoleLog(uuid: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  /**
   * Joins `terminal` to the console, bytes as they are, none kept beyond what the streams hold. Resolves when the console
   * ended or `leave` aborted; the terminal stays open. Not running: 'conflict'. Absent: 'not_found'.
   * Somebody is there: 'conflict', or it ends at once where the engine does not tell why.
   */
  openConsole(uuid: string, terminal: Duplex, leave: AbortSignal): Promise<void>;
  /** Not running: 'conflict'. Absent: 'not_found'. A guest that cannot: 'unsupported', one that refuses: 'invalid'. */
  setPassword(uuid: string, login: Login, signal: AbortSignal): Promise<void>;
  /** Of the instance's own root, rescued or not; running or not; a running guest runs on. Absent: 'not_found'. */
  snapshot(uuid: string, signal: AbortSignal): Promise<GuestSnapshot>;
  /** Events of instances that carry Nova's marks, until disposed. */
  onLifecycle(listener: (event: LifecycleEvent) => void): Disposable;
}
