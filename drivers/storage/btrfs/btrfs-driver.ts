// The btrfs driver: images, volumes and their snapshots are subvolumes; one system call makes a copy of any of them.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import { type IdMapRange, sameIdMap } from '#src/host/id-map.ts';
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
  VolumeCopy,
  VolumeKind,
  VolumeRef,
} from '../driver.ts';
import { requireShiftable } from '../common/owner-protection.ts';
import { markedOwners, markOwners } from '../common/owners-mark.ts';
import { readRecord, writeRecord } from '../common/volume-record.ts';
import { Images } from './images.ts';
import { Places } from './places.ts';
import { BtrfsPool } from './pool.ts';
import { BtrfsStreams } from './streams.ts';
import { shiftWithNested } from './shift-owners.ts';
import { Volumes } from './volumes.ts';

/** The runtime mounts the root through the container's own map (lxc.rootfs.options). */
const MAPPED_BY_RUNTIME = 'idmap=container';

export class BtrfsDriver implements StorageDriver {
  readonly info: StorageInfo = { name: 'btrfs', copyOnWrite: true, quotas: true, instantSnapshots: true };
  readonly streams: BtrfsStreams;
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #pool: BtrfsPool;
  readonly #places: Places;
  readonly #images: Images;
  readonly #volumes: Volumes;

  constructor(context: StorageContext) {
    this.#context = context;
    this.#host = context.host;
    this.#pool = new BtrfsPool(context);
    this.#places = new Places(context);
    this.#images = new Images(context, this.#places);
    this.#volumes = new Volumes(context, this.#places);
    this.streams = new BtrfsStreams({ context, places: this.#places, volumes: this.#volumes });
  }

  checkPool(signal: AbortSignal): Promise<void> {
    return this.#pool.check(signal);
  }

  createPool(signal: AbortSignal): Promise<void> {
    return this.#pool.create(signal);
  }

  async openPool(signal: AbortSignal): Promise<void> {
    await this.#pool.open(signal);
    await this.#places.clean();
  }

  async deletePool(signal: AbortSignal): Promise<void> {
    await this.#pool.open(signal);
    await this.#places.clean({ ownToo: true });
    const kept = await this.#places.firstEntry();
    if (kept !== undefined) throw new AppError('conflict', `pool ${this.#context.pool} is in use: ${kept}`);
    await this.#pool.delete();
  }

  discardPool(signal: AbortSignal): Promise<void> {
    return this.#pool.discard(async () => {
      for (const fingerprint of await this.#images.list()) await this.#images.delete(fingerprint);
      await this.#places.clean({ ownToo: true });
    }, signal);
  }

  changePool(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    return this.#pool.change(before, signal);
  }

  checkPresent(): Promise<void> {
    return this.#pool.checkPresent();
  }

  poolUsage(): Promise<PoolUsage> {
    return this.#host.usage(this.#context.poolPath);
  }

  recordedConfig(signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    return this.#pool.recordedConfig(signal);
  }

  /** Where the kernel cannot map ids, images have the map that most instances use. */
  async createImage(fingerprint: string, unpack: Unpack): Promise<void> {
    await this.#images.create(fingerprint, unpack, await this.#ownersOnDisk(this.#context.defaultIdMap ?? null));
  }

  hasImage(fingerprint: string): Promise<boolean> {
    return this.#images.has(fingerprint);
  }

  deleteImage(fingerprint: string): Promise<void> {
    return this.#images.delete(fingerprint);
  }

  listImages(): Promise<readonly string[]> {
    return this.#images.list();
  }

  createInstance(volume: NewInstanceVolume, signal: AbortSignal): Promise<void> {
    return this.createVolume({ ...volume, kind: 'container' }, signal);
  }

  deleteInstance(name: string): Promise<void> {
    return this.#places.remove(this.#places.volume(container(name)));
  }

  renameInstance(name: string, newName: string): Promise<void> {
    return this.renameVolume(container(name), newName);
  }

  listInstances(): Promise<readonly string[]> {
    return this.listVolumes('container');
  }

  mountInstance(name: string, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    return this.mountVolume(container(name), idMap, signal);
  }

  unmountInstance(name: string): Promise<void> {
    return this.unmountVolume(container(name));
  }

  async withFolder<T>(name: string, use: (directory: string) => Promise<T>): Promise<T> {
    const directory = this.#places.volume(container(name));
    await this.#host.status(directory); // which must be there
    return use(directory);
  }

  resizeInstance(name: string, sizeBytes: number | undefined): Promise<void> {
    return this.resizeVolume(container(name), sizeBytes);
  }

  instanceUsage(name: string): Promise<number | undefined> {
    return this.volumeUsage(container(name));
  }

  async createVolume(volume: NewVolume, signal: AbortSignal): Promise<void> {
    await this.#volumes.create(volume, await this.#ownersOnDisk(volume.idMap), signal);
  }

  deleteVolume(volume: VolumeRef): Promise<void> {
    return this.#volumes.delete(volume);
  }

  renameVolume(volume: VolumeRef, newName: string): Promise<void> {
    return this.#volumes.rename(volume, newName);
  }

  listVolumes(kind: VolumeKind): Promise<readonly string[]> {
    return this.#volumes.list(kind);
  }

  /**
   * Nothing is mounted. Owners stay unmapped where the kernel can map them, else they are changed when the map changes.
   */
  async mountVolume(volume: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    const path = this.#places.volume(volume);
    if (volume.kind === 'custom') return this.#mountCustom(volume, { path, idMap }, signal);
    const { owners } = await readRecord(this.#host, path);
    const wanted = await this.#ownersOnDisk(idMap);
    if (!sameIdMap(owners, wanted)) {
      requireShiftable(volume);
      await this.#reown(volume, wanted, signal);
    }
    const uid = idMap?.uidBase ?? 0;
    if ((await this.#host.status(path)).uid !== uid) await this.#host.chown(path, uid, 0);
    return root(path, { owners: wanted, idMap });
  }

  async unmountVolume(volume: VolumeRef): Promise<void> {
    this.#places.volume(volume); // the name is checked, and nothing was mounted
    await Promise.resolve();
  }

  resizeVolume(volume: VolumeRef, sizeBytes: number | undefined): Promise<void> {
    return this.#volumes.resize(volume, sizeBytes);
  }

  volumeUsage(volume: VolumeRef): Promise<number | undefined> {
    return this.#volumes.usage(this.#places.volume(volume));
  }

  createSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#volumes.createSnapshot(volume, snapshot, signal);
  }

  deleteSnapshot(volume: VolumeRef, snapshot: string): Promise<void> {
    return this.#places.removeSnapshot(volume, snapshot);
  }

  renameSnapshot({ volume, snapshot, newName }: SnapshotRename): Promise<void> {
    return this.#host.btrfs.publish(this.#places.snapshot(volume, snapshot), this.#places.snapshot(volume, newName));
  }

  listSnapshots(volume: VolumeRef): Promise<readonly string[]> {
    return this.#volumes.snapshots(volume);
  }

  snapshotUsage(volume: VolumeRef, snapshot: string): Promise<number | undefined> {
    return this.#volumes.usage(this.#places.snapshot(volume, snapshot));
  }

  restoreSnapshot(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.#volumes.restore(volume, snapshot, signal);
  }

  async mountSnapshot({ volume, snapshot, idMap }: SnapshotMount): Promise<MountedRoot> {
    const path = this.#places.snapshot(volume, snapshot);
    if (volume.kind === 'custom') return { rootfsPath: path, owners: await this.#markedOwners(path) };
    const { owners } = await readRecord(this.#host, path);
    return root(path, { owners, idMap });
  }

  async unmountSnapshot(volume: VolumeRef, snapshot: string): Promise<void> {
    this.#places.snapshot(volume, snapshot); // as unmountVolume()
    await Promise.resolve();
  }

  copyVolume(copy: VolumeCopy, signal: AbortSignal): Promise<void> {
    return this.#volumes.copy(copy, signal);
  }

  /** Of a custom volume or its snapshot. */
  async #markedOwners(path: string): Promise<IdMapRange | null> {
    if (!(await this.#host.exists(path))) throw new AppError('not_found', `volume ${path} is not there`);
    return markedOwners(this.#host, path);
  }

  async #mountCustom(
    volume: VolumeRef,
    { path, idMap }: { readonly path: string; readonly idMap: IdMapRange | null },
    signal: AbortSignal,
  ): Promise<MountedRoot> {
    const from = await this.#markedOwners(path);
    const to = await this.#ownersOnDisk(idMap);
    if (volume.forReading === true || sameIdMap(from, to)) return { rootfsPath: path, owners: from };
    const change = async (work: string): Promise<void> => {
      await shiftWithNested(this.#host, { subvolume: work }, { from, to }, signal);
      await markOwners(this.#host, work, to);
    };
    await this.#volumes.replaceBy(volume, path, { change, signal });
    return { rootfsPath: path, owners: to };
  }

  async #ownersOnDisk(idMap: IdMapRange | null): Promise<IdMapRange | null> {
    return (await this.#host.mounts.canMapIds(this.#context.poolPath)) ? null : idMap;
  }

  /** A re-owned copy changes places with the volume, so that a crash leaves the one or the other. */
  async #reown(volume: VolumeRef, owners: IdMapRange | null, signal: AbortSignal): Promise<void> {
    const path = this.#places.volume(volume);
    const record = await readRecord(this.#host, path);
    const change = async (work: string): Promise<void> => {
      const place = { subvolume: work, tree: join(work, 'rootfs') };
      await shiftWithNested(this.#host, place, { from: record.owners, to: owners }, signal);
      await writeRecord(this.#host, work, { ...record, owners });
    };
    await this.#volumes.replaceBy(volume, path, { change, signal });
  }
}

function container(name: string): VolumeRef {
  return { kind: 'container', name };
}

function root(
  path: string,
  { owners, idMap }: { readonly owners: IdMapRange | null; readonly idMap: IdMapRange | null },
): MountedRoot {
  const options = sameIdMap(owners, idMap) ? {} : { rootfsOptions: MAPPED_BY_RUNTIME };
  return { rootfsPath: join(path, 'rootfs'), owners, ...options };
}
