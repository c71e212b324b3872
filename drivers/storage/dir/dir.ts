// The dir driver: every instance is a copy of its image; for parity with LXD and for file systems that share blocks of copies.
import { join } from 'node:path';
import type { Argv } from '#src/host/host.ts';
import { type IdMapRange, sameIdMap } from '#src/host/id-map.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { MountedRoot, StorageInfo } from '../driver.ts';
import { COPY_LIMIT_MS, type NewTree, type TreeMount } from '../common/tree-driver.ts';
import { requireShiftable } from '../common/owner-protection.ts';
import type { TreeShape } from '../common/tree-snapshots.ts';
import { VolumeTreeDriver } from '../common/volume-tree-driver.ts';
import { readRecord, type VolumeRecord, writeRecord } from '../common/volume-record.ts';

/** The runtime mounts the root through the container's own map (lxc.rootfs.options). */
const MAPPED_BY_RUNTIME = 'idmap=container';

export class DirDriver extends VolumeTreeDriver {
  protected readonly shape: TreeShape = {
    content: () => 'rootfs',
    freshContent: 'rootfs',
    emptyFolders: [],
    quotaFolders: ['rootfs'],
  };

  get info(): StorageInfo {
    return { name: 'dir', copyOnWrite: false, quotas: this.quotas.enabled, instantSnapshots: false };
  }

  /** Nothing is mounted: the root stays unmapped where the kernel can map it, else it is re-owned when its map changes. */
  protected async mountTree(path: string, mount: TreeMount, signal: AbortSignal): Promise<MountedRoot> {
    const { idMap } = mount;
    const rootfsPath = join(path, 'rootfs');
    const { owners } = await readRecord(this.host, path);
    if (mount.forReading === true) return { rootfsPath, owners };
    const wanted = await this.#ownersOnDisk(idMap);
    if (!sameIdMap(owners, wanted)) {
      requireShiftable(mount);
      await this.#remap(path, wanted, signal);
    }
    await this.host.chown(path, idMap?.uidBase ?? 0, 0);
    const rootfsOptions = sameIdMap(wanted, idMap) ? {} : { rootfsOptions: MAPPED_BY_RUNTIME };
    return { rootfsPath, owners: wanted, ...rootfsOptions };
  }

  protected async fill({ path, volume, imagePath, signal }: NewTree): Promise<VolumeRecord> {
    const { image = null, idMap } = volume;
    const rootfs = join(path, 'rootfs');
    const owners = await this.#ownersOnDisk(idMap);
    if (imagePath === undefined) await this.host.setMode(rootfs, 0o755);
    else await this.#copy(join(imagePath, 'rootfs'), rootfs, signal);
    await this.host.shiftOwners(rootfs, { from: null, to: owners }, signal);
    return { image, owners };
  }

  /** An instance is a copy: nobody misses the image. */
  protected isUsed(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async #ownersOnDisk(idMap: IdMapRange | null): Promise<IdMapRange | null> {
    return (await this.host.mounts.canMapIds(this.pool.layout.root)) ? null : idMap;
  }

  async #copy(from: string, to: string, signal: AbortSignal): Promise<void> {
    const copy: Argv = ['cp', '-a', '--reflink=auto', '-T', '--', from, to];
    await this.host.run(copy, { signal, timeoutMs: COPY_LIMIT_MS });
  }

  /** A re-owned copy of the whole instance changes places with it, so that a crash leaves the one or the other. */
  async #remap(path: string, owners: IdMapRange | null, signal: AbortSignal): Promise<void> {
    const record = await readRecord(this.host, path);
    await using revert = new Reverter(this.context.log);

    const work = this.pool.workPath('remap');
    revert.add(`re-owned copy of ${path}`, () => this.pool.removeTree(work));
    if (record.projectId !== undefined) {
      await this.host.makeDirectory(work, { fresh: true });
      await this.host.makeDirectory(join(work, 'rootfs'), { fresh: true });
      await this.quotas.adopt(record.projectId, join(work, 'rootfs'));
    }
    await this.#copy(path, work, signal);
    await this.host.shiftOwners(join(work, 'rootfs'), { from: record.owners, to: owners }, signal);
    await writeRecord(this.host, work, { ...record, owners });
    await this.host.exchange(work, path); // what is removed at the end of the scope is the old one
  }
}
