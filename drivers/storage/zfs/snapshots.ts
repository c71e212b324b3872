// Snapshots of volumes: DATASET@snapshot-NAME, each with a note of the owners that are in it.
import { join } from 'node:path';
import { kindOf, AppError } from '#src/lib/errors.ts';
import { parseIdMapKey } from '#src/host/id-map.ts';
import type { LaterSnapshots, MountedRoot, SnapshotRename, VolumeRef } from '../driver.ts';
import type { SnapshotView } from './flavour.ts';
import { ownSnapshotName, PROPERTY } from './names.ts';
import type { ZfsParts } from './parts.ts';
import { ZfsRestore } from './restore.ts';
import { removeIfEmpty } from '../common/remove-if-empty.ts';

export class ZfsSnapshots {
  readonly #parts: ZfsParts;
  readonly #restore: ZfsRestore;

  constructor(parts: ZfsParts) {
    this.#parts = parts;
    this.#restore = new ZfsRestore(parts);
  }

  async create(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const name = pool.names.snapshot(volume, snapshot);
    const owners = await this.#parts.ownersOf(volume, signal);
    try {
      await zfs.snapshot(name, signal, { [PROPERTY.owners]: owners });
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      const text = `snapshot ${snapshot} of ${volume.name} exists in pool ${context.pool}`;
      throw new AppError('conflict', text, { cause: error });
    }
  }

  async delete(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    await this.unmount(volume, snapshot, signal);
    if (!(await this.list(volume, signal)).includes(snapshot)) return;
    await this.#parts.ghosts.removeSnapshot(this.#parts.pool.names.snapshot(volume, snapshot), signal);
  }

  async rename({ volume, snapshot, newName }: SnapshotRename, signal: AbortSignal): Promise<void> {
    const { zfs, pool } = this.#parts;
    await this.unmount(volume, snapshot, signal);
    await zfs.rename(pool.names.snapshot(volume, snapshot), pool.names.snapshot(volume, newName), signal);
  }

  /** In the order of their creation. */
  async list(volume: VolumeRef, signal: AbortSignal): Promise<readonly string[]> {
    const { zfs, pool } = this.#parts;
    const dataset = pool.names.volume(volume);
    const found = await zfs.snapshots(dataset, signal, [PROPERTY.deleted]);
    // The mark of a ghost that could not be moved away is seen on its snapshots.
    const there = found.filter(({ properties }) => properties[PROPERTY.deleted] === '-');
    return there.flatMap(({ name }) => ownSnapshotName(name) ?? []);
  }

  async usage(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<number> {
    const { zfs, pool } = this.#parts;
    return Number((await zfs.get(pool.names.snapshot(volume, snapshot), ['used'], signal))['used']);
  }

  later(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<LaterSnapshots> {
    return this.#restore.later(volume, snapshot, signal);
  }

  async restore(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    await this.#restore.restore(volume, snapshot, signal);
  }

  async mount(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<MountedRoot> {
    const { pool } = this.#parts;
    const found = await this.#view(volume, snapshot, signal);
    if (!found) throw new AppError('not_found', `no snapshot ${snapshot} of ${volume.name}`);
    await (await pool.flavour()).mountSnapshot(found.view, signal);
    const { path } = found.view;
    const rootfsPath = volume.kind === 'custom' ? path : join(path, 'rootfs');
    return { rootfsPath, owners: parseIdMapKey(found.owners) };
  }

  async unmount(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { host } = this.#parts.context;
    const path = join(this.#parts.snapshotsPath(volume), snapshot);
    if (!(await host.exists(path))) return; // made by mount() alone
    const found = await this.#view(volume, snapshot, signal);
    if (found) await (await this.#parts.pool.flavour()).unmountSnapshot(found.view, signal);
    await host.mounts.unmount(path);
    await host.removeTree(path);
    await removeIfEmpty(this.#parts.snapshotsPath(volume));
  }

  async unmountAll(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    for (const snapshot of await this.#parts.context.host.list(this.#parts.snapshotsPath(volume))) {
      await this.unmount(volume, snapshot, signal);
    }
  }

  async #view(
    volume: VolumeRef,
    snapshot: string,
    signal: AbortSignal,
  ): Promise<{ readonly view: SnapshotView; readonly owners: string } | undefined> {
    const { zfs, pool } = this.#parts;
    const name = pool.names.snapshot(volume, snapshot);
    try {
      const found = await zfs.get(name, ['createtxg', PROPERTY.owners], signal);
      const path = join(this.#parts.snapshotsPath(volume), snapshot);
      const clone = pool.names.view(name, found['createtxg'] ?? '');
      return { view: { snapshot: name, path, clone }, owners: found[PROPERTY.owners] ?? '-' };
    } catch (error) {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    }
  }
}
