// The file system of a pool: made on a file or block device, or a place on one that is there; mounted, and removed.
import { dirname, join } from 'node:path';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Argv, Host } from '#src/host/host.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { StorageContext } from '../driver.ts';
import { checkName, FOLDERS } from '../common/layout.ts';
import { discardLoopFile, makeLoopFile, sizeText } from '../common/loop-file.ts';
import { parseSizeBytes } from '../common/size.ts';
import { parseSource, type Source } from './source.ts';

/** In the root of the pool: says what createPool made, and deletePool removes. */
const MARK = '.lighter-pool.json';
const MIB = 2 ** 20;
const FORMAT_LIMIT_MS = 10 * 60_000;
const UNDO_LIMIT_MS = 60_000;
const DEFAULT_OPTIONS = 'user_subvol_rm_allowed';

type Made = 'filesystem' | 'subvolume' | 'nothing';

export class BtrfsPool {
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #source: Source;

  constructor(context: StorageContext) {
    checkName('pool', context.pool);
    this.#context = context;
    this.#host = context.host;
    this.#source = parseSource(context);
  }

  /** AppError when something is where the pool shall be. */
  async check(signal: AbortSignal): Promise<void> {
    const { pool } = this.#context;
    const source = this.#source;
    await this.#refuseUsed();
    if (source.kind === 'file' && (await this.#host.exists(source.path))) {
      throw new AppError('conflict', `loop file ${source.path} of pool ${pool} exists`);
    }
    if (source.kind !== 'device') return;
    const probe = await this.#host.run(['blkid', '-p', '--', source.path], { signal, okExitCodes: [0, 2] });
    if (probe.exitCode !== 0) return;
    throw new AppError('conflict', `Failed to format block device: ${source.path} is in use: ${probe.stdout.trim()}`);
  }

  async create(signal: AbortSignal): Promise<void> {
    const { log, poolPath, pool } = this.#context;
    await this.#refuseUsed();
    await using revert = new Reverter(log);
    const made = await this.#make(revert, signal);
    revert.add(`directory of pool ${pool}`, () => this.#removeMountPoint());
    await this.#mount(signal);
    revert.add(`mount of pool ${pool}`, () => this.#host.mounts.unmount(poolPath));
    revert.add(`folders of pool ${pool}`, () => this.#removeFolders());
    await this.#host.writeFile(join(poolPath, MARK), `${JSON.stringify({ made } satisfies { made: Made })}\n`);
    await this.#makeFolders();
    revert.commit();
  }

  /** AppError 'unavailable' when the file system cannot be mounted. */
  async open(signal: AbortSignal): Promise<void> {
    try {
      await this.#mount(signal);
    } catch (error) {
      const { pool } = this.#context;
      throw new AppError('unavailable', `cannot mount pool ${pool}: ${messageOf(error)}`, { cause: error });
    }
    await this.#makeFolders();
  }

  /** Its mount point has no folders of its own. */
  async checkPresent(): Promise<void> {
    const { poolPath } = this.#context;
    if (await this.#host.exists(join(poolPath, 'containers'))) return;
    throw new AppError('unavailable', `the btrfs file system of the pool is not mounted on ${poolPath}`);
  }

  /** The file grows, and other mount options hold at once. */
  async change(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    const { config, poolPath } = this.#context;
    const { size = '' } = config;
    if (size !== '' && size !== before['size']) await this.#grow(parseSizeBytes(size), signal);
    if ((config['btrfs.mount_options'] ?? '') === (before['btrfs.mount_options'] ?? '')) return;
    await this.#host.run(['mount', '-o', `remount,${this.#options}`, '--', poolPath], { signal });
  }

  /** The pool is open and empty. */
  async delete(): Promise<void> {
    const { poolPath } = this.#context;
    const made = await this.#made();
    if (made === 'filesystem') {
      const device = await this.#device();
      await this.#host.mounts.unmount(poolPath);
      await this.#removeMountPoint();
      if (this.#source.kind === 'file') await this.#host.removeTree(this.#source.path);
      else await this.#wipe(device);
      return;
    }
    const path = this.#source.kind === 'path' ? this.#source.path : poolPath;
    if (made === 'nothing') await this.#removeFolders();
    if (path !== poolPath) await this.#host.mounts.unmount(poolPath);
    if (made === 'subvolume') await this.#host.btrfs.remove(path);
    await this.#removeMountPoint();
  }

  /** What is left of a pool that was being made or removed; `empty` removes the images from one that is mounted. */
  async discard(empty: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { poolPath } = this.#context;
    const source = this.#source;
    if (source.kind === 'path') return this.#discardPath(source.path, empty, signal);
    await this.#host.mounts.unmount(poolPath);
    await this.#removeMountPoint();
    if (source.kind === 'file') return discardLoopFile(this.#host, source.path);
    const device = source.kind === 'device' ? source.path : await this.#deviceOf(source.uuid, signal);
    // check() found nothing on it, so what is on it now is ours.
    if (device !== '') await this.#wipe(device);
  }

  async #discardPath(path: string, empty: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { poolPath } = this.#context;
    if (await this.#host.exists(path)) {
      await this.#mount(signal);
      await empty();
      // Without a mark it had nothing in it but our folders.
      if (await this.#host.exists(join(poolPath, MARK))) return this.delete();
      await this.#removeFolders();
    }
    if (path === poolPath) return;
    await this.#host.mounts.unmount(poolPath);
    await this.#removeMountPoint();
  }

  async #deviceOf(uuid: string, signal: AbortSignal): Promise<string> {
    const { stdout } = await this.#host.run(['blkid', '-U', uuid], { signal, okExitCodes: [0, 2] });
    return stdout.trim();
  }

  /** LXD's records name devices by the file system on them, and files by their path and size. */
  async recordedConfig(signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    const source = this.#source;
    if (source.kind === 'uuid') return {};
    const initial = { 'volatile.initial_source': 'path' in source ? source.path : '' };
    if (source.kind === 'path') return { source: source.path, ...initial };
    if (source.kind === 'device') return { source: await this.#uuidOf(source.path, signal), ...initial };
    const { size = '' } = this.#context.config;
    if (size !== '') return { source: source.path };
    return { source: source.path, size: sizeText((await this.#host.status(source.path)).sizeBytes) };
  }

  async #make(revert: Reverter, signal: AbortSignal): Promise<Made> {
    const { pool } = this.#context;
    const source = this.#source;
    if (source.kind === 'uuid') throw new AppError('invalid', 'Invalid "source" property');
    if (source.kind === 'path') return this.#takePath(source.path, revert);
    if (source.kind === 'file') {
      await makeLoopFile(this.#context, source.path, signal);
      revert.add(`loop file ${source.path}`, () => this.#host.removeTree(source.path));
    }
    const what = source.kind === 'file' ? 'sparse file' : 'block device';
    // Without -f: what has a file system on it is not touched.
    const format: Argv = ['mkfs.btrfs', '-q', '-L', pool, '--', source.path];
    try {
      await this.#host.run(format, { signal, timeoutMs: FORMAT_LIMIT_MS });
    } catch (error) {
      throw new AppError('internal', `Failed to format ${what}: ${messageOf(error)}`, { cause: error });
    }
    if (source.kind === 'device') revert.add(`file system of ${source.path}`, () => this.#wipe(source.path));
    return 'filesystem';
  }

  async #takePath(path: string, revert: Reverter): Promise<Made> {
    if (await this.#host.exists(path)) {
      if (await this.#host.btrfs.isBtrfs(path)) return 'nothing';
      throw new AppError('invalid', 'Provided path does not reside on a btrfs filesystem');
    }
    if (!(await this.#host.btrfs.isBtrfs(dirname(path)))) {
      throw new AppError('invalid', 'Provided path does not reside on a btrfs filesystem');
    }
    await this.#host.btrfs.create(path);
    revert.add(`subvolume ${path}`, () => this.#host.btrfs.remove(path));
    return 'subvolume';
  }

  /** AppError 'conflict' when something is in the pool's directory, or in the directory that the pool shall be made in. */
  async #refuseUsed(): Promise<void> {
    const { pool, poolPath } = this.#context;
    const paths = this.#source.kind === 'path' ? [this.#source.path, poolPath] : [poolPath];
    for (const path of paths) {
      const [first] = await this.#host.list(path);
      if (first === undefined) continue;
      throw new AppError('conflict', `cannot make pool ${pool}: ${path} is not empty (${first})`);
    }
  }

  /** Idempotent. */
  async #mount(signal: AbortSignal): Promise<void> {
    const { poolPath } = this.#context;
    const source = this.#source;
    if (source.kind === 'path' && source.path === poolPath) return this.#requireBtrfs();
    await this.#host.makeDirectory(poolPath, { mode: 0o711 });
    if (await this.#host.mounts.isMountPoint(poolPath)) return;
    if (source.kind === 'path') {
      await this.#host.mounts.mount({ source: source.path, target: poolPath, type: 'none', flags: ['bind'] });
      return this.#requireBtrfs();
    }
    const what = source.kind === 'uuid' ? `UUID=${source.uuid}` : source.path;
    const all = source.kind === 'file' ? `loop,${this.#options}` : this.#options;
    // mount(8): it finds a free loop device and file systems by UUID, and knows which options are the kernel's own.
    await this.#host.run(['mount', '-t', 'btrfs', '-o', all, '--', what, poolPath], { signal });
    if (source.kind === 'file') await this.#growToFile(source.path);
  }

  /** After a change of the size that was cut off. The kernel resizes nothing below 256 MiB: what has its size is left alone. */
  async #growToFile(path: string): Promise<void> {
    const { poolPath } = this.#context;
    const { totalBytes } = await this.#host.usage(poolPath);
    if ((await this.#host.status(path)).sizeBytes - totalBytes >= MIB) await this.#host.btrfs.grow(poolPath);
  }

  get #options(): string {
    const given = this.#context.config['btrfs.mount_options'] ?? '';
    return given === '' ? DEFAULT_OPTIONS : given;
  }

  async #grow(bytes: number, signal: AbortSignal): Promise<void> {
    const { pool, poolPath } = this.#context;
    if (this.#source.kind !== 'file') throw new AppError('internal', `pool ${pool} has no file`); // parseSource() refused it
    const { path } = this.#source;
    if (bytes < (await this.#host.status(path)).sizeBytes) {
      throw new AppError('invalid', `The size of storage pool "${pool}" cannot be reduced`);
    }
    await this.#host.run(['truncate', '-s', String(bytes), '--', path], { signal });
    await this.#host.run(['losetup', '-c', await this.#mounted()], { signal });
    await this.#host.btrfs.grow(poolPath);
  }

  async #requireBtrfs(): Promise<void> {
    if (await this.#host.btrfs.isBtrfs(this.#context.poolPath)) return;
    throw new AppError('unavailable', 'Provided path does not reside on a btrfs filesystem');
  }

  async #makeFolders(): Promise<void> {
    for (const [name, mode] of Object.entries(FOLDERS)) {
      await this.#host.makeDirectory(join(this.#context.poolPath, name), { mode });
    }
  }

  async #removeFolders(): Promise<void> {
    for (const name of [...Object.keys(FOLDERS), MARK]) await this.#host.removeTree(join(this.#context.poolPath, name));
  }

  async #removeMountPoint(): Promise<void> {
    await this.#host.removeTree(this.#context.poolPath);
  }

  async #made(): Promise<Made> {
    const text = await this.#host.readFile(join(this.#context.poolPath, MARK));
    return (JSON.parse(text) as { readonly made: Made }).made;
  }

  async #device(): Promise<string> {
    return this.#source.kind === 'uuid' ? this.#mounted() : this.#source.path;
  }

  /** The device that is mounted as the pool. */
  async #mounted(): Promise<string> {
    const argv: Argv = ['findmnt', '-n', '-o', 'SOURCE', '--mountpoint', this.#context.poolPath];
    return (await this.#host.run(argv)).stdout.trim();
  }

  /** It has our own file system on it, and nothing in that: the next pool may have it. */
  async #wipe(device: string): Promise<void> {
    await this.#host.run(['wipefs', '-q', '-a', '-t', 'btrfs', '--', device], { signal: limited(UNDO_LIMIT_MS) });
  }

  async #uuidOf(device: string, signal: AbortSignal): Promise<string> {
    return (await this.#host.run(['blkid', '-p', '-s', 'UUID', '-o', 'value', '--', device], { signal })).stdout.trim();
  }
}
