// The zfs driver: images are snapshots, volumes datasets, instances clones; one command makes any of them.
import { AppError } from '#src/lib/errors.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type {
  LaterSnapshots,
  MountedRoot,
  NewInstanceVolume,
  NewVolume,
  PoolUsage,
  SnapshotMount,
  SnapshotRename,
  StorageContext,
  StorageDriver,
  StorageInfo,
  Unpack,
  VolumeChange,
  VolumeCopy,
  VolumeKind,
  VolumeRef,
} from '../driver.ts';
import { ZfsCopies } from './copies.ts';
import { ZfsParts } from './parts.ts';
import { ZfsRestore } from './restore.ts';
import { ZfsSnapshots } from './snapshots.ts';
import { ZfsStreams } from './streams.ts';
import { ZfsVolumes } from './volumes.ts';

const instance = (name: string): VolumeRef => ({ kind: 'container', name });

export class ZfsDriver implements StorageDriver {
  readonly info: StorageInfo = { name: 'zfs', copyOnWrite: true, quotas: true, instantSnapshots: true };
  readonly streams: ZfsStreams;
  readonly #parts: ZfsParts;
  readonly #volumes: ZfsVolumes;
  readonly #snapshots: ZfsSnapshots;
  readonly #copies: ZfsCopies;

  constructor(context: StorageContext) {
    this.#parts = new ZfsParts(context);
    this.#volumes = new ZfsVolumes(this.#parts);
    this.#snapshots = new ZfsSnapshots(this.#parts);
    this.streams = new ZfsStreams(this.#parts, this.#volumes);
    this.#copies = new ZfsCopies(this.#parts, this.#volumes);
  }

  checkPool(signal: AbortSignal): Promise<void> {
    return this.#parts.pool.check(signal);
  }

  createPool(signal: AbortSignal): Promise<void> {
    return this.#parts.pool.create(signal);
  }

  recordedConfig(): Promise<Readonly<Record<string, string>>> {
    return this.#parts.pool.config();
  }

  changePool(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    return this.#parts.pool.change(before, signal);
  }

  async openPool(signal: AbortSignal): Promise<void> {
    await this.#parts.pool.open(signal);
    await this.#clean(signal);
  }

  async deletePool(signal: AbortSignal): Promise<void> {
    const { context, pool, zfs } = this.#parts;
    if (await zfs.exists(pool.names.root, signal)) {
      await this.#clean(signal);
      const volumes = [...(await this.listInstances(signal)), ...(await this.listVolumes('custom', signal))];
      const [kept] = [...volumes, ...(await this.listImages(signal))];
      if (kept !== undefined) throw new AppError('conflict', `pool ${context.pool} is in use: ${kept}`);
    }
    await pool.delete(signal);
  }

  discardPool(signal: AbortSignal): Promise<void> {
    return this.#parts.pool.discard(signal);
  }

  async #clean(signal: AbortSignal): Promise<void> {
    await new ZfsRestore(this.#parts).heal(signal);
    await this.#parts.ghosts.clean(signal);
    await this.#parts.images.clean(signal);
  }

  checkPresent(signal: AbortSignal): Promise<void> {
    return this.#parts.pool.checkPresent(signal);
  }

  isReadonly(signal: AbortSignal): Promise<boolean> {
    return this.#parts.pool.isReadonly(signal);
  }

  poolUsage(signal: AbortSignal): Promise<PoolUsage> {
    return this.#parts.pool.usage(signal);
  }

  createImage(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    return this.#parts.images.create(fingerprint, unpack, signal);
  }

  hasImage(fingerprint: string, signal: AbortSignal): Promise<boolean> {
    return this.#parts.images.has(fingerprint, signal);
  }

  deleteImage(fingerprint: string, signal: AbortSignal): Promise<void> {
    return this.#parts.images.delete(fingerprint, signal);
  }

  listImages(signal: AbortSignal): Promise<readonly string[]> {
    return this.#parts.images.list(signal);
  }

  createInstance(volume: NewInstanceVolume, signal: AbortSignal): Promise<void> {
    return this.createVolume({ kind: 'container', ...volume }, signal);
  }

  deleteInstance(name: string, signal: AbortSignal): Promise<void> {
    return this.deleteVolume(instance(name), signal);
  }

  renameInstance(name: string, newName: string, signal: AbortSignal): Promise<void> {
    return this.renameVolume(instance(name), newName, signal);
  }

  listInstances(signal: AbortSignal): Promise<readonly string[]> {
    return this.#volumes.list('container', signal);
  }

  mountInstance(name: string, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    return this.#volumes.mount(instance(name), idMap, signal);
  }

  unmountInstance(name: string, signal: AbortSignal): Promise<void> {
    return this.#volumes.unmount(instance(name), signal);
  }

  withFolder<T>(name: string, use: (directory: string) => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#volumes.withFolder(instance(name), use, signal);
  }

  resizeInstance(name: string, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    return this.#volumes.resize(instance(name), sizeBytes, signal);
  }

  instanceUsage(name: string, signal: AbortSignal): Promise<number> {
    return this.#volumes.usage(instance(name), signal);
  }

  instanceUsages(signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    return this.#volumes.usages(signal);
  }

  createVolume(volume: NewVolume, signal: AbortSignal): Promise<void> {
    return this.#volumes.create(volume, signal);
  }

  async deleteVolume(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    await this.#snapshots.unmountAll(volume, signal);
    await this.#volumes.delete(volume, signal);
  }

  async renameVolume(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    await this.#snapshots.unmountAll(volume, signal);
    await this.#volumes.rename(volume, newName, signal);
  }

  listVolumes(kind: VolumeKind, signal: AbortSignal): Promise<readonly string[]> {
    return this.#volumes.list(kind, signal);
  }

  mountVolume(volume: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    return this.#volumes.mount(volume, idMap, signal);
  }

  unmountVolume(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    return this.#volumes.unmount(volume, signal);
  }

  resizeVolume(volume: VolumeRef, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    return this.#volumes.resize(volume, sizeBytes, signal);
  }

  async configureVolume(volume: VolumeRef, { config, sizeBytes }: VolumeChange, signal: AbortSignal): Promise<void> {
    await this.#parts.settings.write(this.#parts.pool.names.volume(volume), config, signal);
    await this.#volumes.resize(volume, sizeBytes, signal);
  }

  volumeUsage(volume: VolumeRef, signal: AbortSignal): Promise<number> {
    return this.#volumes.usage(volume, signal);
  }

  createSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.create(volume, snapshot, signal);
  }

  deleteSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.delete(volume, snapshot, signal);
  }

  renameSnapshot(rename: SnapshotRename, signal: AbortSignal): Promise<void> {
    return this.#snapshots.rename(rename, signal);
  }

  listSnapshots(volume: VolumeRef, signal: AbortSignal): Promise<readonly string[]> {
    return this.#snapshots.list(volume, signal);
  }

  snapshotUsage(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<number> {
    return this.#snapshots.usage(volume, snapshot, signal);
  }

  laterSnapshots(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<LaterSnapshots> {
    return this.#snapshots.later(volume, snapshot, signal);
  }

  restoreSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.restore(volume, snapshot, signal);
  }

  mountSnapshot({ volume, snapshot }: SnapshotMount, signal: AbortSignal): Promise<MountedRoot> {
    return this.#snapshots.mount(volume, snapshot, signal);
  }

  unmountSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.unmount(volume, snapshot, signal);
  }

  copyVolume(copy: VolumeCopy, signal: AbortSignal): Promise<void> {
    return this.#copies.copy(copy, signal);
  }
}
