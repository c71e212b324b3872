// Volumes: logical volumes containers_NAME and custom_NAME with a file system each; those of an image are its thin snapshots.
import { join } from 'node:path';
import { type IdMapRange, sameIdMap } from '#src/host/id-map.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { MountedRoot, NewVolume, VolumeChange, VolumeKind, VolumeRef } from '../driver.ts';
import { requireShiftable } from '../common/owner-protection.ts';
import { markedOwners, markOwners } from '../common/owners-mark.ts';
import { readRecord, writeRecord } from '../common/volume-record.ts';
import { INSTANCE_MODE, type LvmImages } from './images.ts';
import { parseVolume } from './names.ts';
import type { LvmParts } from './parts.ts';
import { defaultBytes, fileSystemOf } from './settings.ts';
import { isOptionsTag, optionsTag } from './tags.ts';

const CUSTOM_MODE = 0o711;

export class LvmVolumes {
  readonly #parts: LvmParts;
  readonly #images: LvmImages;

  constructor(parts: LvmParts, images: LvmImages) {
    this.#parts = parts;
    this.#images = images;
  }

  async create(volume: NewVolume, signal: AbortSignal): Promise<void> {
    const { pool, context } = this.#parts;
    const sizeBytes = await pool.rounded(volume.sizeBytes ?? defaultBytes(context.config), signal);
    if (volume.image === undefined) await this.#makeEmpty(volume, sizeBytes, signal);
    else await this.#cloneImage(volume, { image: volume.image, sizeBytes }, signal);
  }

  /** One command, where the size is that of the image. */
  async #cloneImage(
    volume: NewVolume,
    { image, sizeBytes }: { readonly image: string; readonly sizeBytes: number },
    signal: AbortSignal,
  ): Promise<void> {
    const { pool, names } = this.#parts;
    const name = names.volume(volume);
    const of = names.image(image);
    const isSame = (await this.#images.sizeOf(image, signal)) === sizeBytes;
    try {
      if (isSame) await pool.lvm.snapshot(pool.group, name, { of, isReadonly: false }, signal);
      else await this.publish(volume, (work) => this.#parts.clone(work, { of, sizeBytes }, signal), signal);
    } catch (error) {
      if (kindOf(error) === 'conflict') throw this.#parts.conflict(volume, error);
      throw kindOf(error) === 'not_found' ? this.#images.absent(image, error) : error;
    }
  }

  async #makeEmpty(volume: NewVolume, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const { context, pool } = this.#parts;
    const { config = {} } = volume;
    const type = fileSystemOf(config, context.config);
    const make = async (work: string): Promise<void> => {
      const fill = (path: string): Promise<void> => this.#fillEmpty(volume, path);
      await this.#parts.make(work, { sizeBytes, type, fill }, signal);
      const options = config['block.mount_options'] ?? '';
      if (options !== '') await pool.lvm.tag(pool.group, work, optionsTag(options), signal);
    };
    await this.publish(volume, make, signal);
  }

  async #fillEmpty({ kind, idMap }: NewVolume, path: string): Promise<void> {
    const { host } = this.#parts.context;
    await host.setMode(path, kind === 'custom' ? CUSTOM_MODE : INSTANCE_MODE);
    if (kind === 'custom') return;
    const owners = (await host.mounts.canMapIds(path)) ? null : idMap;
    const rootfs = join(path, 'rootfs');
    await host.makeDirectory(rootfs, { mode: 0o755, fresh: true });
    await host.chown(rootfs, owners?.uidBase ?? 0, owners?.gidBase ?? 0);
    await writeRecord(host, path, { image: null, owners });
  }

  /** AppError 'conflict' when the volume exists: before anything is made, where that takes more than one command. */
  async publish(volume: VolumeRef, make: (work: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { pool, names } = this.#parts;
    const name = names.volume(volume);
    if (await pool.lvm.volume(pool.group, name, signal)) throw this.#parts.conflict(volume);
    try {
      await this.#parts.publish(name, make, signal);
    } catch (error) {
      throw kindOf(error) === 'conflict' ? this.#parts.conflict(volume, error) : error;
    }
  }

  async delete(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    const { context, names } = this.#parts;
    const name = names.volume(volume);
    const path = this.#parts.path(volume);
    await context.host.mounts.unmount(path);
    await this.#parts.toss(name, signal);
    await context.host.removeTree(path); // the mount point
  }

  /** AppError 'not_found' without it; none when it has the new name already. */
  async rename(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    const { pool, names, context } = this.#parts;
    const renamed = { kind: volume.kind, name: newName };
    const [from, to] = [names.volume(volume), names.volume(renamed)];
    const isDone = !(await this.#exists(from, signal)) && (await this.#exists(to, signal));
    if (!isDone) {
      if (await this.#exists(to, signal)) throw this.#parts.conflict(renamed);
      await this.unmount(volume, signal);
      await pool.lvm.rename(pool.group, from, { to }, signal);
    }
    await context.host.removeTree(this.#parts.path(volume)); // the mount point
  }

  async #exists(name: string, signal: AbortSignal): Promise<boolean> {
    const { pool } = this.#parts;
    return (await pool.lvm.volume(pool.group, name, signal)) !== undefined;
  }

  async list(kind: VolumeKind, signal: AbortSignal): Promise<readonly string[]> {
    const found = (await this.#parts.pool.volumes(signal)).map(({ name }) => parseVolume(name));
    return found
      .flatMap((one) => (one?.volume.kind === kind && one.snapshot === undefined ? [one.volume.name] : []))
      .sort();
  }

  /** Owners stay unmapped where the kernel can map them, else they are changed when the map changes. */
  async mount(volume: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    const { context } = this.#parts;
    const { host } = context;
    const path = this.#parts.path(volume);
    await this.#mountFiles(volume, signal);
    if (volume.kind === 'custom') return this.#mountedCustom(volume, { path, idMap }, signal);
    const { owners } = await readRecord(host, path);
    const wanted = (await host.mounts.canMapIds(path)) ? null : idMap;
    if (!sameIdMap(owners, wanted)) {
      requireShiftable(volume);
      await this.#reown(volume, wanted, signal);
      await this.#mountFiles(volume, signal);
    }
    const uid = idMap?.uidBase ?? 0;
    if ((await host.status(path)).uid !== uid) await host.chown(path, uid, 0);
    return rootAt(path, { owners: wanted, idMap });
  }

  async #mountedCustom(
    volume: VolumeRef,
    { path, idMap }: { readonly path: string; readonly idMap: IdMapRange | null },
    signal: AbortSignal,
  ): Promise<MountedRoot> {
    const { host } = this.#parts.context;
    const from = await markedOwners(host, path);
    const to = (await host.mounts.canMapIds(path)) ? null : idMap;
    if (volume.forReading === true || sameIdMap(from, to)) return { rootfsPath: path, owners: from };
    const change = async (work: string): Promise<void> => {
      await host.shiftOwners(work, { from, to }, signal);
      await markOwners(host, work, to);
    };
    await this.#replace(volume, change, signal);
    await this.#mountFiles(volume, signal);
    return { rootfsPath: path, owners: to };
  }

  async #mountFiles(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    const name = this.#parts.names.volume(volume);
    const path = this.#parts.path(volume);
    try {
      await this.#parts.mounts.mount(name, path, { hasOptions: volume.kind === 'custom' }, signal);
    } catch (error) {
      if (kindOf(error) !== 'not_found') throw error;
      throw new AppError('not_found', `no volume ${volume.name} in pool ${this.#parts.context.pool}`, { cause: error });
    }
  }

  /** A re-owned clone takes the volume's place, so that a crash leaves the one or the other. */
  async #reown(volume: VolumeRef, owners: IdMapRange | null, signal: AbortSignal): Promise<void> {
    const { host } = this.#parts.context;
    const change = async (path: string): Promise<void> => {
      const record = await readRecord(host, path);
      await host.shiftOwners(join(path, 'rootfs'), { from: record.owners, to: owners }, signal);
      await writeRecord(host, path, { ...record, owners });
    };
    await this.#replace(volume, change, signal);
  }

  async #replace(volume: VolumeRef, change: (path: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { pool, names, mounts } = this.#parts;
    const of = names.volume(volume);
    const tags = (await pool.lvm.volume(pool.group, of, signal))?.tags ?? [];
    const changed = (work: string): Promise<void> => mounts.aside(work, {}, change, signal);
    await this.#parts.replace(volume, { of, tags, change: changed }, signal);
  }

  unmount(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    return this.#parts.mounts.unmount(this.#parts.names.volume(volume), this.#parts.path(volume), signal);
  }

  async withFolder<T>(volume: VolumeRef, use: (path: string) => Promise<T>, signal: AbortSignal): Promise<T> {
    const { mounts, names } = this.#parts;
    return mounts.during(names.volume(volume), { path: this.#parts.path(volume) }, use, signal);
  }

  /** A volume without a size of its own keeps the one that it has, as in LXD: there is none that it could be without. */
  async resize(volume: VolumeRef, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    const name = this.#parts.names.volume(volume);
    if (sizeBytes === undefined) return;
    await this.#parts.resize(name, { sizeBytes, path: this.#parts.path(volume) }, signal);
  }

  async configure(volume: VolumeRef, { config, sizeBytes }: VolumeChange, signal: AbortSignal): Promise<void> {
    const { pool, names, context } = this.#parts;
    const name = names.volume(volume);
    const found = await pool.lvm.volume(pool.group, name, signal);
    if (!found) throw new AppError('not_found', `no volume ${volume.name} in pool ${context.pool}`);
    const options = config['block.mount_options'] ?? '';
    const wanted = options === '' ? undefined : optionsTag(options);
    for (const tag of found.tags.filter((one) => isOptionsTag(one) && one !== wanted)) {
      await pool.lvm.untag(pool.group, [name], tag, signal);
    }
    if (wanted !== undefined && !found.tags.includes(wanted)) await pool.lvm.tag(pool.group, name, wanted, signal);
    await this.resize(volume, sizeBytes, signal);
  }

  /** undefined: it is not mounted, and nobody has counted. */
  async usage(volume: VolumeRef): Promise<number | undefined> {
    const { host } = this.#parts.context;
    this.#parts.names.volume(volume); // the name is checked
    const path = this.#parts.path(volume);
    return (await host.mounts.isMountPoint(path)) ? (await host.usage(path)).usedBytes : undefined;
  }
}

export function rootAt(
  path: string,
  { owners, idMap }: { readonly owners: IdMapRange | null; readonly idMap: IdMapRange | null },
): MountedRoot {
  // The runtime mounts the root through the container's own map.
  const options = sameIdMap(owners, idMap) ? {} : { rootfsOptions: 'idmap=container' };
  return { rootfsPath: join(path, 'rootfs'), owners, ...options };
}
