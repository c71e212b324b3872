// The volume group and thin pool of a storage pool: made, adopted, found again, grown and removed.
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { Lvm, type LogicalVolume, type VolumeGroup } from '#src/host/lvm.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { limited } from '#src/lib/wait.ts';
import { checkName, FOLDERS } from '../common/layout.ts';
import { makeLoopFile, sizeText } from '../common/loop-file.ts';
import { parseSizeBytes } from '../common/size.ts';
import type { PoolUsage, StorageContext } from '../driver.ts';
import { attachedLoop, attachLoop, detachLoop } from './loops.ts';
import { missingForLvm } from './requirements.ts';
import { forcesReuse, metadataBytes, stripeOptions, thinPoolName } from './settings.ts';
import { parseSource, type Source } from './source.ts';

const UNDO_LIMIT_MS = 120_000;
/** LXD's, on groups that it uses. */
const MARK = 'lxd_pool';
/** On groups and thin pools: what createPool made, and deletePool removes. */
const MADE = { group: 'lighter_made=group', pool: 'lighter_made=thinpool', mark: 'lighter_made=mark' } as const;

export class LvmPool {
  readonly lvm: Lvm;
  readonly group: string;
  readonly thinPool: string;
  readonly #context: StorageContext;
  readonly #host: Host;
  readonly #source: Source;
  #extentBytes: number | undefined;

  constructor(context: StorageContext) {
    checkName('pool', context.pool);
    this.#context = context;
    this.#host = context.host;
    this.#source = parseSource(context);
    this.lvm = new Lvm(context.host);
    this.group = this.#source.group;
    this.thinPool = thinPoolName(context.config);
  }

  /** AppError when something is where the pool shall be, or this host cannot have it. */
  async check(signal: AbortSignal): Promise<void> {
    await this.#requireMachine();
    const { kind, path } = this.#source;
    if (kind === 'group') return void (await this.#adoptable(signal));
    await this.#refuseGroup(signal);
    if (kind === 'file' && (await this.#host.exists(path))) {
      throw new AppError('conflict', `loop file ${path} of pool ${this.#context.pool} exists`);
    }
    if (kind !== 'device') return;
    const probe = await this.#host.run(['blkid', '-p', '--', path], { signal, okExitCodes: [0, 2] });
    if (probe.exitCode === 0) throw new AppError('conflict', `${path} is in use: ${probe.stdout.trim()}`);
  }

  async create(signal: AbortSignal): Promise<void> {
    const { log, pool, poolPath } = this.#context;
    await this.#requireMachine();
    await using revert = new Reverter(log);
    if (this.#source.kind === 'group') await this.#adopt(revert, signal);
    else await this.#makeGroup(revert, signal);
    if (!(await this.lvm.volume(this.group, this.thinPool, signal))) await this.#makeThinPool(revert, signal);
    revert.add(`folders of pool ${pool}`, () => this.#host.removeTree(poolPath));
    await this.#makeFolders();
    revert.commit();
  }

  /** AppError 'unavailable', with what is missing. */
  async open(signal: AbortSignal): Promise<void> {
    const { pool } = this.#context;
    if (this.#source.kind === 'file') await this.#attach(signal);
    if (!(await this.lvm.group(this.group, signal))) {
      await this.#requireMachine();
      throw new AppError('unavailable', `Volume group "${this.group}" of storage pool "${pool}" is not there`);
    }
    const thinPool = await this.lvm.volume(this.group, this.thinPool, signal);
    if (!thinPool?.isThinPool) {
      throw new AppError('unavailable', `Volume group "${this.group}" has no thin pool "${this.thinPool}"`);
    }
    await this.#makeFolders();
  }

  /** The caller made sure that nothing of the pool's is in it. */
  async delete(signal: AbortSignal): Promise<void> {
    const { poolPath } = this.#context;
    const group = await this.lvm.group(this.group, signal);
    if (group) await this.#release(group, signal);
    if (this.#source.kind === 'file') await this.#removeFile(this.#source.path);
    await this.#host.removeTree(poolPath);
  }

  /** Whether what is in the group is there because of this pool; its file is attached. */
  async isMarked(signal: AbortSignal): Promise<boolean> {
    if (this.#source.kind === 'file' && (await this.#host.exists(this.#source.path))) await this.#attach(signal);
    const { tags = [] } = (await this.lvm.group(this.group, signal)) ?? {};
    return tags.includes(MADE.group) || tags.includes(MADE.mark);
  }

  /** What is left of a pool that was being made or removed, and has no volumes any more. */
  async discard(signal: AbortSignal): Promise<void> {
    const { kind, path } = this.#source;
    const group = await this.lvm.group(this.group, signal);
    const isOurs = await this.isMarked(signal);
    if (group && (isOurs || kind === 'group')) await this.#release(group, signal);
    if (kind === 'file') await this.#removeFile(path);
    const device = kind === 'device' ? path : (this.#context.config['volatile.initial_source'] ?? '');
    if (device.startsWith('/dev/')) await this.lvm.forgetUnused(device, signal);
    await this.#host.removeTree(this.#context.poolPath);
  }

  /** Of all thin volumes in the pool. */
  async volumes(signal: AbortSignal): Promise<readonly LogicalVolume[]> {
    return (await this.lvm.volumes(this.group, signal)).filter(({ pool }) => pool === this.thinPool);
  }

  async usage(signal: AbortSignal): Promise<PoolUsage> {
    const found = await this.lvm.volume(this.group, this.thinPool, signal);
    if (!found) throw new AppError('unavailable', `Volume group "${this.group}" has no thin pool "${this.thinPool}"`);
    if (found.usedPercent === undefined) await this.lvm.activate(this.group, this.thinPool, signal);
    const { sizeBytes, usedPercent = 0 } = (await this.lvm.volume(this.group, this.thinPool, signal)) ?? found;
    const usedBytes = Math.round((sizeBytes * usedPercent) / 100);
    return { totalBytes: sizeBytes, usedBytes, inodesTotal: 0, inodesUsed: 0 };
  }

  /** The file that the pool is on can grow, and the pool with it. */
  async change(before: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    const { config, pool } = this.#context;
    const { size = '' } = config;
    if (size === '' || size === before['size']) return;
    const { kind, path } = this.#source;
    if (kind !== 'file') throw new AppError('invalid', `Storage pool "${pool}" has no file that could grow`);
    const bytes = parseSizeBytes(size);
    if (bytes < (await this.#host.status(path)).sizeBytes) {
      throw new AppError('invalid', `The size of storage pool "${pool}" cannot be reduced`);
    }
    await this.#host.run(['truncate', '-s', String(bytes), '--', path], { signal });
    const device = await this.#attach(signal);
    await this.#host.run(['losetup', '-c', device], { signal });
    await this.lvm.growDevice(device, signal);
    await this.lvm.growThinPool(this.group, this.thinPool, signal);
  }

  /** LXD's records name the group, whatever it was made on, and files by their path and size. */
  async recordedConfig(): Promise<Readonly<Record<string, string>>> {
    const { kind, path } = this.#source;
    const names = { 'lvm.vg_name': this.group, 'lvm.thinpool_name': this.thinPool };
    const given = this.#context.config['source'] ?? '';
    if (kind !== 'file') return { ...names, source: this.group, 'volatile.initial_source': given };
    const size = this.#context.config['size'] || sizeText((await this.#host.status(path)).sizeBytes);
    return { ...names, source: path, size };
  }

  /** As LVM will make it of that size: a multiple of the group's extents. */
  async rounded(bytes: number, signal: AbortSignal): Promise<number> {
    this.#extentBytes ??= (await this.lvm.group(this.group, signal))?.extentBytes;
    if (this.#extentBytes === undefined) throw new AppError('unavailable', `no volume group "${this.group}"`);
    return Math.max(1, Math.ceil(bytes / this.#extentBytes)) * this.#extentBytes;
  }

  async #requireMachine(): Promise<void> {
    const missing = await missingForLvm(this.#host);
    if (missing.length === 0) return;
    throw new AppError('unsupported', `Storage pools of lvm need what this host lacks: ${missing.join('; ')}`);
  }

  async #makeGroup(revert: Reverter, signal: AbortSignal): Promise<void> {
    const { kind, path } = this.#source;
    const { lvm, group } = this;
    await this.#refuseGroup(signal);
    if (kind === 'file') {
      await makeLoopFile(this.#context, path, signal);
      revert.add(`loop file ${path}`, () => this.#removeFile(path));
    }
    const device = kind === 'file' ? await this.#attach(signal) : path;
    await lvm.createGroup(group, device, { tags: [MARK, MADE.group] }, signal);
    const undo = async (limit: AbortSignal): Promise<void> => {
      await lvm.removeGroup(group, limit);
      await lvm.forgetDevice(device, limit);
    };
    revert.add(`volume group ${group}`, () => undo(limited(UNDO_LIMIT_MS)));
  }

  async #refuseGroup(signal: AbortSignal): Promise<void> {
    const { lvm, group } = this;
    if (!(await lvm.group(group, signal))) return;
    throw new AppError('conflict', `A volume group already exists called "${group}"`);
  }

  async #adopt(revert: Reverter, signal: AbortSignal): Promise<void> {
    const { lvm, group } = this;
    const { tags } = await this.#adoptable(signal);
    if (tags.includes(MARK)) return; // whoever set it takes it away
    await lvm.tagGroup(group, [MARK, MADE.mark], signal);
    revert.add(`tags of ${group}`, () => lvm.untagGroup(group, [MARK, MADE.mark], limited(UNDO_LIMIT_MS)));
  }

  /** AppError when the group is not there, or is used and may not be taken. */
  async #adoptable(signal: AbortSignal): Promise<VolumeGroup> {
    const { lvm, group, thinPool } = this;
    const found = await lvm.group(group, signal);
    if (!found) throw new AppError('not_found', `The requested volume group "${group}" does not exist`);
    const volumes = await lvm.volumes(group, signal);
    const pool = volumes.find(({ name }) => name === thinPool);
    if (pool && !pool.isThinPool) {
      throw new AppError('invalid', `"${thinPool}" of volume group "${group}" is no thin pool`);
    }
    if (forcesReuse(this.#context.config)) return found;
    if (found.tags.includes(MARK)) throw new AppError('conflict', `Volume group "${group}" is already used by LXD`);
    const [other] = volumes.filter(({ name }) => name !== thinPool);
    if (other) throw new AppError('conflict', `Volume group "${group}" is not empty (${other.name})`);
    return found;
  }

  async #makeThinPool(revert: Reverter, signal: AbortSignal): Promise<void> {
    const { lvm, group, thinPool } = this;
    const { config } = this.#context;
    const how = { metadataBytes: metadataBytes(config), stripes: stripeOptions(config), tags: [MADE.pool] };
    await lvm.createThinPool(group, thinPool, how, signal);
    revert.add(`thin pool ${thinPool}`, () => lvm.remove(group, thinPool, limited(UNDO_LIMIT_MS)));
  }

  /** What was made goes; what was there stays, without our marks. AppError 'conflict' when others would lose something. */
  async #release({ tags, devices }: VolumeGroup, signal: AbortSignal): Promise<void> {
    const { lvm, group, thinPool } = this;
    const volumes = await lvm.volumes(group, signal);
    const pool = volumes.find(({ name }) => name === thinPool);
    const others = volumes.filter(({ name }) => name !== thinPool);
    if (tags.includes(MADE.group)) {
      const [other] = others;
      if (other) throw new AppError('conflict', `Volume group "${group}" is not empty (${other.name})`);
      await lvm.removeGroup(group, signal);
      for (const device of devices) await lvm.forgetDevice(device, signal);
      return;
    }
    const isFree = others.every((volume) => volume.pool !== thinPool);
    if (isFree && pool?.tags.includes(MADE.pool)) await lvm.remove(group, thinPool, signal);
    if (tags.includes(MADE.mark)) await lvm.untagGroup(group, [MARK, MADE.mark], signal);
  }

  async #attach(signal: AbortSignal): Promise<string> {
    const { pool } = this.#context;
    const { path } = this.#source;
    if (!(await this.#host.exists(path))) {
      throw new AppError('unavailable', `File ${path} of storage pool "${pool}" is not there`);
    }
    return (await attachedLoop(this.#host, path, signal)) ?? attachLoop(this.#host, path, signal);
  }

  async #removeFile(path: string): Promise<void> {
    const signal = limited(UNDO_LIMIT_MS);
    const device = await attachedLoop(this.#host, path, signal);
    if (device !== undefined) await detachLoop(this.#host, device, signal);
    await this.#host.removeTree(path);
  }

  async #makeFolders(): Promise<void> {
    const { poolPath } = this.#context;
    await this.#host.makeDirectory(poolPath, { mode: 0o711 });
    for (const [name, mode] of Object.entries(FOLDERS)) await this.#host.makeDirectory(join(poolPath, name), { mode });
  }
}
