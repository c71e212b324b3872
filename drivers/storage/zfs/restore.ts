// Brings a volume back to one of its snapshots: to the newest by a rollback. Later snapshots of the user must go first, as in LXD; those
// that only copies need do not stand in the way: a clone of the snapshot takes the volume's place.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { ZfsDataset, ZfsProperties } from '#src/host/zfs.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { LaterSnapshots, VolumeKind, VolumeRef } from '../driver.ts';
import { ownSnapshotName, PARENT_OF, PROPERTY } from './names.ts';
import type { ZfsParts } from './parts.ts';

const UNDO_LIMIT_MS = 120_000;

interface Swap {
  /** The volume's dataset. */
  readonly dataset: string;
  /** The clone that takes its place. */
  readonly clone: string;
  readonly kind: VolumeKind;
}

export class ZfsRestore {
  readonly #parts: ZfsParts;

  constructor(parts: ZfsParts) {
    this.#parts = parts;
  }

  async later(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<LaterSnapshots> {
    const { settings, pool } = this.#parts;
    const names = (await this.#after(volume, snapshot, signal)).flatMap(({ name }) => ownSnapshotName(name) ?? []);
    const why = refusal(snapshot, names);
    if (names.length === 0) return { names, mayGo: true, why };
    const own = await settings.read(pool.names.volume(volume), signal);
    return { names, mayGo: settings.isOn('zfs.remove_snapshots', own), why };
  }

  async restore(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { pool, owners, zfs } = this.#parts;
    const name = pool.names.snapshot(volume, snapshot);
    const after = await this.#after(volume, snapshot, signal);
    const later = after.flatMap((one) => ownSnapshotName(one.name) ?? []);
    if (later.length > 0) throw new AppError('invalid', refusal(snapshot, later));
    const query = { type: 'filesystem', properties: ['origin'] } as const;
    const clones = after.length === 0 ? [] : await zfs.listBelow(pool.names.root, query, signal);
    const origins = new Set(clones.map(({ properties }) => properties['origin']));
    const place = await this.#parts.mountable(volume);
    if (after.some((one) => origins.has(one.name))) await this.#swap(volume, name, signal);
    else await owners.restore(place, name, signal);
  }

  /** What a crash left of swap(): finished when the clone has the snapshots already; else it is waste. */
  async heal(signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const query = { type: 'filesystem', properties: [PROPERTY.replaces, 'origin'] } as const;
    for (const { name: clone, properties } of await zfs.listBelow(pool.names.root, query, signal)) {
      const dataset = properties[PROPERTY.replaces] ?? '-';
      if (dataset === '-') continue;
      const kind = dataset.startsWith(`${pool.names.parent(PARENT_OF.custom)}/`) ? 'custom' : 'container';
      if (clone === dataset) await zfs.inherit(dataset, PROPERTY.replaces, signal);
      else if (!properties['origin']?.startsWith(`${dataset}@`)) {
        context.log.warn('going on with a restore that was cut off', { dataset });
        await this.#finish({ dataset, clone, kind }, signal);
      }
    }
  }

  /** All later snapshots, hidden ones too. AppError 'not_found' without the snapshot. */
  async #after(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<readonly ZfsDataset[]> {
    const { zfs, pool } = this.#parts;
    const name = pool.names.snapshot(volume, snapshot);
    const all = await zfs.snapshots(pool.names.volume(volume), signal);
    const at = all.findIndex((one) => one.name === name);
    if (at < 0) throw new AppError('not_found', `no snapshot ${snapshot} of ${volume.name}`);
    return all.slice(at + 1);
  }

  async #swap(volume: VolumeRef, snapshot: string, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const { dataset, path, flavour } = await this.#parts.mountable(volume);
    const clone = `${pool.names.parent('work')}/${randomUUID()}`;
    const { [PROPERTY.owners]: owners = '-' } = await zfs.get(snapshot, [PROPERTY.owners], signal);
    const reserved = ['reservation', 'refreservation'];
    const own = await zfs.localProperties(dataset, signal);
    const kept = Object.entries(own).filter(([name]) => !reserved.includes(name) && name !== 'mountpoint');
    const properties: ZfsProperties = {
      ...Object.fromEntries(kept),
      canmount: 'noauto',
      [PROPERTY.owners]: owners,
      [PROPERTY.replaces]: dataset,
    };
    await flavour.unmount(dataset, path, signal);
    await using revert = new Reverter(context.log);
    await zfs.clone(snapshot, { dataset: clone, properties }, signal);
    revert.add(`clone ${clone}`, () => zfs.destroy(clone, limited(UNDO_LIMIT_MS)));
    await flavour.unmount(clone, `${context.poolPath}/work/${clone.slice(clone.lastIndexOf('/') + 1)}`, signal);
    await zfs.promote(clone, signal);
    revert.add(`snapshots of ${dataset}`, () => zfs.promote(dataset, limited(UNDO_LIMIT_MS)));
    await zfs.set(dataset, Object.fromEntries(reserved.map((name) => [name, 'none'])), signal);
    await this.#moveAway({ dataset, clone, kind: volume.kind }, signal);
    revert.commit(); // what is missing from here on is done by the next start at the latest
    await this.#finish({ dataset, clone, kind: volume.kind }, signal);
    for (const name of reserved) {
      if (own[name] !== undefined) await zfs.set(dataset, { [name]: own[name] }, signal);
    }
  }

  async #moveAway({ dataset, kind }: Swap, signal: AbortSignal): Promise<void> {
    const { zfs, pool } = this.#parts;
    const ghost = `${pool.names.parent(`deleted/${PARENT_OF[kind]}`)}/${randomUUID()}`;
    await zfs.rename(dataset, ghost, signal);
  }

  async #finish(swap: Swap, signal: AbortSignal): Promise<void> {
    const { zfs } = this.#parts;
    const { dataset, clone } = swap;
    if (await zfs.exists(dataset, signal)) await this.#moveAway(swap, signal);
    await zfs.rename(clone, dataset, signal);
    await zfs.inherit(dataset, PROPERTY.replaces, signal);
  }
}

/** LXD's text, with the names that it leaves out. */
function refusal(snapshot: string, later: readonly string[]): string {
  const text = `Snapshot "${snapshot}" cannot be restored due to subsequent snapshot(s)`;
  return `${text}. Set zfs.remove_snapshots to override: ${later.join(', ')}`;
}
