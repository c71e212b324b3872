// What drivers share that keep images and instances as directories of a plain file system.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type {
  MountedRoot,
  NewInstanceVolume,
  PoolUsage,
  SnapshotMount,
  SnapshotRename,
  StorageContext,
  StorageDriver,
  StorageInfo,
  Unpack,
  VolumeCopy,
  VolumeRef,
} from '../driver.ts';
import { ImageTrees } from './image-trees.ts';
import { InstanceQuotas } from './instance-quotas.ts';
import { InstanceVolumes } from './instance-volumes.ts';
import { PoolDirectory } from './pool-directory.ts';
import { type TreeShape, TreeSnapshots } from './tree-snapshots.ts';
import { removeIfEmpty } from './remove-if-empty.ts';
import { readRecord, type VolumeRecord, writeRecord } from './volume-record.ts';

export const COPY_LIMIT_MS = 30 * 60_000;

/** An instance in the making: nobody sees `path` before it is complete. */
export interface NewTree {
  readonly path: string;
  readonly volume: NewInstanceVolume;
  /** Absent: an empty root. */
  readonly imagePath: string | undefined;
  readonly signal: AbortSignal;
}

/** How a tree is to be seen. */
export interface TreeMount extends Pick<VolumeRef, 'keepsOwners' | 'forReading'> {
  readonly idMap: IdMapRange | null;
}

export abstract class TreeDriver extends InstanceVolumes implements StorageDriver {
  abstract readonly info: StorageInfo;
  protected readonly context: StorageContext;
  protected readonly host: Host;
  protected readonly pool: PoolDirectory;
  protected readonly images: ImageTrees;
  protected readonly quotas: InstanceQuotas;

  constructor(context: StorageContext) {
    super();
    this.context = context;
    this.host = context.host;
    this.pool = new PoolDirectory(context);
    this.images = new ImageTrees(context, this.pool);
    this.quotas = new InstanceQuotas(context);
  }

  /** Made when it is first needed: the shape is the subclass's. */
  protected get snapshots(): TreeSnapshots {
    const { context, pool, quotas, shape } = this;
    this.#snapshots ??= new TreeSnapshots({ context, pool, quotas, shape });
    return this.#snapshots;
  }

  /** Fills the directory and says what is to be remembered. `quotaFolders` is called before anything is put in them. */
  protected abstract fill(tree: NewTree): Promise<Omit<VolumeRecord, 'projectId'>>;
  /** `quotaFolders` count for the size of an instance; they are made before fill(). */
  protected abstract readonly shape: TreeShape;
  /** Whether an instance needs the image to be there. */
  protected abstract isUsed(fingerprint: string): Promise<boolean>;
  /** Of the directory of a volume or snapshot. */
  protected abstract mountTree(path: string, mount: TreeMount, signal: AbortSignal): Promise<MountedRoot>;
  #snapshots: TreeSnapshots | undefined;

  mountInstance(name: string, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    return this.mountTree(this.pool.layout.instance(name), { idMap }, signal);
  }

  async unmountInstance(name: string, _signal: AbortSignal): Promise<void> {
    await this.host.mounts.unmount(this.pool.layout.rootfs(name));
  }

  async withFolder<T>(name: string, use: (directory: string) => Promise<T>): Promise<T> {
    const directory = this.pool.layout.instance(name);
    await this.host.status(directory); // which must be there
    return use(directory);
  }

  checkPool(): Promise<void> {
    return this.pool.check();
  }

  async createPool(): Promise<void> {
    await this.pool.create();
    await this.quotas.probe();
  }

  async openPool(): Promise<void> {
    await this.pool.open();
    await this.quotas.probe();
    for (const fingerprint of await this.host.list(this.pool.layout.folder('deleted'))) {
      await this.images.collect(fingerprint, () => this.isUsed(fingerprint));
    }
  }

  deletePool(): Promise<void> {
    return this.pool.delete();
  }

  discardPool(): Promise<void> {
    return this.pool.discard();
  }

  checkPresent(): Promise<void> {
    return this.pool.checkPresent();
  }

  poolUsage(): Promise<PoolUsage> {
    return this.pool.usage();
  }

  createImage(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    return this.images.create(fingerprint, unpack, signal);
  }

  hasImage(fingerprint: string): Promise<boolean> {
    return this.images.has(fingerprint);
  }

  deleteImage(fingerprint: string): Promise<void> {
    return this.images.delete(fingerprint, () => this.isUsed(fingerprint));
  }

  listImages(): Promise<readonly string[]> {
    return this.images.list();
  }

  async createInstance(volume: NewInstanceVolume, signal: AbortSignal): Promise<void> {
    const { name, image } = volume;
    const path = this.pool.layout.instance(name);
    await this.#refuseExisting(name);
    const imagePath = image === undefined ? undefined : await this.images.require(image);
    await using revert = new Reverter(this.context.log);

    const work = this.pool.workPath('instance');
    revert.add(`volume of ${name}`, () => this.pool.removeTree(work));
    await this.#prepare({ path: work, volume, imagePath, signal });
    signal.throwIfAborted();
    const publish = (): Promise<void> => this.host.rename(work, path);
    await (image === undefined ? publish() : this.images.using(image, publish));
    revert.commit();
  }

  async deleteInstance(name: string, signal: AbortSignal): Promise<void> {
    const path = this.pool.layout.instance(name);
    if (!(await this.host.exists(path))) return;
    const { image, projectId } = await readRecord(this.host, path);
    await this.unmountInstance(name, signal);
    await this.pool.removePublished(path);
    if (projectId !== undefined) await this.quotas.release(projectId);
    if (image !== null) await this.images.collect(image, () => this.isUsed(image));
  }

  async renameInstance(name: string, newName: string, signal: AbortSignal): Promise<void> {
    await this.#refuseExisting(newName);
    await this.unmountInstance(name, signal);
    await this.host.rename(this.pool.layout.instance(name), this.pool.layout.instance(newName));
  }

  async listInstances(): Promise<readonly string[]> {
    return [...(await this.host.list(this.pool.layout.folder('containers')))].sort();
  }

  async resizeInstance(name: string, sizeBytes: number | undefined): Promise<void> {
    const projectId = await this.#projectOf(name);
    if (projectId === undefined) {
      throw new AppError('unsupported', `pool ${this.context.pool} has no quotas: cannot resize ${name}`);
    }
    await this.quotas.limit(projectId, sizeBytes);
  }

  async instanceUsage(name: string): Promise<number | undefined> {
    const projectId = await this.#projectOf(name);
    return projectId === undefined ? undefined : await this.quotas.used(projectId);
  }

  override async deleteVolume(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    await this.deleteInstance(volume.name, signal);
    for (const snapshot of await this.snapshots.list(volume.name)) await this.deleteSnapshot(volume, snapshot);
    await removeIfEmpty(this.snapshots.folder(volume.name));
  }

  /** The volume first: when it has the new name and its snapshots have not, another call goes on. */
  override async renameVolume({ name }: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    await this.renameInstance(name, newName, signal);
    const from = this.snapshots.folder(name);
    if (await this.host.exists(from)) await this.host.rename(from, this.snapshots.folder(newName));
  }

  override createSnapshot({ name }: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    return this.snapshots.create(name, snapshot, signal);
  }

  override async deleteSnapshot(volume: VolumeRef, snapshot: string): Promise<void> {
    await this.unmountSnapshot(volume, snapshot);
    const image = await this.snapshots.delete(volume.name, snapshot);
    if (image !== null) await this.images.collect(image, () => this.isUsed(image));
  }

  override async renameSnapshot({ volume, snapshot, newName }: SnapshotRename): Promise<void> {
    await this.unmountSnapshot(volume, snapshot);
    await this.snapshots.rename(volume.name, snapshot, newName);
  }

  override listSnapshots({ name }: VolumeRef): Promise<readonly string[]> {
    return this.snapshots.list(name);
  }

  override async restoreSnapshot({ name }: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    await this.unmountInstance(name, signal);
    await this.snapshots.restore(name, snapshot, signal);
  }

  override mountSnapshot({ volume, snapshot, idMap }: SnapshotMount, signal: AbortSignal): Promise<MountedRoot> {
    return this.mountTree(this.snapshots.path(volume.name, snapshot), { idMap, forReading: true }, signal);
  }

  override async unmountSnapshot({ name }: VolumeRef, snapshot: string): Promise<void> {
    await this.host.mounts.unmount(join(this.snapshots.path(name, snapshot), 'rootfs'));
  }

  async copyVolume({ from, snapshot, snapshots, to }: VolumeCopy, signal: AbortSignal): Promise<void> {
    const { layout } = this.pool;
    await this.#refuseExisting(to.name);
    await using revert = new Reverter(this.context.log);

    revert.add(`snapshots of ${to.name}`, () => this.pool.removeTree(this.snapshots.folder(to.name)));
    await this.snapshots.copyAll(from.name, to.name, snapshots, signal);
    const work = this.pool.workPath('copy');
    revert.add(`volume of ${to.name}`, () => this.pool.removeTree(work));
    const source = snapshot === undefined ? layout.instance(from.name) : this.snapshots.path(from.name, snapshot);
    await this.snapshots.copy({ from: source, to: work, projectId: await this.#claimFor(to), signal });
    signal.throwIfAborted();
    await this.host.rename(work, layout.instance(to.name));
    revert.commit();
  }

  async #claimFor({ name, sizeBytes }: NewInstanceVolume): Promise<number | undefined> {
    if (!this.quotas.enabled) return undefined;
    const projectId = await this.quotas.claim(name, []);
    if (sizeBytes !== undefined) await this.quotas.limit(projectId, sizeBytes);
    return projectId;
  }

  /** Only while the file system still keeps quotas. */
  async #projectOf(name: string): Promise<number | undefined> {
    const { projectId } = await readRecord(this.host, this.pool.layout.instance(name));
    return this.quotas.enabled ? projectId : undefined;
  }

  async #prepare(tree: NewTree): Promise<void> {
    const { path, imagePath, volume } = tree;
    await this.host.makeDirectory(path, { mode: 0o100, fresh: true }); // LXD's mode: none but the container's root gets through
    for (const folder of this.shape.quotaFolders)
      await this.host.makeDirectory(join(path, folder), { mode: 0o711, fresh: true });
    const projectId = await this.#limitNew(path, volume);
    if (imagePath !== undefined) await this.#copyImageFiles(imagePath, path);
    const record = await this.fill(tree);
    await writeRecord(this.host, path, projectId === undefined ? record : { ...record, projectId });
  }

  async #limitNew(path: string, { name, sizeBytes }: NewInstanceVolume): Promise<number | undefined> {
    if (!this.quotas.enabled) {
      if (sizeBytes !== undefined)
        this.context.log.warn('size is not enforced: the file system has no project quotas', {
          instance: name,
          sizeBytes,
        });
      return undefined;
    }
    const projectId = await this.quotas.claim(
      name,
      this.shape.quotaFolders.map((folder) => join(path, folder)),
    );
    if (sizeBytes !== undefined) await this.quotas.limit(projectId, sizeBytes);
    return projectId;
  }

  async #copyImageFiles(imagePath: string, path: string): Promise<void> {
    for (const file of ['metadata.yaml', 'templates']) {
      if (await this.host.exists(join(imagePath, file)))
        await this.host.copyTree(join(imagePath, file), join(path, file));
    }
  }

  async #refuseExisting(name: string): Promise<void> {
    if (await this.host.exists(this.pool.layout.instance(name))) {
      throw new AppError('conflict', `instance ${name} exists in pool ${this.context.pool}`);
    }
  }
}
