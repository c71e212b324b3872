// Volumes on zfs: containers/NAME and custom/NAME, each a dataset; one command makes one.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { type IdMapRange, idMapKey, parseIdMapKey, sameIdMap } from '#src/host/id-map.ts';
import type { ZfsProperties } from '#src/host/zfs.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { MountedRoot, NewVolume, VolumeKind, VolumeRef } from '../driver.ts';
import { requireShiftable } from '../common/owner-protection.ts';
import { lastName, PARENT_OF, PROPERTY, READONLY } from './names.ts';
import type { ZfsParts } from './parts.ts';

const UNDO_LIMIT_MS = 120_000;
/** LXD's: none but the root of the container gets through. */
const FOLDER_MODE = 0o100;
const FRESH_MODE = { container: 0o755, custom: 0o711 } as const;

export class ZfsVolumes {
  readonly #parts: ZfsParts;

  constructor(parts: ZfsParts) {
    this.#parts = parts;
  }

  /** A clone has its image's owners; those of the instance's own map come with the first mount. */
  create(volume: NewVolume, signal: AbortSignal): Promise<void> {
    const { image } = volume;
    const make =
      image === undefined ? () => this.#createEmpty(volume, signal) : () => this.#clone(image, volume, signal);
    return this.#parts.publish(volume, make, signal);
  }

  async delete(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    const { ghosts, context, pool } = this.#parts;
    const dataset = pool.names.volume(volume);
    const path = this.#parts.path(volume);
    if (await this.#parts.find(volume, [], signal)) {
      await this.unmount(volume, signal);
      await ghosts.remove(dataset, volume.kind, signal);
    }
    if (!(await context.host.mounts.isMountPoint(path))) await context.host.removeTree(path);
  }

  async rename(volume: VolumeRef, newName: string, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const renamed = { kind: volume.kind, name: newName };
    const names = [pool.names.volume(volume), pool.names.volume(renamed)] as const;
    await this.#parts.publish(
      renamed,
      async () => {
        if (!(await zfs.exists(names[1], signal))) await this.unmount(volume, signal);
        await zfs.rename(...names, signal);
      },
      signal,
    );
    await context.host.removeTree(this.#parts.path(volume)); // the mount point
  }

  async list(kind: VolumeKind, signal: AbortSignal): Promise<readonly string[]> {
    const { zfs, pool } = this.#parts;
    const query = { type: 'filesystem', properties: [PROPERTY.deleted] } as const;
    const datasets = await zfs.listBelow(pool.names.parent(PARENT_OF[kind]), query, signal);
    return datasets
      .filter(({ properties }) => properties[PROPERTY.deleted] === '-')
      .map(({ name }) => lastName(name))
      .sort();
  }

  async mount(volume: VolumeRef, idMap: IdMapRange | null, signal: AbortSignal): Promise<MountedRoot> {
    const { owners, context } = this.#parts;
    const { host } = context;
    const onDisk = parseIdMapKey(await this.#parts.ownersOf(volume, signal));
    const place = await this.#parts.mountable(volume);
    const { dataset, path, flavour } = place;
    if (!(await host.mounts.isMountPoint(path))) await flavour.mount(dataset, path, signal);
    const unpack = flavour.servesUserNamespaces ? {} : { unpackIn: this.#parts.pool.stagingPath };
    const root = { ...place, rootfs: volume.kind === 'custom' ? path : join(path, 'rootfs') };
    if (volume.forReading === true) return { rootfsPath: root.rootfs, owners: onDisk, ...unpack };
    const wanted = (await host.mounts.canMapIds(path)) ? null : idMap;
    if (!sameIdMap(onDisk, wanted)) requireShiftable(volume);
    await owners.change(root, { from: onDisk, to: wanted }, signal);
    if (volume.kind === 'container') await this.#openFolder(path, idMap);
    const rootfsOptions = sameIdMap(wanted, idMap) ? {} : { rootfsOptions: 'idmap=container' };
    return { rootfsPath: root.rootfs, owners: wanted, ...rootfsOptions, ...unpack };
  }

  /** For the root of the container alone. */
  async #openFolder(path: string, idMap: IdMapRange | null): Promise<void> {
    const { host } = this.#parts.context;
    if ((await host.status(path)).mode !== FOLDER_MODE) await host.setMode(path, FOLDER_MODE);
    await host.chown(path, idMap?.uidBase ?? 0, 0);
  }

  async unmount(volume: VolumeRef, signal: AbortSignal): Promise<void> {
    const { dataset, path, flavour } = await this.#parts.mountable(volume);
    await flavour.unmount(dataset, path, signal);
  }

  async withFolder<T>(volume: VolumeRef, use: (path: string) => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#parts.require(volume, [], signal);
    const { dataset, path, flavour } = await this.#parts.mountable(volume);
    await using mounts = new Reverter(this.#parts.context.log); // never committed: the mount is for this alone
    if (!(await this.#parts.context.host.mounts.isMountPoint(path))) {
      await flavour.mount(dataset, path, signal);
      mounts.add(`mount of ${dataset}`, () => flavour.unmount(dataset, path, limited(UNDO_LIMIT_MS)));
    }
    return await use(path);
  }

  async resize(volume: VolumeRef, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    await this.#parts.settings.limit(this.#parts.pool.names.volume(volume), sizeBytes, signal);
  }

  async usage(volume: VolumeRef, signal: AbortSignal): Promise<number> {
    const { zfs, pool } = this.#parts;
    return this.#measured(await zfs.get(pool.names.volume(volume), MEASURES, signal));
  }

  /** Of all instances. */
  async usages(signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
    const { zfs, pool } = this.#parts;
    const query = { type: 'filesystem', properties: MEASURES } as const;
    const datasets = await zfs.listBelow(pool.names.parent('containers'), query, signal);
    return new Map(datasets.map(({ name, properties }) => [lastName(name), this.#measured(properties)]));
  }

  newProperties(owners: string, { sizeBytes, config = {} }: NewVolume): ZfsProperties {
    const settings = this.#parts.settings.newProperties(config, sizeBytes);
    return { canmount: 'noauto', [PROPERTY.owners]: owners, ...settings };
  }

  #measured({ used, referenced, refquota = '-' }: ZfsProperties): number {
    const byData = this.#parts.settings.isOn('zfs.use_refquota', {}) || !/^(?:0|-|none)$/u.test(refquota);
    return Number(byData ? referenced : used);
  }

  async #clone(image: string, volume: NewVolume, signal: AbortSignal): Promise<void> {
    const { zfs, pool, images } = this.#parts;
    const owners = await images.owners(image, signal);
    const clone = { dataset: pool.names.volume(volume), properties: this.newProperties(owners, volume) };
    await zfs.clone(`${pool.names.image(image)}@${READONLY}`, clone, signal);
  }

  async #createEmpty(volume: NewVolume, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const id = randomUUID();
    const dataset = `${pool.names.parent('work')}/${id}`;
    const path = join(context.poolPath, 'work', id);
    const flavour = await pool.flavour();
    await using revert = new Reverter(context.log);

    await zfs.create(dataset, this.newProperties(idMapKey(null), volume), signal);
    revert.add(`dataset ${dataset}`, () => zfs.destroy(dataset, limited(UNDO_LIMIT_MS)));
    await flavour.mount(dataset, path, signal);
    revert.add(`mount of ${dataset}`, () => flavour.unmount(dataset, path, limited(UNDO_LIMIT_MS)));
    const mode = FRESH_MODE[volume.kind];
    if (volume.kind === 'custom') await context.host.setMode(path, mode);
    else await context.host.makeDirectory(join(path, 'rootfs'), { mode, fresh: true });
    await flavour.unmount(dataset, path, signal);
    await context.host.removeTree(path);
    await zfs.rename(dataset, pool.names.volume(volume), signal);
    revert.commit();
  }
}

/** What counts against its limit. */
const MEASURES = ['used', 'referenced', 'refquota'];
