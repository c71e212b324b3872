// What to do when something could not be written: says which pool, or the engine's own disk, is full or read-only.
import type { PoolUsage } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { type Shortage, shortageIn } from '#src/lib/shortage.ts';
import { limited } from '#src/lib/wait.ts';
import type { StoragePools } from './storage-pools.ts';

/** Less than this is nothing: file systems keep some for themselves. */
const FULL_BYTES = 4 * 2 ** 20;
const FULL_SHARE = 0.01;
const LOOK_MS = 5000;
const GENERAL: Readonly<Record<Shortage, string>> = {
  full: 'A storage pool or the disk of the engine is full: delete what is not needed, or make it larger',
  limit: 'A size limit is reached: delete what is not needed, or raise the limit',
  readonly: 'A file system is read-only: see the log of the kernel, and mount it writable again',
};

export interface ShortageParts {
  readonly host: Host;
  readonly log: Log;
  readonly pools: StoragePools;
  /** $LIGHTER_DIR. */
  readonly root: string;
}

export class Shortages {
  readonly #parts: ShortageParts;

  constructor(parts: ShortageParts) {
    this.#parts = parts;
  }

  /** The message of an error, and what to do about it where it is a matter of space. Never rejects. */
  async explain(error: unknown): Promise<string> {
    const message = messageOf(error);
    const shortage = shortageIn(error);
    if (!shortage) return kindOf(error) === 'internal' ? this.#withLost(message) : message;
    const places = shortage === 'limit' ? [] : await this.#known(shortage);
    return `${message}. ${places.length > 0 ? places.join('. ') : GENERAL[shortage]}`;
  }

  /** What failed without a reason of its own may have lost its pool meanwhile. */
  async #withLost(message: string): Promise<string> {
    const { pools } = this.#parts;
    const open = pools.list().filter(({ name }) => pools.isOpen(name));
    await Promise.all(open.map(({ name }) => pools.look(name)));
    const lost = open.filter(({ name }) => !pools.isOpen(name));
    return [message, ...lost.map(({ name }) => `Storage pool "${name}" is unavailable on this server`)].join('. ');
  }

  async #known(shortage: 'full' | 'readonly'): Promise<readonly string[]> {
    try {
      return await this.#places(shortage);
    } catch (error) {
      this.#parts.log.warn('cannot tell what is full', { error });
      return [];
    }
  }

  async #places(shortage: 'full' | 'readonly'): Promise<readonly string[]> {
    const { pools, root } = this.#parts;
    const names = pools.list().flatMap(({ name }) => (pools.isOpen(name) ? [name] : []));
    const look = (path: string, name?: string) =>
      shortage === 'full' ? this.#full(path, name) : this.#readonly(path, name);
    const found = await Promise.all([look(root), ...names.map((name) => look(pools.path(name), name))]);
    return found.filter((text) => text !== undefined);
  }

  /** Of a pool; without its name, of the engine's own disk. */
  async #full(path: string, pool?: string): Promise<string | undefined> {
    const { host, pools } = this.#parts;
    const usage: PoolUsage =
      pool === undefined ? await host.usage(path) : await pools.driver(pool).poolUsage(limited(LOOK_MS));
    const { totalBytes, usedBytes, availableBytes = totalBytes - usedBytes, inodesTotal, inodesUsed } = usage;
    const isFull = availableBytes < Math.min(FULL_BYTES, totalBytes * FULL_SHARE);
    const what = pool === undefined ? `The disk of the engine (${path})` : `Storage pool "${pool}"`;
    if (!isFull && (inodesTotal === 0 || inodesUsed < inodesTotal)) return undefined;
    const remedy = 'delete instances, snapshots, volumes, backups or images, or make it larger';
    return `${what} is full${isFull ? '' : ' (no inodes are left)'}: ${remedy}`;
  }

  async #readonly(path: string, pool?: string): Promise<string | undefined> {
    const { host, pools } = this.#parts;
    const driver = pool === undefined ? undefined : pools.driver(pool);
    const isReadonly = await (driver?.isReadonly?.(limited(LOOK_MS)) ?? host.mounts.isReadonly(path));
    if (!isReadonly) return undefined;
    const what = pool === undefined ? `The disk of the engine (${path})` : `Storage pool "${pool}" (${path})`;
    return `${what} is read-only: see the log of the kernel, and mount it writable again`;
  }
}
