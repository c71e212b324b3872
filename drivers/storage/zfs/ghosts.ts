// Datasets that nobody sees any more and that cannot go yet: clones need them, or some process is in them. As in LXD they lie under
// deleted/ until their last clone is gone; what is too busy to be moved there is marked.
import { randomUUID } from 'node:crypto';
import { kindOf } from '#src/lib/errors.ts';
import type { Zfs, ZfsDataset } from '#src/host/zfs.ts';
import type { StorageContext, VolumeKind } from '../driver.ts';
import type { ZfsImages } from './images.ts';
import { internalSnapshot, isInternal, PARENT_OF, PROPERTY } from './names.ts';
import type { ZfsPool } from './pool.ts';

export interface GhostParts {
  readonly context: StorageContext;
  readonly zfs: Zfs;
  readonly pool: ZfsPool;
  readonly images: ZfsImages;
}

const KINDS = ['container', 'custom'] as const satisfies readonly VolumeKind[];

export class ZfsGhosts {
  readonly #parts: GhostParts;

  constructor(parts: GhostParts) {
    this.#parts = parts;
  }

  /** Of a volume that is not mounted, with its snapshots; and what only it needed. */
  async remove(dataset: string, kind: VolumeKind, signal: AbortSignal): Promise<void> {
    const { zfs, pool, context } = this.#parts;
    const { origin } = await zfs.get(dataset, ['origin'], signal);
    if (await this.#destroyed(dataset, signal)) return this.collect(origin, signal);
    context.log.debug('dataset is needed and will be removed later', { dataset });
    await zfs.set(dataset, { [PROPERTY.deleted]: 'yes' }, signal);
    const hidden = `${pool.names.parent(`deleted/${PARENT_OF[kind]}`)}/${randomUUID()}`;
    await zfs.renameUnlessBusy(dataset, hidden, signal); // if it stays, the mark must do
  }

  /** Whether what has the name was a ghost that could not be moved, and is gone from it now. */
  async makeWay(dataset: string, kind: VolumeKind, signal: AbortSignal): Promise<boolean> {
    const { zfs } = this.#parts;
    const { [PROPERTY.deleted]: deleted = '-' } = await zfs.get(dataset, [PROPERTY.deleted], signal);
    if (deleted === '-') return false;
    await this.remove(dataset, kind, signal);
    return !(await zfs.exists(dataset, signal));
  }

  /** A snapshot that clones keep, or that is in use, gets a name that nobody sees. Absent is success. */
  async removeSnapshot(snapshot: string, signal: AbortSignal): Promise<void> {
    const { zfs } = this.#parts;
    if (await this.#destroyed(snapshot, signal)) return;
    const [dataset = ''] = snapshot.split('@');
    await zfs.rename(snapshot, internalSnapshot(dataset, 'deleted'), signal);
  }

  /** After the end of a clone: what it came from goes as well, when clones were all that kept it. */
  async collect(origin: string | undefined, signal: AbortSignal): Promise<void> {
    const { pool, images } = this.#parts;
    let at = origin;
    while (at?.startsWith(`${pool.names.root}/`)) {
      if (at.startsWith(`${pool.names.parent('images')}/`)) return images.collect(at, signal);
      if (isInternal(at) && !(await this.#destroyed(at, signal))) return;
      at = await this.#destroyGhost(at.split('@')[0] ?? '', signal);
    }
  }

  /** Its origin; undefined: it is no ghost, or is still needed. */
  async #destroyGhost(dataset: string, signal: AbortSignal): Promise<string | undefined> {
    const { pool, zfs } = this.#parts;
    if (!(await zfs.exists(dataset, signal))) return undefined;
    const { origin, [PROPERTY.deleted]: deleted } = await zfs.get(dataset, ['origin', PROPERTY.deleted], signal);
    const isGhost = deleted !== '-' || dataset.startsWith(`${pool.names.parent('deleted')}/`);
    return isGhost && (await this.#destroyed(dataset, signal)) ? origin : undefined;
  }

  /** What a crash or a busy mount left: work in progress, ghosts, snapshots without clones. For the time before anybody works. */
  async clean(signal: AbortSignal): Promise<void> {
    const { zfs, pool } = this.#parts;
    const query = { type: 'filesystem', properties: [PROPERTY.deleted, 'origin'] } as const;
    const found = await zfs.listBelow(pool.names.root, query, signal);
    const below = (parent: string) => found.filter(({ name }) => name.startsWith(`${parent}/`));
    for (const work of below(pool.names.parent('work'))) await this.#tidy(work, signal);
    for (const kind of KINDS) {
      const isMarked = ({ properties }: ZfsDataset): boolean => properties[PROPERTY.deleted] !== '-';
      for (const ghost of below(pool.names.parent(PARENT_OF[kind])).filter(isMarked)) {
        await this.#guarded(ghost.name, () => this.remove(ghost.name, kind, signal));
      }
      for (const ghost of below(pool.names.parent(`deleted/${PARENT_OF[kind]}`))) await this.#tidy(ghost, signal);
    }
    await this.#cleanSnapshots(signal);
  }

  /** Those of copies and of deleted snapshots whose clones are gone. */
  async #cleanSnapshots(signal: AbortSignal): Promise<void> {
    const { zfs, pool } = this.#parts;
    const clones = await zfs.listBelow(pool.names.root, { type: 'filesystem', properties: ['origin'] }, signal);
    const origins = new Set(clones.map(({ properties }) => properties['origin']));
    for (const { name } of await zfs.listBelow(pool.names.root, { type: 'snapshot' }, signal)) {
      if (!isInternal(name) || origins.has(name)) continue;
      await this.#guarded(name, () => zfs.destroy(name, signal));
    }
  }

  async #tidy({ name, properties }: ZfsDataset, signal: AbortSignal): Promise<void> {
    await this.#guarded(name, async () => {
      if (await this.#destroyed(name, signal)) await this.collect(properties['origin'], signal);
    });
  }

  /** One that stays does not keep the others. */
  async #guarded(dataset: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#parts.context.log.warn('dataset cannot be removed yet', { dataset, error });
    }
  }

  /** false: clones, or somebody who looks into it, keep it. */
  async #destroyed(name: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#parts.zfs.destroy(name, signal);
      return true;
    } catch (error) {
      if (kindOf(error) === 'conflict' || kindOf(error) === 'unavailable') return false;
      throw error;
    }
  }
}
