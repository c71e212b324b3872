// The pool itself: from a loop file, a block device, or an existing pool or dataset; found again, and removed.
import { dirname, isAbsolute, join } from 'node:path';
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { Host } from '#src/host/host.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';
import { isZfsInKernel, type Zfs, type ZfsProperties } from '#src/host/zfs.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import type { PoolUsage, StorageContext } from '../driver.ts';
import { checkName, FOLDERS } from '../common/layout.ts';
import { discardLoopFile, loopFilePath, makeLoopFile, sizeText } from '../common/loop-file.ts';
import { parseSizeBytes } from '../common/size.ts';
import { type Flavour, findFlavour } from './flavour.ts';
import { DatasetNames, PARENTS, PROPERTY } from './names.ts';

const UNDO_LIMIT_MS = 60_000;

type Source =
  /** A file or block device to make a pool on. */
  | { readonly kind: 'file' | 'device'; readonly path: string }
  /** A pool or dataset that is there, or a dataset to be made in a pool that is there. */
  | { readonly kind: 'dataset' };

export class ZfsPool {
  readonly names: DatasetNames;
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #zfs: Zfs;
  readonly #source: Source;
  #flavour: Flavour | undefined;

  constructor(context: StorageContext, zfs: Zfs) {
    this.#context = context;
    this.#host = context.host;
    this.#zfs = zfs;
    this.#source = parseSource(context);
    this.names = new DatasetNames(rootName(context, this.#source));
  }

  /** On the file system around the pool: where images are unpacked when the pool cannot have that done in it. */
  get stagingPath(): string {
    return join(this.#context.poolPath, 'unpack');
  }

  async flavour(): Promise<Flavour> {
    this.#flavour ??= await findFlavour(this.#host, this.#zfs);
    return this.#flavour;
  }

  /** AppError when something is where the pool shall be. */
  async check(signal: AbortSignal): Promise<void> {
    const { root } = this.names;
    const source = this.#source;
    if (source.kind === 'dataset') return this.#refuseUsed(signal);
    if (await this.#zfs.exists(root, signal)) throw new AppError('conflict', `zfs pool ${root} exists`);
    if (source.kind === 'file' && (await this.#host.exists(source.path))) {
      throw new AppError('conflict', `loop file ${source.path} of pool ${this.#context.pool} exists`);
    }
  }

  async create(signal: AbortSignal): Promise<void> {
    await using revert = new Reverter(this.#context.log);
    revert.add(`zfs pool ${this.#context.pool}`, () => this.#remove(limited(UNDO_LIMIT_MS)));
    const made = await this.#makeRoot(signal).catch((error: unknown) => {
      revert.commit(); // nothing of ours is there yet
      throw error;
    });
    await this.#zfs.set(this.names.root, { [PROPERTY.made]: made }, signal);
    await this.#prepare(signal);
    revert.commit();
  }

  async open(signal: AbortSignal): Promise<void> {
    if (!(await this.#zfs.exists(this.names.root, signal))) await this.#import(signal);
    await this.#prepare(signal);
  }

  /** The caller made sure that it is empty. */
  async delete(signal: AbortSignal): Promise<void> {
    if (await this.#zfs.exists(this.names.root, signal)) await this.#remove(signal);
    await this.#host.removeTree(this.#context.poolPath);
  }

  /** What is left of a pool that was being made or removed. */
  async discard(signal: AbortSignal): Promise<void> {
    const { root } = this.names;
    const isThere = await this.#zfs.exists(root, signal);
    // Of a pool in use by others nothing is touched that has no mark of ours.
    if (isThere || this.#source.kind === 'file') await this.#remove(signal);
    if (this.#source.kind === 'file') await discardLoopFile(this.#host, this.#source.path);
    await this.#host.removeTree(this.#context.poolPath);
  }

  /** In the kernel by what it shows of its pools: a command would wait for a pool whose devices do not answer. */
  async checkPresent(signal: AbortSignal): Promise<void> {
    const { root } = this.names;
    const [zpool = ''] = root.split('/');
    const shown = `/proc/spl/kstat/zfs/${zpool}`;
    const inKernel = await isZfsInKernel(this.#host);
    const isThere = await (inKernel ? this.#host.exists(shown) : this.#zfs.exists(root, signal));
    if (!isThere) throw new AppError('unavailable', `zfs pool ${zpool} is not imported`);
    const state = inKernel ? await readIfPresent(this.#host, `${shown}/state`) : undefined;
    if (state?.trim() === 'SUSPENDED')
      throw new AppError('unavailable', `zfs pool ${zpool} is suspended: its devices do not answer`);
  }

  /** zfs-fuse imports none for reading alone. */
  async isReadonly(signal: AbortSignal): Promise<boolean> {
    const [zpool = ''] = this.names.root.split('/');
    return (await isZfsInKernel(this.#host)) && (await this.#zfs.isReadonlyPool(zpool, signal));
  }

  async usage(signal: AbortSignal): Promise<PoolUsage> {
    const { used, available } = await this.#zfs.get(this.names.root, ['used', 'available'], signal);
    const usedBytes = Number(used);
    return { totalBytes: usedBytes + Number(available), usedBytes, inodesTotal: 0, inodesUsed: 0 };
  }

  /** The file that the pool is on can grow, and the pool with it. */
  async change(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    const { size = '' } = this.#context.config;
    if (size === '' || size === before['size']) return;
    const { pool } = this.#context;
    if (this.#source.kind !== 'file')
      throw new AppError('invalid', `Storage pool "${pool}" has no file that could grow`);
    const bytes = parseSizeBytes(size);
    const { path } = this.#source;
    if (bytes < (await this.#host.status(path)).sizeBytes) {
      throw new AppError('invalid', `The size of storage pool "${pool}" cannot be reduced`);
    }
    await this.#host.run(['truncate', '-s', String(bytes), '--', path], { signal });
    await this.#grow(path, signal);
  }

  async #grow(path: string, signal: AbortSignal): Promise<void> {
    const { root } = this.names;
    const { log, pool, poolPath } = this.#context;
    const { totalBytes } = await this.usage(signal);
    await this.#zfs.growPool(root, path, signal);
    if ((await this.usage(signal)).totalBytes > totalBytes) return;
    // zfs-fuse looks at the size of a file only when it imports the pool, which cannot be while it is used.
    const [used] = await this.#host.mounts.mountsUnder(poolPath);
    if (used !== undefined) {
      log.warn('the storage pool takes its new size when it is opened the next time', { pool, used });
      return;
    }
    await this.#zfs.exportPool(root, signal);
    await this.#import(signal);
  }

  /** Where it lies and how big it is, as LXD records it. */
  async config(): Promise<Readonly<Record<string, string>>> {
    const { root } = this.names;
    const source = this.#source.kind === 'dataset' ? root : this.#source.path;
    const initial = { 'volatile.initial_source': this.#context.config['source'] ?? '' };
    const places = { source, 'zfs.pool_name': root, ...(initial['volatile.initial_source'] !== '' && initial) };
    if (this.#source.kind !== 'file' || (this.#context.config['size'] ?? '') !== '') return places;
    return { ...places, size: sizeText((await this.#host.status(this.#source.path)).sizeBytes) };
  }

  /** Makes the root dataset, undoing its own steps, and says what was made. */
  async #makeRoot(signal: AbortSignal): Promise<'pool' | 'dataset' | 'nothing'> {
    const { root } = this.names;
    if (this.#source.kind === 'dataset') return await this.#adopt(signal);
    if (await this.#zfs.exists(root, signal)) throw new AppError('conflict', `zfs pool ${root} exists`);
    await using revert = new Reverter(this.#context.log);
    if (this.#source.kind === 'file') {
      const { path } = this.#source;
      await makeLoopFile(this.#context, path, signal);
      revert.add(`loop file ${path}`, () => this.#host.removeTree(path));
    }
    await this.#zfs.createPool(root, this.#source.path, { root: { compression: 'on' }, signal });
    revert.commit();
    return 'pool';
  }

  async #adopt(signal: AbortSignal): Promise<'dataset' | 'nothing'> {
    const { root } = this.names;
    const [zpool = ''] = root.split('/');
    if (!(await this.#zfs.exists(zpool, signal))) {
      await this.#zfs.importPool(zpool, undefined, signal).catch((cause: unknown) => {
        throw new AppError('not_found', `no zfs pool ${zpool}`, { cause });
      });
    }
    if (!(await this.#zfs.exists(root, signal))) {
      await this.#zfs.create(root, { [PROPERTY.made]: 'dataset' }, signal);
      return 'dataset';
    }
    await this.#refuseUsed(signal);
    return 'nothing';
  }

  /** AppError 'conflict' when the dataset has something in it; absent is fine. */
  async #refuseUsed(signal: AbortSignal): Promise<void> {
    const { root } = this.names;
    if (!(await this.#zfs.exists(root, signal))) return;
    const all = [
      ...(await this.#zfs.listBelow(root, { type: 'filesystem,volume' }, signal)),
      ...(await this.#zfs.snapshots(root, signal)),
    ];
    if (all.length > 0) {
      const text = `Provided ZFS pool (or dataset) isn't empty, run "sudo zfs list -r ${root}" to see existing entries`;
      throw new AppError('conflict', text);
    }
  }

  /** Idempotent: directories, root properties, folder datasets. */
  async #prepare(signal: AbortSignal): Promise<void> {
    const { poolPath } = this.#context;
    await this.#host.makeDirectory(poolPath, { mode: 0o711 });
    for (const [name, mode] of Object.entries(FOLDERS)) await this.#host.makeDirectory(join(poolPath, name), { mode });
    await this.#host.removeTree(this.stagingPath); // what a crash left there
    const flavour = await this.flavour();
    await this.#setRoot(flavour, signal);
    const there = new Set(
      (await this.#zfs.listBelow(this.names.root, { type: 'filesystem' }, signal)).map(({ name }) => name),
    );
    for (const parent of PARENTS) {
      const dataset = this.names.parent(parent);
      if (!there.has(dataset))
        await this.#zfs.create(dataset, flavour.folderProperties(join(poolPath, parent)), signal);
    }
  }

  async #setRoot({ rootProperties }: Flavour, signal: AbortSignal): Promise<void> {
    const names = Object.keys(rootProperties);
    const current = await this.#zfs.get(this.names.root, names, signal).catch((): ZfsProperties => ({}));
    for (const [name, value] of Object.entries(rootProperties)) {
      if (current[name] === value) continue;
      await this.#zfs.set(this.names.root, { [name]: value }, signal).catch((error: unknown) => {
        this.#context.log.warn('zfs property not set', { dataset: this.names.root, name, value, error });
      });
    }
  }

  async #import(signal: AbortSignal): Promise<void> {
    const [zpool = ''] = this.names.root.split('/');
    const folder = this.#source.kind === 'file' ? dirname(this.#source.path) : undefined;
    try {
      await this.#zfs.importPool(zpool, folder, signal);
    } catch (error) {
      throw new AppError('unavailable', `cannot import zfs pool ${zpool} of ${this.#context.pool}: ${String(error)}`, {
        cause: error,
      });
    }
    if (!(await this.#zfs.exists(this.names.root, signal)))
      throw new AppError('not_found', `no zfs dataset ${this.names.root}`);
  }

  async #remove(signal: AbortSignal): Promise<void> {
    const { root } = this.names;
    const made = await this.#zfs.get(root, [PROPERTY.made], signal).catch((error: unknown) => {
      if (kindOf(error) === 'not_found') return undefined;
      throw error;
    });
    if (made?.[PROPERTY.made] === 'pool' || this.#source.kind !== 'dataset') await this.#zfs.destroyPool(root, signal);
    else if (made?.[PROPERTY.made] === 'dataset') await this.#zfs.destroy(root, signal);
    else for (const parent of PARENTS.toReversed()) await this.#zfs.destroy(this.names.parent(parent), signal);
    if (this.#source.kind === 'file') await this.#host.removeTree(this.#source.path);
  }
}

function parseSource(context: StorageContext): Source {
  const source = context.config['source'] ?? '';
  if (source === '') return { kind: 'file', path: loopFilePath(context) };
  if (source.startsWith('/dev/')) return { kind: 'device', path: source };
  return isAbsolute(source) ? { kind: 'file', path: source } : { kind: 'dataset' };
}

function rootName({ config, pool }: StorageContext, { kind }: Source): string {
  const name = config['zfs.pool_name'] ?? '';
  const root = kind === 'dataset' ? (config['source'] ?? '') : name || pool;
  if (kind === 'dataset') refuse(name !== '' && name !== root, 'Source must match zfs.pool_name if specified');
  else refuse(name.includes('/'), "zfs.pool_name can't point to a dataset when source isn't set");
  for (const part of root.split('/')) checkName('pool', part);
  return root;
}

function refuse(isWrong: boolean, message: string): void {
  if (isWrong) throw new AppError('invalid', message);
}
