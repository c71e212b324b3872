// Unpacked images as directories: images/FINGERPRINT with metadata.yaml, rootfs/ and templates/.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext, Unpack } from '../driver.ts';
import type { PoolDirectory } from './pool-directory.ts';

const SYNC_LIMIT_MS = 10 * 60_000;

/** Users of an image come and go while it is deleted: both sides hold the image's lock for the moment that decides. */
export class ImageTrees {
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #pool: PoolDirectory;
  readonly #locks = new KeyedLock();

  constructor(context: StorageContext, pool: PoolDirectory) {
    this.#context = context;
    this.#host = context.host;
    this.#pool = pool;
  }

  async create(fingerprint: string, unpack: Unpack, signal: AbortSignal): Promise<void> {
    const { layout } = this.#pool;
    const path = layout.image(fingerprint);
    if (await this.#host.exists(path))
      throw new AppError('conflict', `image ${fingerprint} exists in pool ${this.#context.pool}`);
    if (await this.#revive(fingerprint)) return;
    await using revert = new Reverter(this.#context.log);

    const work = this.#pool.workPath('image');
    revert.add(`unpacked image ${fingerprint}`, () => this.#pool.removeTree(work));
    await this.#host.makeDirectory(work, { mode: 0o711, fresh: true });
    await unpack(work, null);
    if (!(await this.#host.exists(join(work, 'rootfs'))))
      throw new AppError('invalid', `image ${fingerprint} has no rootfs`);
    // Without it a power cut after the rename could leave a published image of empty files.
    await this.#host.run(['sync', '-f', work], { timeoutMs: SYNC_LIMIT_MS, signal });
    await this.#host.rename(work, path);
    revert.commit();
  }

  has(fingerprint: string): Promise<boolean> {
    return this.#host.exists(this.#pool.layout.image(fingerprint));
  }

  async list(): Promise<readonly string[]> {
    return [...(await this.#host.list(this.#pool.layout.folder('images')))].sort();
  }

  /** The image's directory, deleted or not. AppError 'not_found' when there is none. */
  async find(fingerprint: string): Promise<string> {
    const { layout } = this.#pool;
    for (const path of [layout.image(fingerprint), layout.deletedImage(fingerprint)]) {
      if (await this.#host.exists(path)) return path;
    }
    throw new AppError('not_found', `no image ${fingerprint} in pool ${this.#context.pool}`);
  }

  /** The image's directory. AppError 'not_found' when there is none or it is deleted. */
  async require(fingerprint: string): Promise<string> {
    const path = this.#pool.layout.image(fingerprint);
    if (await this.#host.exists(path)) return path;
    throw new AppError('not_found', `no image ${fingerprint} in pool ${this.#context.pool}`);
  }

  /** Runs `publish` while the image cannot go away; rejects with 'not_found' when it is deleted. */
  async using<T>(fingerprint: string, publish: () => Promise<T>): Promise<T> {
    return await this.#locks.run(fingerprint, async () => {
      await this.require(fingerprint);
      return await publish();
    });
  }

  /** Removes an image, or hides it when `isUsed`: the last user calls collect(). */
  async delete(fingerprint: string, isUsed: () => Promise<boolean>): Promise<void> {
    await this.#locks.run(fingerprint, async () => {
      const path = this.#pool.layout.image(fingerprint);
      if (!(await this.#host.exists(path))) return;
      if (await isUsed()) await this.#host.rename(path, this.#pool.layout.deletedImage(fingerprint));
      else await this.#remove(fingerprint, path);
    });
  }

  /** Removes a hidden image when nobody uses it any more. */
  async collect(fingerprint: string, isUsed: () => Promise<boolean>): Promise<void> {
    await this.#locks.run(fingerprint, async () => {
      const path = this.#pool.layout.deletedImage(fingerprint);
      if ((await this.#host.exists(path)) && !(await isUsed())) await this.#remove(fingerprint, path);
    });
  }

  async #remove(fingerprint: string, path: string): Promise<void> {
    const shifted = this.#pool.layout.folder('shifted');
    for (const copy of await this.#host.list(shifted)) {
      if (copy.startsWith(`${fingerprint}.`)) await this.#pool.removePublished(join(shifted, copy));
    }
    await this.#pool.removePublished(path);
  }

  async #revive(fingerprint: string): Promise<boolean> {
    return await this.#locks.run(fingerprint, async () => {
      const hidden = this.#pool.layout.deletedImage(fingerprint);
      if (!(await this.#host.exists(hidden))) return false;
      await this.#host.rename(hidden, this.#pool.layout.image(fingerprint));
      return true;
    });
  }
}
