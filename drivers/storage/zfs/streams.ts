// Volumes as streams of zfs send: each snapshot one stream, the volume as it is now one more.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import { idMapKey, parseIdMapKey } from '#src/host/id-map.ts';
import { isZfsInKernel } from '#src/host/zfs.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { HeldStream, ReceivedPart, StorageStreams, StreamPart, StreamPoint, VolumeRef } from '../driver.ts';
import { internalSnapshot, ownSnapshotName, PROPERTY } from './names.ts';
import type { ZfsParts } from './parts.ts';
import type { ZfsVolumes } from './volumes.ts';

const UNDO_LIMIT_MS = 120_000;

export class ZfsStreams implements StorageStreams {
  readonly format = 'zfs';
  readonly nests = false;
  readonly #parts: ZfsParts;
  readonly #volumes: ZfsVolumes;

  constructor(parts: ZfsParts, volumes: ZfsVolumes) {
    this.#parts = parts;
    this.#volumes = volumes;
  }

  compresses(): Promise<boolean> {
    return isZfsInKernel(this.#parts.context.host);
  }

  async canSend(volume: VolumeRef, signal: AbortSignal): Promise<boolean> {
    return (await this.#parts.find(volume, [], signal)) !== undefined;
  }

  /** None when the newest is one that nobody sees: zfs receives upon the newest alone. */
  async points(volume: VolumeRef, signal: AbortSignal): Promise<readonly StreamPoint[]> {
    const { zfs, pool } = this.#parts;
    const found = await zfs.snapshots(pool.names.volume(volume), signal, ['guid', PROPERTY.owners]);
    const newest = found.at(-1);
    if (!newest || ownSnapshotName(newest.name) === undefined) return [];
    return found.flatMap(({ name, properties }) => {
      const snapshot = ownSnapshotName(name);
      const { guid = '-', [PROPERTY.owners]: owners = '-' } = properties;
      return snapshot === undefined ? [] : [{ snapshot, guid, owners: parseIdMapKey(owners) }];
    });
  }

  async send(
    { volume, snapshot, base, compress = false }: StreamPart,
    use: (stream: NodeJS.ReadableStream) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const since = base === undefined ? {} : { base: pool.names.snapshot(volume, base) };
    if (snapshot !== undefined) {
      return zfs.send({ from: pool.names.snapshot(volume, snapshot), ...since, compress }, use, signal);
    }
    await using cleanup = new Reverter(context.log); // never committed: the snapshot is only for the stream
    await this.#parts.ownersOf(volume, signal); // what a crash cut off is settled first
    const now = internalSnapshot(pool.names.volume(volume), 'copy');
    await zfs.snapshot(now, signal);
    cleanup.add(`snapshot ${now}`, () => zfs.destroy(now, limited(UNDO_LIMIT_MS)));
    await zfs.send({ from: now, ...since, compress }, use, signal);
  }

  /** LXD's tarballs have streams that every zfs can read: nothing is sent as it is on the disk. */
  async hold(
    { volume, snapshots }: { readonly volume: VolumeRef; readonly snapshots: readonly string[] },
    use: (streams: readonly HeldStream[]) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    await using cleanup = new Reverter(context.log); // never committed: the snapshot is only for the streams
    await this.#parts.ownersOf(volume, signal); // what a crash cut off is settled first
    const now = internalSnapshot(pool.names.volume(volume), 'copy');
    await zfs.snapshot(now, signal);
    cleanup.add(`snapshot ${now}`, () => zfs.destroy(now, limited(UNDO_LIMIT_MS)));
    const { [PROPERTY.owners]: owners = '-' } = await this.#parts.require(volume, [PROPERTY.owners], signal);
    const sources = snapshots.map((snapshot) => ({ snapshot, from: pool.names.snapshot(volume, snapshot) }));
    const streams: HeldStream[] = [];
    for (const [index, { snapshot, from }] of [...sources, { snapshot: undefined, from: now }].entries()) {
      const base = sources[index - 1]?.from;
      const { guid = '-', ...found } = await zfs.get(from, ['guid', PROPERTY.owners], signal);
      const key = snapshot === undefined ? owners : (found[PROPERTY.owners] ?? '-');
      const read = (take: (stream: NodeJS.ReadableStream) => Promise<void>): Promise<void> => {
        return zfs.send({ from, ...(base !== undefined && { base }) }, take, signal);
      };
      const nature = { path: '/', readonly: snapshot !== undefined, owners: parseIdMapKey(key) };
      streams.push({ snapshot, guid, ...nature, read });
    }
    await use(streams);
  }

  async receive(part: ReceivedPart, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    await (part.base === undefined ? this.#replace(part, stream, signal) : this.#goOn(part, part.base, stream, signal));
  }

  /** The dataset that comes takes the place of the volume's, which may be a clone that nothing can be received into. */
  async #replace(part: ReceivedPart, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context, ghosts } = this.#parts;
    const { volume, snapshot } = part;
    const dataset = pool.names.volume(volume);
    await this.#parts.require(volume, [], signal);
    await this.#refuseFilled(dataset, signal);
    const owners = idMapKey(part.owners);
    const work = `${pool.names.parent('work')}/${randomUUID()}`;
    const name = snapshot === undefined ? 'received' : this.#short(volume, snapshot);
    await using revert = new Reverter(context.log);
    revert.add(`dataset ${work}`, () => zfs.destroy(work, limited(UNDO_LIMIT_MS)));
    await zfs.receive(`${work}@${name}`, stream, signal);
    if (snapshot === undefined) await zfs.destroy(`${work}@${name}`, signal);
    else await zfs.set(`${work}@${name}`, { [PROPERTY.owners]: owners }, signal);
    // Its limits and keys are those of the volume, whatever came with the stream.
    const own = await zfs.localProperties(dataset, signal);
    await zfs.set(work, { ...own, [PROPERTY.owners]: owners, canmount: 'noauto' }, signal);

    await this.#volumes.unmount(volume, signal);
    const old = `${pool.names.parent('work')}/${randomUUID()}`;
    await zfs.rename(dataset, old, signal);
    revert.add(`volume ${dataset}`, () => zfs.rename(old, dataset, limited(UNDO_LIMIT_MS)));
    await zfs.rename(work, dataset, signal);
    revert.commit();
    await ghosts.remove(old, volume.kind, signal);
  }

  /**
   * While the owners of the files and those in the property may differ, the property names the snapshot that a start after a crash
   * goes back to.
   */
  async #goOn(part: ReceivedPart, base: string, stream: NodeJS.ReadableStream, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const { volume, snapshot } = part;
    const dataset = pool.names.volume(volume);
    const name = snapshot === undefined ? internalSnapshot(dataset, 'copy') : pool.names.snapshot(volume, snapshot);
    const owners = idMapKey(part.owners);
    await this.#parts.ownersOf(volume, signal);
    await this.#volumes.unmount(volume, signal);
    await using revert = new Reverter(context.log);
    await zfs.set(dataset, { [PROPERTY.owners]: `@${this.#short(volume, base)}` }, signal);
    await zfs.receive(name, stream, signal);
    revert.add(`snapshot ${name}`, () => zfs.destroy(name, limited(UNDO_LIMIT_MS)));
    if (snapshot !== undefined) await zfs.set(name, { [PROPERTY.owners]: owners }, signal);
    await zfs.set(dataset, { [PROPERTY.owners]: owners }, signal);
    revert.commit();
    if (snapshot === undefined) await zfs.destroy(name, signal);
  }

  #short(volume: VolumeRef, snapshot: string): string {
    return this.#parts.pool.names.snapshot(volume, snapshot).split('@')[1] ?? '';
  }

  async #refuseFilled(dataset: string, signal: AbortSignal): Promise<void> {
    const [first] = await this.#parts.zfs.snapshots(dataset, signal);
    if (first) throw new AppError('conflict', `a whole stream cannot replace ${dataset}, which has snapshots`);
  }
}
