// Copies of volumes inside a pool: a clone, or what zfs send makes of it where snapshots go along or zfs.clone_copy says so.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { VolumeCopy } from '../driver.ts';
import { internalSnapshot, PROPERTY } from './names.ts';
import type { ZfsParts } from './parts.ts';
import { cloneCopy } from './settings.ts';
import type { ZfsVolumes } from './volumes.ts';

const UNDO_LIMIT_MS = 120_000;

interface Point {
  readonly snapshot: string;
  readonly owners: string;
}

export class ZfsCopies {
  readonly #parts: ZfsParts;
  readonly #volumes: ZfsVolumes;

  constructor(parts: ZfsParts, volumes: ZfsVolumes) {
    this.#parts = parts;
    this.#volumes = volumes;
  }

  async copy(copy: VolumeCopy, signal: AbortSignal): Promise<void> {
    const { context, ghosts } = this.#parts;
    const isClone = copy.snapshots.length === 0 && cloneCopy(context.config) === 'clone';
    await using revert = new Reverter(context.log);

    const last = await this.#lastPoint(copy, signal);
    const forget = (limit: AbortSignal): Promise<void> => ghosts.collect(last.snapshot, limit); // keeps users' own
    revert.add(`snapshot ${last.snapshot}`, () => forget(limited(UNDO_LIMIT_MS)));
    if (isClone) {
      await this.#clone(copy, last, signal);
    } else {
      await this.#send(copy, last, signal);
      await forget(signal);
    }
    revert.commit();
  }

  /** What the copy is at the end: a snapshot of now, or the one that was asked for. */
  async #lastPoint({ from, snapshot }: VolumeCopy, signal: AbortSignal): Promise<Point> {
    const { zfs, pool } = this.#parts;
    if (snapshot !== undefined) {
      const name = pool.names.snapshot(from, snapshot);
      const { [PROPERTY.owners]: owners = '-' } = await zfs.get(name, [PROPERTY.owners], signal);
      return { snapshot: name, owners };
    }
    const owners = await this.#parts.ownersOf(from, signal);
    const now = internalSnapshot(pool.names.volume(from), 'copy');
    await zfs.snapshot(now, signal, { [PROPERTY.owners]: owners });
    return { snapshot: now, owners };
  }

  async #clone({ to }: VolumeCopy, { snapshot, owners }: Point, signal: AbortSignal): Promise<void> {
    const { zfs, pool } = this.#parts;
    const clone = { dataset: pool.names.volume(to), properties: this.#volumes.newProperties(owners, to) };
    await this.#parts.publish(to, () => zfs.clone(snapshot, clone, signal), signal);
  }

  /** Snapshot by snapshot into a dataset that nobody sees. */
  async #send({ from, snapshots, to }: VolumeCopy, last: Point, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const target = `${pool.names.parent('work')}/${randomUUID()}`;
    const wanted = new Set([...snapshots.map((one) => pool.names.snapshot(from, one)), last.snapshot]);
    const all = await zfs.snapshots(pool.names.volume(from), signal, [PROPERTY.owners]);
    const points = all.filter(({ name }) => wanted.has(name));
    if (points.length < wanted.size) throw new AppError('not_found', `a snapshot of ${from.name} is missing`);
    if (points.at(-1)?.name !== last.snapshot) {
      throw new AppError('unsupported', `a copy of ${from.name} cannot be older than the snapshots that go along`);
    }
    await using revert = new Reverter(context.log);
    revert.add(`copy ${target}`, () => zfs.destroy(target, limited(UNDO_LIMIT_MS)));
    let base = await this.#base(from, signal);
    for (const { name, properties } of points) {
      await zfs.transfer({ from: name, base, to: target }, signal);
      const [, received = ''] = name.split('@');
      await zfs.set(`${target}@${received}`, { [PROPERTY.owners]: properties[PROPERTY.owners] ?? '-' }, signal);
      base = name;
    }
    const goAlong = new Set(snapshots.map((one) => pool.names.snapshot(from, one)));
    if (!goAlong.has(last.snapshot)) await zfs.destroy(`${target}@${last.snapshot.split('@')[1] ?? ''}`, signal);
    await zfs.set(target, this.#volumes.newProperties(last.owners, to), signal);
    await this.#parts.publish(to, () => zfs.rename(target, pool.names.volume(to), signal), signal);
    revert.commit();
  }

  /** What the copy may share with its source: the image, as long as that is in the pool. */
  async #base(from: VolumeCopy['from'], signal: AbortSignal): Promise<string | undefined> {
    const { zfs, pool, context } = this.#parts;
    if (cloneCopy(context.config) === 'full') return undefined;
    const { origin = '-' } = await zfs.get(pool.names.volume(from), ['origin'], signal);
    return origin.startsWith(`${pool.names.parent('images')}/`) ? origin : undefined;
  }
}
