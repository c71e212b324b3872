// What the parts of the driver share: names, mounts, and how volumes are made, replaced and removed in one step.
import { join } from 'node:path';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { StorageContext, VolumeKind, VolumeRef } from '../driver.ts';
import { LvmMounts } from './mounts.ts';
import { VolumeNames } from './names.ts';
import { LvmPool } from './pool.ts';
import { replacesTag } from './tags.ts';

const UNDO_LIMIT_MS = 120_000;
const FOLDER_OF = { container: 'containers', custom: 'custom' } as const satisfies Record<VolumeKind, string>;

export interface Clone {
  /** A logical volume. */
  readonly of: string;
  /** Undefined: that of the origin. */
  readonly sizeBytes?: number | undefined;
  readonly tags?: readonly string[];
}

export class LvmParts {
  readonly context: StorageContext;
  readonly pool: LvmPool;
  readonly names = new VolumeNames();
  readonly mounts: LvmMounts;
  /** In use when they were to be removed. */
  readonly #waste = new Set<string>();

  constructor(context: StorageContext) {
    this.context = context;
    this.pool = new LvmPool(context);
    this.mounts = new LvmMounts(context, this.pool);
  }

  /** Where the volume is mounted. */
  path({ kind, name }: VolumeRef): string {
    return join(this.context.poolPath, FOLDER_OF[kind], name);
  }

  /** Where snapshots of the volume are mounted. */
  snapshotsPath({ kind, name }: VolumeRef): string {
    return join(this.context.poolPath, `${FOLDER_OF[kind]}-snapshots`, name);
  }

  /** `make` fills a logical volume that nobody sees yet, and that then gets the name. */
  async publish(name: string, make: (work: string) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { lvm, group } = this.pool;
    await using revert = new Reverter(this.context.log);
    const work = this.names.work();
    revert.add(`logical volume for ${name}`, () => this.toss(work, limited(UNDO_LIMIT_MS)));
    await make(work);
    signal.throwIfAborted();
    await lvm.rename(group, work, { to: name }, signal);
    revert.commit();
  }

  /** A new, empty file system; mounted for `fill`. */
  async make(
    work: string,
    { sizeBytes, type, fill }: { sizeBytes: number; type: string; fill: (path: string) => Promise<void> },
    signal: AbortSignal,
  ): Promise<void> {
    const { lvm, group, thinPool } = this.pool;
    await lvm.create(group, work, { sizeBytes, pool: thinPool }, signal);
    await this.mounts.format(work, type, signal);
    await this.mounts.aside(work, { isActive: true }, fill, signal);
  }

  /** A thin snapshot, of another size where that is wanted. */
  async clone(work: string, { of, sizeBytes, tags = [] }: Clone, signal: AbortSignal): Promise<void> {
    const { lvm, group } = this.pool;
    await lvm.snapshot(group, work, { of, isReadonly: false, tags }, signal);
    if (sizeBytes === undefined) return;
    await this.resize(work, { sizeBytes }, signal);
  }

  /** `path`: where the volume may be mounted. AppError 'invalid' when it cannot get smaller, or not now. */
  async resize(
    name: string,
    { sizeBytes, path }: { readonly sizeBytes: number; readonly path?: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { lvm, group } = this.pool;
    const found = await lvm.volume(group, name, signal);
    if (!found) throw new AppError('not_found', `no logical volume ${group}/${name}`);
    const wanted = await this.pool.rounded(sizeBytes, signal);
    const isMounted = path !== undefined && (await this.context.host.mounts.isMountPoint(path));
    if (wanted < found.sizeBytes) {
      if (isMounted) throw new AppError('invalid', 'A volume on lvm can only shrink while it is not in use');
      return this.#shrink(name, wanted, signal);
    }
    if (wanted > found.sizeBytes) await lvm.resize(group, name, { sizeBytes: wanted }, signal);
    // also when it has the size: a crash may have been between the two
    const grow = (at: string): Promise<void> => this.mounts.grow(name, at, signal);
    await (isMounted ? grow(path) : this.mounts.aside(name, {}, grow, signal));
  }

  async #shrink(name: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const { lvm, group } = this.pool;
    await this.mounts.shrink(name, sizeBytes, signal);
    await lvm.resize(group, name, { sizeBytes }, signal);
    await lvm.deactivate(group, name, signal);
  }

  /**
   * The volume, which is not in use, becomes a clone that `change` may alter. Killed between the two renames, the next start goes on by
   * the tag of the clone.
   */
  async replace(
    volume: VolumeRef,
    { change, ...clone }: Clone & { readonly change?: (work: string) => Promise<void> },
    signal: AbortSignal,
  ): Promise<void> {
    const { lvm, group } = this.pool;
    const name = this.names.volume(volume);
    await using cleanup = new Reverter(this.context.log); // never committed: what is left at the end is waste
    const [work, waste] = [this.names.work(), this.names.waste()];
    cleanup.add(`clone for ${name}`, () => this.toss(work, limited(UNDO_LIMIT_MS)));
    await this.clone(work, clone, signal);
    await change?.(work);
    await this.mounts.unmount(name, this.path(volume), signal);
    await lvm.tag(group, work, replacesTag(name), signal);
    signal.throwIfAborted();
    await this.#swap({ name, work, waste });
    cleanup.add(`volume that was ${name}`, () => this.toss(waste, limited(UNDO_LIMIT_MS)));
  }

  /** Not cut off in the middle by the caller. */
  async #swap({ name, work, waste }: Readonly<Record<'name' | 'work' | 'waste', string>>): Promise<void> {
    const { lvm, group } = this.pool;
    const signal = limited(UNDO_LIMIT_MS);
    await lvm.rename(group, name, { to: waste }, signal);
    try {
      await lvm.rename(group, work, { to: name }, signal);
    } catch (error) {
      await lvm.rename(group, waste, { to: name }, limited(UNDO_LIMIT_MS));
      throw error;
    }
    await lvm.untag(group, [name], replacesTag(name), signal);
  }

  /** Out of sight in one step; what is in use goes when it can. Absent is success. */
  async toss(name: string, signal: AbortSignal): Promise<void> {
    const { lvm, group } = this.pool;
    for (const waste of this.#waste) if (await this.#removed(waste, signal)) this.#waste.delete(waste);
    if (await this.#removed(name, signal)) return;
    const waste = this.names.waste();
    await lvm.rename(group, name, { to: waste }, signal);
    this.#waste.add(waste);
    this.context.log.debug('a logical volume is still in use and will be removed later', { volume: waste });
  }

  async #removed(name: string, signal: AbortSignal): Promise<boolean> {
    try {
      await this.pool.lvm.remove(this.pool.group, name, signal);
      return true;
    } catch (error) {
      if (kindOf(error) === 'unavailable' && !signal.aborted) return false;
      throw error;
    }
  }

  conflict({ kind, name }: VolumeRef, cause?: unknown): AppError {
    const what = kind === 'container' ? 'instance' : 'volume';
    return new AppError('conflict', `${what} ${name} exists in pool ${this.context.pool}`, { cause });
  }
}
