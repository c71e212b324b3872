// The overlay driver: images unpacked once, each instance an overlay above one; any file system will do.
import { basename, dirname, join } from 'node:path';
import type { Argv } from '#src/host/host.ts';
import { type IdMapRange, sameIdMap } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import { planShift } from '#src/host/shift-plan.ts';
import type { MountedRoot, StorageContext, StorageInfo } from '../driver.ts';
import { COPY_LIMIT_MS, type NewTree, type TreeMount } from '../common/tree-driver.ts';
import { requireShiftable } from '../common/owner-protection.ts';
import type { TreeShape } from '../common/tree-snapshots.ts';
import { VolumeTreeDriver } from '../common/volume-tree-driver.ts';
import { readRecord, readRecords, type VolumeRecord, writeRecord } from '../common/volume-record.ts';
import { type LowerLayer, LowerLayers } from './lower-layer.ts';

/** Of a root that is about to be mounted. */
interface Found {
  readonly record: VolumeRecord;
  readonly mounted: boolean;
  readonly signal: AbortSignal;
}

interface Remap {
  readonly record: VolumeRecord;
  readonly idMap: IdMapRange | null;
  readonly signal: AbortSignal;
}

/** containers/NAME: upper (what the instance changed), work (overlayfs's own), lower (see LowerLayers), rootfs (the mount). */
export class OverlayDriver extends VolumeTreeDriver {
  protected readonly shape: TreeShape = {
    content: ({ upper = 'upper' }) => upper,
    freshContent: 'upper',
    emptyFolders: ['lower', 'rootfs'],
    quotaFolders: ['upper', 'work'],
  };
  readonly #layers: LowerLayers;

  constructor(context: StorageContext) {
    super(context);
    this.#layers = new LowerLayers(context, this.pool);
  }

  get info(): StorageInfo {
    return { name: 'overlay', copyOnWrite: true, quotas: this.quotas.enabled, instantSnapshots: false };
  }

  override async openPool(): Promise<void> {
    await super.openPool();
    await this.#unmountLeft();
  }

  /** What a killed daemon mounted only for a moment: snapshots that were read, and mapped views of images. */
  async #unmountLeft(): Promise<void> {
    const { layout } = this.pool;
    const containers = layout.folder('containers');
    const [ofSnapshots, ofVolumes] = await Promise.all(
      [layout.folder('containers-snapshots'), containers].map((path) => this.host.mounts.mountsUnder(path)),
    );
    const views = ofVolumes?.filter((path) => basename(path) === 'lower' && dirname(dirname(path)) === containers);
    for (const path of [...(ofSnapshots ?? []), ...(views ?? [])]) await this.host.mounts.unmount(path);
  }

  protected async mountTree(path: string, mount: TreeMount, signal: AbortSignal): Promise<MountedRoot> {
    const rootfsPath = join(path, 'rootfs');
    const record = await readRecord(this.host, path);
    const mounted = await this.host.mounts.isMountPoint(rootfsPath);
    if (mount.forReading === true) {
      if (!mounted) await this.#mountForReading(path, record, signal);
      return { rootfsPath, owners: record.owners };
    }
    await this.#mountForWriting(path, mount, { record, mounted, signal });
    return { rootfsPath, owners: mount.idMap };
  }

  async #mountForWriting(path: string, mount: TreeMount, found: Found): Promise<void> {
    const { idMap } = mount;
    const { record, mounted, signal } = found;
    const rootfsPath = join(path, 'rootfs');
    const isRemapped = !sameIdMap(record.owners, idMap);
    // One for reading is what a daemon left that was killed.
    const isWritable = mounted && !(await this.host.mounts.isReadonly(rootfsPath));
    if (isWritable && !isRemapped) return;
    if (isRemapped) requireShiftable(mount);
    if (mounted) await this.host.mounts.unmount(rootfsPath);
    const current = isRemapped ? await this.#remap(path, { record, idMap, signal }) : record;
    await this.host.chown(path, idMap?.uidBase ?? 0, 0);
    await this.#mount(path, current, signal);
  }

  protected async fill({ path, volume, imagePath }: NewTree): Promise<VolumeRecord> {
    const { idMap, image = null } = volume;
    for (const folder of ['lower', 'rootfs'])
      await this.host.makeDirectory(join(path, folder), { mode: 0o711, fresh: true });
    // The upper directory is the root that the container sees: its owner and mode are the root's.
    const like =
      imagePath === undefined ? { uid: 0, gid: 0, mode: 0o755 } : await this.host.status(join(imagePath, 'rootfs'));
    const upper = join(path, 'upper');
    const owners = planShift({ from: null, to: idMap });
    await this.host.chown(upper, owners.uid(like.uid), owners.gid(like.gid));
    await this.host.setMode(upper, like.mode);
    return { image, owners: idMap, upper: 'upper' };
  }

  protected async isUsed(fingerprint: string): Promise<boolean> {
    return (await readRecords(this.host, this.pool.layout)).some(({ image }) => image === fingerprint);
  }

  /** Of two lower layers: without an upper one overlayfs has nothing to write, which a full or read-only pool would refuse. */
  async #mountForReading(path: string, record: VolumeRecord, signal: AbortSignal): Promise<void> {
    const upper = join(path, record.upper ?? 'upper');
    const target = join(path, 'rootfs');
    const mount = (lower: string): Promise<void> => {
      const data = `lowerdir=${upper}:${lower},redirect_dir=follow`;
      return this.host.mounts.mount({ source: 'overlay', target, type: 'overlay', flags: ['readonly'], data });
    };
    await this.#layers.with(await this.#layer(path, record), mount, signal);
  }

  async #layer(path: string, { image, owners }: VolumeRecord): Promise<LowerLayer> {
    const imagePath = image === null ? undefined : await this.images.find(image);
    return { imagePath, fingerprint: image, idMap: owners, mountPoint: join(path, 'lower') };
  }

  async #mount(path: string, record: VolumeRecord, signal: AbortSignal): Promise<void> {
    const upper = join(path, record.upper ?? 'upper');
    const layer = await this.#layer(path, record);
    const mount = async (lower: string): Promise<void> => {
      // redirect_dir: renaming a directory of the image is a rename, not EXDEV.
      const data = `lowerdir=${lower},upperdir=${upper},workdir=${join(path, 'work')},redirect_dir=on`;
      const target = join(path, 'rootfs');
      await this.host.mounts.mount({ source: 'overlay', target, type: 'overlay', data });
      if (await this.host.mounts.isReadonly(target)) await this.#refuseReadonly(path, target);
    };
    await this.#layers.with(layer, mount, signal);
  }

  /** overlayfs mounts without a word for reading alone when it cannot make its work directory. */
  async #refuseReadonly(path: string, target: string): Promise<never> {
    await this.host.mounts.unmount(target);
    const why = (await this.host.mounts.isReadonly(path)) ? 'Read-only file system' : 'No space left on device';
    throw new AppError('internal', `cannot mount the root in ${path} for writing: ${why}`);
  }

  /** The map of an instance changed: what it wrote is copied, re-owned, and put in place by the record, in one step. */
  async #remap(path: string, { record, idMap, signal }: Remap): Promise<VolumeRecord> {
    const old = record.upper ?? 'upper';
    const upper = old === 'upper' ? 'upper-2' : 'upper';
    await this.pool.removeTree(join(path, upper)); // of a try that failed
    await this.host.makeDirectory(join(path, upper), { fresh: true });
    if (record.projectId !== undefined) await this.quotas.adopt(record.projectId, join(path, upper));
    const copy: Argv = ['cp', '-a', '--reflink=auto', '-T', '--', join(path, old), join(path, upper)];
    await this.host.run(copy, { signal, timeoutMs: COPY_LIMIT_MS });
    await this.host.shiftOwners(join(path, upper), { from: record.owners, to: idMap }, signal);
    const remapped = { ...record, owners: idMap, upper };
    await writeRecord(this.host, path, remapped);
    await this.pool.removeTree(join(path, old));
    return remapped;
  }
}
