// The lvm driver: images, volumes and their snapshots are logical volumes of one thin pool; one command makes a copy of any of them.
import { AppError } from '#src/lib/errors.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import type {
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
import { LvmImages } from './images.ts';
import { cleanLeftovers } from './leftovers.ts';
import { parseImage, parseVolume } from './names.ts';
import { LvmParts } from './parts.ts';
import { checkPoolConfig } from './settings.ts';
import { LvmSnapshots } from './snapshots.ts';
import { LvmVolumes } from './volumes.ts';

const container = (name: string): VolumeRef => ({ kind: 'container', name });

export class LvmDriver implements StorageDriver {
  readonly info: StorageInfo = { name: 'lvm', copyOnWrite: true, quotas: true, instantSnapshots: true };
  readonly #parts: LvmParts;
  readonly #images: LvmImages;
  readonly #volumes: LvmVolumes;
  readonly #snapshots: LvmSnapshots;

  constructor(context: StorageContext) {
    checkPoolConfig(context.config);
    this.#parts = new LvmParts(context);
    this.#images = new LvmImages(this.#parts);
    this.#volumes = new LvmVolumes(this.#parts, this.#images);
    this.#snapshots = new LvmSnapshots(this.#parts, this.#volumes);
  }

  checkPool(signal: AbortSignal): Promise<void> {
    return this.#parts.pool.check(signal);
  }

  createPool(signal: AbortSignal): Promise<void> {
    return this.#parts.pool.create(signal);
  }

  async openPool(signal: AbortSignal): Promise<void> {
    await this.#parts.pool.open(signal);
    await cleanLeftovers(this.#parts, {}, signal);
  }

  async deletePool(signal: AbortSignal): Promise<void> {
    const { pool, context } = this.#parts;
    if (await pool.lvm.group(pool.group, signal)) {
      await cleanLeftovers(this.#parts, { ownToo: true }, signal);
      const names = (await pool.volumes(signal)).map(({ name }) => name);
      const kept = names.find((name) => parseImage(name) !== undefined || parseVolume(name) !== undefined);
      if (kept !== undefined) throw new AppError('conflict', `pool ${context.pool} is in use: ${kept}`);
    }
    await pool.delete(signal);
  }

  async discardPool(signal: AbortSignal): Promise<void> {
    const { pool } = this.#parts;
    if (await pool.isMarked(signal)) {
      await cleanLeftovers(this.#parts, { ownToo: true }, signal);
      for (const fingerprint of await this.listImages(signal)) await this.deleteImage(fingerprint, signal);
    }
    await pool.discard(signal);
  }

  poolUsage(signal: AbortSignal): Promise<PoolUsage> {
    return this.#parts.pool.usage(signal);
  }

  changePool(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    return this.#parts.pool.change(before, signal);
  }

  recordedConfig(): Promise<Readonly<Record<string, string>>> {
    return this.#parts.pool.recordedConfig();
  }

  createImage(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    return this.#images.create(fingerprint, unpack, signal);
  }

  hasImage(fingerprint: string, signal: AbortSignal): Promise<boolean> {
    return this.#images.has(fingerprint, signal);
  }

  deleteImage(fingerprint: string, signal: AbortSignal): Promise<void> {
    return this.#images.delete(fingerprint, signal);
  }

  listImages(signal: AbortSignal): Promise<readonly string[]> {
    return this.#images.list(signal);
  }

  createInstance(volume: NewInstanceVolume, signal: AbortSignal): Promise<void> {
    return this.createVolume({ ...volume, kind: 'container' }, signal);
  }

  deleteInstance(name: string, signal: AbortSignal): Promise<void> {
    return this.#volumes.delete(container(name), signal);
  }

  renameInstance(name: string, newName: string, signal: AbortSignal): Promise<void> {
    return this.#volumes.rename(container(name), newName, signal);
  }

  listInstances(signal: AbortSignal): Promise<readonly string[]> {
    return this.listVolumes('container', signal);
  }

  mountInstance(name: string, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    return this.mountVolume(container(name), idMap, signal);
  }

  unmountInstance(name: string, signal: AbortSignal): Promise<void> {
    return this.unmountVolume(container(name), signal);
  }

  resizeInstance(name: string, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    return this.resizeVolume(container(name), sizeBytes, signal);
  }

  instanceUsage(name: string): Promise<number | undefined> {
    return this.volumeUsage(container(name));
  }

  withFolder<T>(name: string, use: (directory: string) => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#volumes.withFolder(container(name), use, signal);
  }

  createVolume(volume: NewVolume, signal: AbortSignal): Promise<void> {
    return this.#volumes.create(volume, signal);
  }

  async deleteVolume(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    await this.#volumes.delete(volume, signal);
    await this.#snapshots.deleteAll(volume, signal);
  }

  /** The volume first: when it has the new name and its snapshots have not, another call goes on. */
  async renameVolume(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    await this.#volumes.rename(volume, newName, signal);
    await this.#snapshots.follow(volume, newName, signal);
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

  configureVolume(volume: VolumeRef, change: VolumeChange, signal: AbortSignal): Promise<void> {
    return this.#volumes.configure(volume, change, signal);
  }

  volumeUsage(volume: VolumeRef): Promise<number | undefined> {
    return this.#volumes.usage(volume);
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

  /** Blocks that only a snapshot has are counted nowhere. */
  snapshotUsage(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  restoreSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.restore(volume, snapshot, signal);
  }

  mountSnapshot(mount: SnapshotMount, signal: AbortSignal): Promise<MountedRoot> {
    return this.#snapshots.mount(mount, signal);
  }

  unmountSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.unmount(volume, snapshot, signal);
  }

  copyVolume(copy: VolumeCopy, signal: AbortSignal): Promise<void> {
    return this.#snapshots.copy(copy, signal);
  }
}
