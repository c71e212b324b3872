// Mounts of logical volumes: one is active as long as it is mounted.
import { join } from 'node:path';
import { devicePath } from '#src/host/lvm.ts';
import type { Argv, Host } from '#src/host/host.ts';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { StorageContext } from '../driver.ts';
import { fileSystem, growFileSystem, makeFileSystem } from './file-systems.ts';
import type { LvmPool } from './pool.ts';
import { mountOptions } from './settings.ts';
import { optionsIn } from './tags.ts';

const UNDO_LIMIT_MS = 120_000;

export interface Mounting {
  readonly isReadonly?: boolean;
  /** It was made this moment. */
  readonly isActive?: boolean;
  /** Whether the volume may have mount options of its own. */
  readonly hasOptions?: boolean;
}

export class LvmMounts {
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #pool: LvmPool;

  constructor(context: StorageContext, pool: LvmPool) {
    this.#context = context;
    this.#host = context.host;
    this.#pool = pool;
  }

  /** Where volumes are mounted that nobody sees. */
  get workFolder(): string {
    return join(this.#context.poolPath, 'work');
  }

  /** Idempotent. AppError 'not_found' without the volume. */
  async mount(name: string, path: string, mounting: Mounting, signal: AbortSignal): Promise<void> {
    if (await this.#host.mounts.isMountPoint(path)) return;
    const { lvm, group } = this.#pool;
    if (!mounting.isActive) await lvm.activate(group, name, signal);
    const type = await this.#fileSystem(name, signal);
    const { options, readonlyOptions } = fileSystem(type);
    const own = mounting.hasOptions ? await this.#ownOptions(name, signal) : '';
    const all = mounting.isReadonly
      ? ['ro', ...options, ...readonlyOptions]
      : [...options, mountOptions(own, this.#context.config)];
    await this.#host.makeDirectory(path);
    // mount(8): it knows which options are the kernel's own
    const argv: Argv = ['mount', '-t', type, '-o', all.join(','), '--', devicePath(group, name), path];
    await this.#host.run(argv, { signal });
  }

  /** Idempotent; absent is success. What somebody is still in is out of sight, and stays active. */
  async unmount(name: string, path: string, signal: AbortSignal): Promise<void> {
    if (!(await this.#host.mounts.isMountPoint(path))) return;
    await this.#host.mounts.unmount(path);
    await this.#deactivate(name, signal);
  }

  /** Runs `use` with the files of the volume; mounted only as long as that lasts, unless it was before. */
  async during<T>(
    name: string,
    { path, isActive = false }: { readonly path: string; readonly isActive?: boolean },
    use: (path: string) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    await using mounts = new Reverter(this.#context.log); // never committed: the mount is for this alone
    if (!(await this.#host.mounts.isMountPoint(path))) {
      mounts.add(`mount of ${name}`, () => this.unmount(name, path, limited(UNDO_LIMIT_MS)));
      await this.mount(name, path, { isActive }, signal);
    }
    return await use(path);
  }

  /** The same in the folder of work in progress. */
  async aside<T>(
    name: string,
    { isActive = false }: Pick<Mounting, 'isActive'>,
    use: (path: string) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const path = join(this.workFolder, name);
    await this.#host.makeDirectory(this.workFolder, { mode: 0o711 });
    await using mounts = new Reverter(this.#context.log); // never committed, as above
    mounts.add(`folder of ${name}`, () => this.#host.removeTree(path));
    return await this.during(name, { path, isActive }, use, signal);
  }

  /** On a volume that is active. */
  async format(name: string, type: string, signal: AbortSignal): Promise<void> {
    await makeFileSystem(this.#host, type, devicePath(this.#pool.group, name), signal);
  }

  /** The file system of a volume that is mounted takes all of it. */
  async grow(name: string, path: string, signal: AbortSignal): Promise<void> {
    const where = { host: this.#host, device: devicePath(this.#pool.group, name), signal };
    await growFileSystem(await this.#fileSystem(name, signal), where, path);
  }

  /** The file system of a volume that is not mounted. AppError 'invalid' when that cannot be. */
  async shrink(name: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const { lvm, group } = this.#pool;
    await lvm.activate(group, name, signal);
    const type = await this.#fileSystem(name, signal);
    const { shrink } = fileSystem(type);
    if (!shrink) throw new AppError('invalid', `A volume with file system ${type} cannot shrink`);
    await shrink(sizeBytes, { host: this.#host, device: devicePath(group, name), signal });
  }

  /** Best effort: a volume that stays active is found so. */
  async #deactivate(name: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#pool.lvm.deactivate(this.#pool.group, name, signal);
    } catch (error) {
      if (!['unavailable', 'not_found'].includes(kindOf(error))) throw error;
      this.#context.log.debug('a logical volume is still in use and stays active', { volume: name });
    }
  }

  async #fileSystem(name: string, signal: AbortSignal): Promise<string> {
    const device = devicePath(this.#pool.group, name);
    const argv: Argv = ['blkid', '-p', '-s', 'TYPE', '-o', 'value', '--', device];
    return (await this.#host.run(argv, { signal })).stdout.trim();
  }

  async #ownOptions(name: string, signal: AbortSignal): Promise<string> {
    return optionsIn((await this.#pool.lvm.volume(this.#pool.group, name, signal))?.tags ?? []);
  }
}
