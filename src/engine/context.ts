// What every part of the engine is given: the machine, the database, the locks and the other parts it may ask.
import { join } from 'node:path';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import type { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import type { EngineDatabase } from './db/database.ts';
import type { ImageRecord, VolumeRecord } from './db/records.ts';
import type { VolumeKey } from './db/volumes.ts';
import type { RsyncSettings } from './migration/rsync.ts';
import type { ProjectGate } from './projects/project-gate.ts';
import type { ServerConfig } from './server/server-config.ts';
import type { ImageSource } from './images/sources/remote.ts';
import type { ConfigMap, DeviceMap, EnginePaths, Events, OperationHandle, Operations } from './types.ts';

/** Pools by name, for instances and images. */
export interface PoolAccess {
  /** AppError 'not_found' for an unknown pool, 'unavailable' when it could not be opened. */
  driver(pool: string): StorageDriver;
  /** Keys of custom volumes that only pools of this driver have, each with what throws for a bad value. */
  volumeKeys(pool: string): Readonly<Record<string, (value: string) => void>>;
  /** What the pool's configuration says of copies by rsync. */
  rsync(pool: string): RsyncSettings;
  /** `listener` is called when a pool has become available that was not. */
  onReturn(listener: (pool: string, signal: AbortSignal) => Promise<void>): void;
}

export interface ImageSelector {
  readonly alias?: string;
  /** Whole or a unique prefix. */
  readonly fingerprint?: string;
  /** The newest image that has all of these. */
  readonly properties?: Readonly<Record<string, string>>;
}

export interface ImageTemplate {
  readonly when: readonly string[];
  readonly createOnly: boolean;
  readonly template: string;
  readonly properties: Readonly<Record<string, string>>;
}

/** metadata.yaml of an image (section 2.8). */
export interface ImageMetadata {
  readonly architecture: string;
  /** Seconds since 1970. */
  readonly creationDate: number;
  readonly expiryDate: number;
  readonly properties: Readonly<Record<string, string>>;
  readonly templates: Readonly<Record<string, ImageTemplate>>;
}

/** What instances need of images. */
export interface ImageAccess {
  /** AppError 'not_found' ("Image not found", "Image alias not found"), 'invalid' when a prefix is ambiguous. */
  resolve(project: string, selector: ImageSelector): ImageRecord;
  /**
   * Unpacks the image into the pool unless it is there, and runs `use` while it cannot be deleted; marks it as used.
   * `progress` gets percent.
   */
  withUnpacked(request: UnpackRequest, use: () => Promise<void>, signal: AbortSignal): Promise<void>;
  metadata(fingerprint: string): Promise<ImageMetadata>;
  /** A directory with the image's metadata.yaml and templates/, to copy from; made at the first call. */
  metadataDirectory(fingerprint: string, signal: AbortSignal): Promise<string>;
}

/** What instances need of image servers. */
export interface ImageDownloadAccess {
  /** The image, from the cache or from where `source` says; kept as cached. */
  forInstance(project: string, source: ImageSource, operation: OperationHandle): Promise<ImageRecord>;
}

/** An instance as networks see it. */
export interface NetworkedInstance {
  readonly project: string;
  readonly name: string;
  /** volatile.* in it. */
  readonly config: ConfigMap;
  /** Expanded. */
  readonly devices: DeviceMap;
}

/** What instances need of managed networks. */
export interface NetworkAccess {
  /** A nic as its driver knows it: instead of `network` what that network decides. Other devices stay as they are. */
  expand(project: string, device: ConfigMap): ConfigMap;
  /** AppError 'invalid' with LXD's text when a nic and its network do not go together. */
  check(project: string, device: ConfigMap): void;
  /** AppError 'conflict' with LXD's text when another nic has an address or a name of this instance. */
  checkStart(instance: NetworkedInstance): void;
  /** The same, of those devices alone that are new or change. */
  checkChange(instance: NetworkedInstance, changed: DeviceMap): void;
  /** Of nics that are filtered and name no address, what publish() has chosen, by device: ipv4.address and ipv6.address; empty: none was free, none: it gives out none. */
  chosenAddresses(instance: NetworkedInstance): DeviceMap;
  /** Tells DHCP and DNS about the nics of an instance; of those that it has no more they forget. */
  publish(instance: NetworkedInstance): Promise<void>;
  /** The instance is gone, or has another name. */
  withdraw(key: Pick<NetworkedInstance, 'project' | 'name'>): Promise<void>;
}

/** What instances need of custom volumes. */
export interface VolumeAccess {
  /** The project that holds the custom volumes of `project`. */
  holder(project: string): string;
  /** AppError 'not_found' with LXD's text. */
  get(key: VolumeKey): VolumeRecord;
  locked<T>(key: VolumeKey, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export interface UnpackRequest {
  readonly fingerprint: string;
  readonly pool: string;
  readonly progress?: (percent: number) => void;
}

/** All that a part of the engine is given. Keys of `locks`: `instance/PROJECT/NAME`, `image/FP`, `pool/NAME`, `profile/PROJECT/NAME`, `network/NAME`. */
export interface EngineContext {
  readonly paths: EnginePaths;
  readonly host: Host;
  readonly log: Log;
  readonly database: EngineDatabase;
  readonly locks: KeyedLock;
  readonly operations: Operations;
  readonly events: Events;
  /** Limits and restrictions of projects. */
  readonly gate: ProjectGate;
  readonly config: ServerConfig;
  readonly pools: PoolAccess;
  readonly images: ImageAccess;
  readonly downloads: ImageDownloadAccess;
  readonly volumes: VolumeAccess;
  readonly networks: NetworkAccess;
}

export function enginePaths(root: string): EnginePaths {
  return {
    root,
    database: join(root, 'database', 'lighter.db'),
    socket: join(root, 'unix.socket'),
    images: join(root, 'images'),
    storagePools: join(root, 'storage-pools'),
    disks: join(root, 'disks'),
    containers: join(root, 'containers'),
    instances: join(root, 'instances'),
    logs: join(root, 'logs'),
    devices: join(root, 'devices'),
    blocks: join(root, 'blocks'),
    servedDisks: join(root, 'served-disks'),
    backups: join(root, 'backups'),
    snapshots: join(root, 'snapshots'),
  };
}
