// Snapshots of volumes: read-only thin snapshots VOLUME-SNAPSHOT, which need their volume no more; and copies of either.
import { join } from 'node:path';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { MountedRoot, SnapshotMount, SnapshotRename, VolumeCopy, VolumeRef } from '../driver.ts';
import { removeIfEmpty } from '../common/remove-if-empty.ts';
import { markedOwners } from '../common/owners-mark.ts';
import { readRecord } from '../common/volume-record.ts';
import { parseVolume } from './names.ts';
import type { LvmParts } from './parts.ts';
import { optionsTag, UNFINISHED } from './tags.ts';
import { type LvmVolumes, rootAt } from './volumes.ts';

const UNDO_LIMIT_MS = 120_000;

export class LvmSnapshots {
  readonly #parts: LvmParts;
  readonly #volumes: LvmVolumes;

  constructor(parts: LvmParts, volumes: LvmVolumes) {
    this.#parts = parts;
    this.#volumes = volumes;
  }

  /** LVM holds the file system still for the moment. */
  async create(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { pool, names, context } = this.#parts;
    const name = names.snapshot(volume, snapshot);
    try {
      await pool.lvm.snapshot(pool.group, name, { of: names.volume(volume), isReadonly: true }, signal);
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      const text = `snapshot ${snapshot} of ${volume.name} exists in pool ${context.pool}`;
      throw new AppError('conflict', text, { cause: error });
    }
  }

  async list({ kind, name }: VolumeRef, signal: AbortSignal): Promise<readonly string[]> {
    const found = (await this.#parts.pool.volumes(signal)).map((one) => parseVolume(one.name));
    return found.flatMap((one) => (one?.volume.kind === kind && one.volume.name === name ? (one.snapshot ?? []) : []));
  }

  async delete(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    await this.unmount(volume, snapshot, signal);
    await this.#parts.toss(this.#parts.names.snapshot(volume, snapshot), signal);
  }

  async deleteAll(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    for (const snapshot of await this.list(volume, signal)) await this.delete(volume, snapshot, signal);
  }

  async rename({ volume, snapshot, newName }: SnapshotRename, signal: AbortSignal): Promise<void> {
    await this.#move({ volume, snapshot }, { volume, snapshot: newName }, signal);
  }

  /** Of a volume that has got another name. */
  async follow(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    const renamed = { kind: volume.kind, name: newName };
    for (const snapshot of await this.list(volume, signal)) {
      await this.#move({ volume, snapshot }, { volume: renamed, snapshot }, signal);
    }
  }

  async #move(
    from: { readonly volume: VolumeRef; readonly snapshot: string },
    to: typeof from,
    signal: AbortSignal,
  ): Promise<void> {
    const { pool, names } = this.#parts;
    await this.unmount(from.volume, from.snapshot, signal);
    const name = names.snapshot(from.volume, from.snapshot);
    await pool.lvm.rename(pool.group, name, { to: names.snapshot(to.volume, to.snapshot) }, signal);
  }

  /** The volume keeps its size. */
  async restore(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { pool, names } = this.#parts;
    const name = names.volume(volume);
    const now = await pool.lvm.volume(pool.group, name, signal);
    const of = names.snapshot(volume, snapshot);
    const then = await pool.lvm.volume(pool.group, of, signal);
    if (!now || !then) throw new AppError('not_found', `no snapshot ${snapshot} of ${volume.name}`);
    const size = now.sizeBytes === then.sizeBytes ? {} : { sizeBytes: now.sizeBytes };
    await this.#parts.replace(volume, { of, ...size, tags: now.tags }, signal);
  }

  async mount({ volume, snapshot, idMap }: SnapshotMount, signal: AbortSignal): Promise<MountedRoot> {
    const { mounts, names, context } = this.#parts;
    const path = join(this.#parts.snapshotsPath(volume), snapshot);
    await mounts.mount(names.snapshot(volume, snapshot), path, { isReadonly: true }, signal);
    if (volume.kind === 'custom') return { rootfsPath: path, owners: await markedOwners(context.host, path) };
    const { owners } = await readRecord(context.host, path);
    return rootAt(path, { owners, idMap });
  }

  async unmount(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { mounts, names, context } = this.#parts;
    const name = names.snapshot(volume, snapshot);
    const path = join(this.#parts.snapshotsPath(volume), snapshot);
    if (!(await context.host.exists(path))) return; // made by mount() alone
    await mounts.unmount(name, path, signal);
    await context.host.removeTree(path);
    await removeIfEmpty(this.#parts.snapshotsPath(volume));
  }

  /** Snapshots first, each with a tag until the volume is there: a crash before that leaves nothing. */
  async copy({ from, snapshot, snapshots, to }: VolumeCopy, signal: AbortSignal): Promise<void> {
    const { pool, names, context } = this.#parts;
    const { lvm, group } = pool;
    await using revert = new Reverter(context.log);
    const of = snapshot === undefined ? names.volume(from) : names.snapshot(from, snapshot);
    const copies = snapshots.map((one) => names.snapshot(to, one));
    const make = async (work: string): Promise<void> => {
      for (const [index, one] of snapshots.entries()) {
        const name = copies[index] ?? '';
        const origin = { of: names.snapshot(from, one), isReadonly: true, tags: [UNFINISHED] };
        await lvm.snapshot(group, name, origin, signal);
        revert.add(`snapshot ${name}`, () => this.#parts.toss(name, limited(UNDO_LIMIT_MS)));
      }
      const options = to.config?.['block.mount_options'] ?? '';
      const tags = options === '' ? [] : [optionsTag(options)];
      await this.#parts.clone(work, { of, sizeBytes: to.sizeBytes, tags }, signal);
    };
    await this.#volumes.publish(to, make, signal);
    revert.commit();
    await lvm.untag(group, copies, UNFINISHED, signal);
  }
}
