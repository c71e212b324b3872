// The directory of a pool on a plain file system: made, found again after a restart, removed.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { FileSystemUsage, Host } from '#src/host/host.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext } from '../driver.ts';
import { checkName, FOLDERS, Layout, OWN_FOLDERS } from './layout.ts';

/** `source` may be another directory: it is then bind-mounted at the pool's own path. */
export class PoolDirectory {
  readonly layout: Layout;
  readonly #context: StorageContext;
  readonly #host: Host;

  constructor(context: StorageContext) {
    checkName('pool', context.pool);
    this.#context = context;
    this.#host = context.host;
    this.layout = new Layout(context.poolPath);
  }

  /** AppError 'conflict' when the directory has something in it. */
  async check(): Promise<void> {
    const source = this.#source();
    await this.#refuseUsed(this.#context.poolPath);
    if (source !== this.#context.poolPath) await this.#refuseUsed(source, 'not_found');
  }

  /** As check(). */
  async create(): Promise<void> {
    const { log, pool, poolPath } = this.#context;
    const existed = await this.#host.exists(poolPath);
    await this.check();
    await using revert = new Reverter(log);

    if (!existed) revert.add(`directory of pool ${pool}`, () => this.#host.removeTree(poolPath));
    await this.#host.makeDirectory(poolPath, { mode: 0o711 });
    revert.add(`bind mount of pool ${pool}`, () => this.#host.mounts.unmount(poolPath));
    revert.add(`folders of pool ${pool}`, () => this.#removeFolders());
    await this.#attach();
    await this.#makeFolders();
    revert.commit();
  }

  /** Idempotent: bind mount, folders; what a crash left half-made goes away. AppError 'unavailable' when no pool is there. */
  async open(): Promise<void> {
    const isOurs = await this.#attach();
    try {
      await this.checkPresent();
    } catch (error) {
      if (isOurs) await this.#host.mounts.unmount(this.#context.poolPath);
      throw error;
    }
    await this.#makeFolders();
  }

  /** The first folder of a pool is in each of them; a mount point without its mount has none. */
  async checkPresent(): Promise<void> {
    if (await this.#host.exists(this.layout.folder('containers'))) return;
    throw new AppError('unavailable', `no storage pool is in ${this.#source()}: is its file system mounted?`);
  }

  /** Whether it had to be mounted. */
  async #attach(): Promise<boolean> {
    const { poolPath } = this.#context;
    const source = this.#source();
    await this.#host.makeDirectory(poolPath, { mode: 0o711 });
    if (source === poolPath || (await this.#host.mounts.isMountPoint(poolPath))) return false;
    await this.#host.mounts.mount({ source, target: poolPath, type: 'none', flags: ['bind'] });
    return true;
  }

  async #makeFolders(): Promise<void> {
    const { poolPath } = this.#context;
    for (const [name, mode] of Object.entries({ ...FOLDERS, ...OWN_FOLDERS })) {
      await this.#host.makeDirectory(join(poolPath, name), { mode });
    }
    for (const name of await this.#host.list(this.layout.folder('work')))
      await this.removeTree(join(this.layout.folder('work'), name));
  }

  /** AppError 'conflict' while anything is kept in it. */
  async delete(): Promise<void> {
    const { pool, poolPath } = this.#context;
    for (const folder of [...Object.keys(FOLDERS), 'deleted']) {
      const kept = await this.#host.list(join(poolPath, folder));
      if (kept.length > 0) throw new AppError('conflict', `pool ${pool} is in use: ${folder}/${kept[0] ?? ''}`);
    }
    await this.#removeFolders();
    await this.#host.mounts.unmount(poolPath);
    await this.#host.removeTree(poolPath);
  }

  /** What is left of a pool that was being made or removed. Of the operator's own directory only our folders go. */
  async discard(): Promise<void> {
    const { poolPath } = this.#context;
    const source = this.#source();
    await this.#removeFolders(poolPath);
    if (source !== poolPath) await this.#host.mounts.unmount(poolPath);
    if (source !== poolPath) await this.#removeFolders(source);
    await this.#host.removeTree(poolPath);
  }

  usage(): Promise<FileSystemUsage> {
    return this.#host.usage(this.#context.poolPath);
  }

  /** A path for something that is not published yet, on the same file system as everything else. */
  workPath(purpose: string): string {
    return join(this.layout.folder('work'), `${purpose}-${randomUUID()}`);
  }

  /** Removes a tree with what is still mounted in it. */
  async removeTree(path: string): Promise<void> {
    for (const mounted of await this.#host.mounts.mountsUnder(path)) await this.#host.mounts.unmount(mounted);
    await this.#host.removeTree(path);
  }

  /** Takes something published out of sight in one step, then removes it. Absent is success. */
  async removePublished(path: string): Promise<void> {
    if (!(await this.#host.exists(path))) return;
    const waste = this.workPath('waste');
    await this.#host.rename(path, waste);
    await this.removeTree(waste);
  }

  #source(): string {
    const { source } = this.#context.config;
    return source === undefined || source === '' ? this.#context.poolPath : source;
  }

  async #refuseUsed(path: string, absent?: 'not_found'): Promise<void> {
    const { pool } = this.#context;
    if (absent && !(await this.#host.exists(path)))
      throw new AppError('invalid', `source ${path} of pool ${pool} does not exist`);
    const [first] = await this.#host.list(path);
    if (first !== undefined)
      throw new AppError('conflict', `cannot make pool ${pool}: ${path} is not empty (${first})`);
  }

  async #removeFolders(place = this.#context.poolPath): Promise<void> {
    for (const name of [...Object.keys(FOLDERS), ...Object.keys(OWN_FOLDERS)]) {
      await this.removeTree(join(place, name));
    }
  }
}
