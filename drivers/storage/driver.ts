// The contract of a storage driver: pools, images and instance roots on this node. Every method is safe to call again
// after it failed half-way; creating refuses what exists, deleting accepts what is absent.
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type { Log } from '#src/lib/log.ts';

export type { IdMapRange } from '#src/host/id-map.ts';

export interface StorageInfo {
  readonly name: string;
  /** A new root from an image is a clone, not a copy. */
  readonly copyOnWrite: boolean;
  /** Size limits of instance roots are enforced by the file system of this pool. */
  readonly quotas: boolean;
  /** A snapshot of a volume that is in use is of one moment; else it is copied while it may change. */
  readonly instantSnapshots: boolean;
}

export interface PoolUsage {
  readonly totalBytes: number;
  readonly usedBytes: number;
  /** Absent: what is not used. */
  readonly availableBytes?: number;
  readonly inodesTotal: number;
  readonly inodesUsed: number;
}

/** A root ready for the runtime. */
export interface MountedRoot {
  /** The root directory itself: poolPath/containers/NAME/rootfs. */
  readonly rootfsPath: string;
  /**
   * Map of the owners under rootfsPath as this host sees them: a file of container uid 5 shows as uidBase + 5 here, or as 5 when
   * null (privileged, or mapped by the runtime through rootfsOptions). Whoever writes there from the host chowns by it.
   */
  readonly owners: IdMapRange | null;
  /** Extra `lxc.rootfs.options`, such as idmap=container, when the runtime must do the mapping. */
  readonly rootfsOptions?: string;
  /** Archives are unpacked below this directory and then copied: programs in user namespaces cannot write here. */
  readonly unpackIn?: string;
}

export interface NewInstanceVolume {
  readonly name: string;
  /** Absent: an empty root. */
  readonly image?: string;
  readonly sizeBytes?: number;
  /** Ids that the root must belong to when it is mounted. */
  readonly idMap: IdMapRange | null;
}

/** Fills a directory; what it makes belongs to the ids of `owners`, or to unmapped ids when that is null. */
export type Unpack = (directory: string, owners: IdMapRange | null) => Promise<void>;

/** Roots of instances, and volumes of users' own. */
export type VolumeKind = 'container' | 'custom';

export interface VolumeRef {
  readonly kind: VolumeKind;
  readonly name: string;
  /** mountVolume() fails with AppError 'forbidden' rather than change owners on the disk (security.protection.shift). */
  readonly keepsOwners?: boolean;
  /**
   * mountVolume() is for reading alone: what is not mounted yet has the owners that are on the disk, whatever map is asked for, and drivers
   * that would have to write for a mount need not be able to.
   */
  readonly forReading?: boolean;
}

/** Keys of one driver (StorageModule.volumeKeys) that a volume has of its own; the pool's volume.* are the defaults. */
export type VolumeConfig = Readonly<Record<string, string>>;

export interface NewVolume extends VolumeRef, NewInstanceVolume {
  readonly config?: VolumeConfig;
}

/** Snapshots that are younger than the one that is to be restored, and have to go before. */
export interface LaterSnapshots {
  readonly names: readonly string[];
  /** By the configuration of the volume; else why not. */
  readonly mayGo: boolean;
  readonly why: string;
}

export interface VolumeChange {
  readonly config: VolumeConfig;
  readonly sizeBytes: number | undefined;
}

export interface SnapshotRename {
  readonly volume: VolumeRef;
  readonly snapshot: string;
  readonly newName: string;
}

export interface SnapshotMount {
  readonly volume: VolumeRef;
  readonly snapshot: string;
  readonly idMap: IdMapRange | null;
}

export interface VolumeCopy {
  readonly from: VolumeRef;
  /** Copied instead of the volume as it is now. */
  readonly snapshot?: string;
  /** Snapshots that go along, in this order. */
  readonly snapshots: readonly string[];
  readonly to: NewVolume;
}

/** A snapshot as another pool of the same kind would know it again. */
export interface StreamPoint {
  readonly snapshot: string;
  /** The same wherever the snapshot was sent. */
  readonly guid: string;
  /** Of the files in it. */
  readonly owners: IdMapRange | null;
}

export interface StreamPart {
  readonly volume: VolumeRef;
  /** Undefined: the volume as it is now. */
  readonly snapshot?: string | undefined;
  /** The snapshot arrives as the volume itself. */
  readonly asVolume?: boolean;
  /** An older snapshot of the volume that the other end has: only what is new since then is sent. */
  readonly base?: string | undefined;
  /** As they are on the disk, where the other end can read that (StorageStreams.compresses). */
  readonly compress?: boolean;
}

/** One of the streams that a volume and its snapshots are. */
export interface HeldStream {
  /** Undefined: the volume as it is now. */
  readonly snapshot: string | undefined;
  /** "/": all of it; else the place in it of a volume nested there (StorageStreams.nests). */
  readonly path: string;
  readonly readonly: boolean;
  readonly guid: string;
  /** Of the files in it. */
  readonly owners: IdMapRange | null;
  /** The same bytes each time. */
  readonly read: (use: (stream: NodeJS.ReadableStream) => Promise<void>) => Promise<void>;
}

/** What was nested in a volume or snapshot. */
export interface NestedStream {
  /** Absolute, from the root of what it was nested in; nobody has looked at it. */
  readonly path: string;
  readonly readonly: boolean;
  readonly stream: NodeJS.ReadableStream;
}

export interface ReceivedPart {
  readonly volume: VolumeRef;
  /** Undefined: the volume itself. */
  readonly snapshot?: string | undefined;
  /** The newest snapshot of the volume here, when the stream builds on it. */
  readonly base?: string | undefined;
  /** Of the files in the stream, as its sender says. */
  readonly owners: IdMapRange | null;
  /** Asked for when the stream has been read; each is read before the next is asked for. Only where StorageStreams.nests is true. */
  readonly nested?: AsyncIterable<NestedStream>;
}

/** Volumes as streams of the file system itself. */
export interface StorageStreams {
  /** Both ends must have the same. */
  readonly format: 'zfs' | 'btrfs';
  /** Volumes may have others nested in them, which are streams of their own. */
  readonly nests: boolean;
  /** Streams may have blocks as they are on the disk. */
  compresses(): Promise<boolean>;
  /** Whether all of the volume, as it is now and with its snapshots, can be sent. */
  canSend(volume: VolumeRef, signal: AbortSignal): Promise<boolean>;
  /** Of its snapshots; none while nothing can be received upon the newest of them. */
  points(volume: VolumeRef, signal: AbortSignal): Promise<readonly StreamPoint[]>;
  /** Runs `use` with the stream, of one moment even of a volume that is in use. Nothing of it stays. */
  send(part: StreamPart, use: (stream: NodeJS.ReadableStream) => Promise<void>, signal: AbortSignal): Promise<void>;
  /**
   * Runs `use` with all streams of the named snapshots, in that order, and of the volume as it is now, each upon the one before it at the
   * same path; what is nested follows what it lies in. The volume may be in use. Nothing of it stays.
   */
  hold(
    held: { readonly volume: VolumeRef; readonly snapshots: readonly string[] },
    use: (streams: readonly HeldStream[]) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void>;
  /**
   * Into a volume that exists and is not in use, under its limits: makes the snapshot, or lets the volume be what is in the stream. A
   * stream that is cut off, or is none, changes nothing but that a volume with a base may have gone back to it. Without a base, the volume
   * is one that nobody has yet: a crash may leave none. The sender may be hostile.
   */
  receive(part: ReceivedPart, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void>;
}

export interface StorageDriver {
  readonly info: StorageInfo;
  /** AppError, touching nothing, when what is there keeps the pool from being made. */
  checkPool(signal: AbortSignal): Promise<void>;
  /** Makes the pool from its configuration; undone when it fails. Adopts an existing empty dataset or directory. */
  createPool(signal: AbortSignal): Promise<void>;
  /** Makes the pool usable after a restart of the host or daemon. Idempotent. */
  openPool(signal: AbortSignal): Promise<void>;
  /** Removes everything that createPool made; the pool must be empty. */
  deletePool(signal: AbortSignal): Promise<void>;
  /**
   * Removes what a process left that was killed in createPool(), after checkPool(), or in the removal of a pool in which nothing but
   * images was left. Idempotent; what the operator had there before stays.
   */
  discardPool(signal: AbortSignal): Promise<void>;
  /**
   * AppError 'unavailable', saying why, when the open pool is not there any more: unmounted, exported, its devices do not answer. Cheap,
   * and asks nothing that could wait for them. Absent: it cannot be told.
   */
  checkPresent?(signal: AbortSignal): Promise<void>;
  /** Whether the open pool can only be read. Absent: as the file system is mounted. */
  isReadonly?(signal: AbortSignal): Promise<boolean>;
  poolUsage(signal: AbortSignal): Promise<PoolUsage>;
  /**
   * Applies the keys of StorageModule.changeableKeys that differ from `before`; this driver has the new configuration, and the pool is
   * open. Safe to call again. AppError 'invalid', touching nothing, for what cannot be. Absent: they need no more than to be recorded.
   */
  changePool?(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void>;
  /** What the record of a pool that was just made shall say instead of what was given: where it lies, how big it is. */
  recordedConfig?(signal: AbortSignal): Promise<Readonly<Record<string, string>>>;

  /**
   * `unpack` fills the given directory with metadata.yaml, rootfs/ and templates/. Atomic: published only when it succeeded.
   * AppError 'conflict', touching nothing, when the image exists.
   */
  createImage(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void>;
  hasImage(fingerprint: string, signal: AbortSignal): Promise<boolean>;
  /** Works while instances still use the image: it then goes away with the last of them. */
  deleteImage(fingerprint: string, signal: AbortSignal): Promise<void>;
  listImages(signal: AbortSignal): Promise<readonly string[]>;

  createInstance(volume: NewInstanceVolume, signal: AbortSignal): Promise<void>;
  deleteInstance(name: string, signal: AbortSignal): Promise<void>;
  renameInstance(name: string, newName: string, signal: AbortSignal): Promise<void>;
  listInstances(signal: AbortSignal): Promise<readonly string[]>;
  /** Idempotent. The mount outlives this process. */
  mountInstance(name: string, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot>;
  /** Idempotent; absent is success. A busy mount is detached lazily, never reported. */
  unmountInstance(name: string, signal: AbortSignal): Promise<void>;
  /** Undefined sizeBytes removes the limit. AppError 'unsupported' when info.quotas is false. */
  resizeInstance(name: string, sizeBytes: number | undefined, signal: AbortSignal): Promise<void>;
  /** Bytes used by one instance; undefined when the file system cannot tell cheaply. */
  instanceUsage(name: string, signal: AbortSignal): Promise<number | undefined>;
  /** The same of all instances at once; for drivers where asking for each would fork a command. */
  instanceUsages?(signal: AbortSignal): Promise<ReadonlyMap<string, number>>;

  /** As createInstance(). AppError 'unsupported' for a kind that the driver does not have. */
  createVolume(volume: NewVolume, signal: AbortSignal): Promise<void>;
  /** With its snapshots. Absent is success. */
  deleteVolume(volume: VolumeRef, signal: AbortSignal): Promise<void>;
  /** With its snapshots. */
  renameVolume(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void>;
  listVolumes(kind: VolumeKind, signal: AbortSignal): Promise<readonly string[]>;
  /**
   * As mountInstance(). Where the kernel cannot map the ids of the file system, the owners of a volume that nobody uses are changed on
   * the disk: all of them or none, even when this process is killed. Snapshots, copies and streams have those that their files had then;
   * a restore brings them back.
   */
  mountVolume(volume: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot>;
  unmountVolume(volume: VolumeRef, signal: AbortSignal): Promise<void>;
  resizeVolume(volume: VolumeRef, sizeBytes: number | undefined, signal: AbortSignal): Promise<void>;
  /** Replaces the volume's own keys; the size is set anew, since they may say how it is limited. */
  configureVolume?(volume: VolumeRef, change: VolumeChange, signal: AbortSignal): Promise<void>;
  /** Bytes used by one volume; undefined when the file system cannot tell cheaply. */
  volumeUsage?(volume: VolumeRef, signal: AbortSignal): Promise<number | undefined>;

  /**
   * Runs `use` with the directory of an instance that holds rootfs/ and, beside it, what else is kept of the instance. Mounted only as
   * long as that lasts, unless it was before; owners are not looked at. AppError 'not_found' when there is no such instance. Absent:
   * the driver keeps nothing there.
   */
  withFolder?<T>(name: string, use: (directory: string) => Promise<T>, signal: AbortSignal): Promise<T>;

  /** Atomic; of a volume that may be in use (see instantSnapshots). AppError 'conflict' when the name is taken. */
  createSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void>;
  /** Absent is success. */
  deleteSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void>;
  renameSnapshot(rename: SnapshotRename, signal: AbortSignal): Promise<void>;
  listSnapshots(volume: VolumeRef, signal: AbortSignal): Promise<readonly string[]>;
  /** Bytes; undefined when the file system cannot tell cheaply. */
  snapshotUsage(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<number | undefined>;
  /** For drivers that cannot keep them when they restore. */
  laterSnapshots?(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<LaterSnapshots>;
  /** Atomic. The volume is not in use. Later snapshots stay, or AppError names them. */
  restoreSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void>;
  /** For reading. Idempotent. */
  mountSnapshot(mount: SnapshotMount, signal: AbortSignal): Promise<MountedRoot>;
  /** Idempotent; absent is success. */
  unmountSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void>;
  readonly streams?: StorageStreams;
  /** Inside this pool. Undone when it fails. Absent: it is copied file by file through mounts. */
  copyVolume?(copy: VolumeCopy, signal: AbortSignal): Promise<void>;
}

/** All that a driver is given. No database, no API, no other driver. */
export interface StorageContext {
  readonly host: Host;
  readonly log: Log;
  readonly pool: string;
  /** $LIGHTER_DIR/storage-pools/POOL: where the pool is mounted or kept. */
  readonly poolPath: string;
  /** $LIGHTER_DIR/disks: loop files. */
  readonly disksPath: string;
  /** What may be changed of it changes while the driver lives. */
  readonly config: Readonly<Record<string, string>>;
  /** The map that most instances use. Drivers that cannot map ids at mount time keep their images shifted to it. */
  readonly defaultIdMap?: IdMapRange | null;
}

export interface StorageModule {
  readonly name: string;
  /** Config keys of pools of this driver: name → what it is. Others are refused by the API. */
  readonly configKeys: Readonly<Record<string, string>>;
  /** Config keys of custom volumes of this driver; volume.KEY on the pool is the default. Each throws for a bad value. */
  readonly volumeKeys?: Readonly<Record<string, (value: string) => void>>;
  /** Keys that can be changed later, besides volume.* ones. */
  readonly changeableKeys?: readonly string[];
  /** What this host lacks for pools of the driver, in words, with what to do about it; empty: nothing. Absent: it needs nothing. */
  missing?(host: Host): Promise<readonly string[]>;
  /** AppError 'invalid' for what the configuration of a pool cannot be. */
  checkConfig?(config: Readonly<Record<string, string>>): void;
  create(context: StorageContext): StorageDriver;
}
