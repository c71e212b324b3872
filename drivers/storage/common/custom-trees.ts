// Custom volumes on a plain file system: custom/NAME is the content itself; what is to be remembered lies beside it, the map of its owners
// on it.
import { basename, dirname, join } from 'node:path';
import type { Argv, Host } from '#src/host/host.ts';
import { unfinishedName } from '#src/host/unfinished.ts';
import { type IdMapRange, sameIdMap } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { MountedRoot, NewVolume, StorageContext, VolumeCopy, VolumeRef } from '../driver.ts';
import type { InstanceQuotas } from './instance-quotas.ts';
import { checkName } from './layout.ts';
import { markedOwners, markOwners } from './owners-mark.ts';
import type { PoolDirectory } from './pool-directory.ts';
import { removeIfEmpty } from './remove-if-empty.ts';

const COPY_LIMIT_MS = 24 * 3600_000;
const FRESH_MODE = 0o711;

export interface CustomTreeParts {
  readonly context: StorageContext;
  readonly pool: PoolDirectory;
  readonly quotas: InstanceQuotas;
}

export class CustomTrees {
  readonly #parts: CustomTreeParts;
  readonly #host: Host;

  constructor(parts: CustomTreeParts) {
    this.#parts = parts;
    this.#host = parts.context.host;
  }

  #path(name: string): string {
    return join(this.#parts.pool.layout.folder('custom'), checkName('volume', name));
  }

  /** No volume's name begins with a dot. */
  #record(name: string): string {
    return join(this.#parts.pool.layout.folder('custom'), `.${checkName('volume', name)}.json`);
  }

  #folder(name: string): string {
    return join(this.#parts.pool.layout.folder('custom-snapshots'), checkName('volume', name));
  }

  #snapshot(name: string, snapshot: string): string {
    if (snapshot === '' || snapshot === '.' || snapshot === '..' || /[/\0]/u.test(snapshot)) {
      throw new AppError('invalid', `invalid snapshot name ${JSON.stringify(snapshot)}`);
    }
    return join(this.#folder(name), snapshot);
  }

  async create(volume: NewVolume, signal: AbortSignal): Promise<void> {
    await this.#make(volume, undefined, signal);
  }

  async copy({ from, snapshot, snapshots, to }: VolumeCopy, signal: AbortSignal): Promise<void> {
    const { pool, context } = this.#parts;
    await this.#refuseExisting(to.name);
    await using revert = new Reverter(context.log);
    revert.add(`snapshots of ${to.name}`, () => pool.removeTree(this.#folder(to.name)));
    for (const one of snapshots) {
      await this.#publish(this.#snapshot(from.name, one), this.#snapshot(to.name, one), signal);
    }
    const source = snapshot === undefined ? this.#path(from.name) : this.#snapshot(from.name, snapshot);
    await this.#make(to, source, signal);
    revert.commit();
  }

  /** Nobody sees it before it is complete. */
  async #make({ name, sizeBytes }: NewVolume, source: string | undefined, signal: AbortSignal): Promise<void> {
    const { pool, context } = this.#parts;
    await this.#refuseExisting(name);
    await using revert = new Reverter(context.log);
    const work = pool.workPath('custom');
    revert.add(`volume ${name}`, () => pool.removeTree(work));
    await this.#host.makeDirectory(work, { mode: FRESH_MODE, fresh: true });
    const projectId = await this.#claim(name, work, sizeBytes);
    if (source !== undefined) await this.#copyTree(source, work, signal);
    signal.throwIfAborted();
    revert.add('record', () => this.#host.removeTree(this.#record(name)));
    await this.#host.writeFile(this.#record(name), `${JSON.stringify({ projectId })}\n`, { mode: 0o600 });
    await this.#host.rename(work, this.#path(name));
    revert.commit();
  }

  async #claim(name: string, directory: string, sizeBytes: number | undefined): Promise<number | undefined> {
    const { quotas, context } = this.#parts;
    if (!quotas.enabled) {
      if (sizeBytes !== undefined) {
        context.log.warn('size is not enforced: the file system has no project quotas', { volume: name, sizeBytes });
      }
      return undefined;
    }
    const projectId = await quotas.claim(name, [directory]);
    if (sizeBytes !== undefined) await quotas.limit(projectId, sizeBytes);
    return projectId;
  }

  async delete(name: string): Promise<void> {
    const { pool, quotas } = this.#parts;
    const projectId = await this.#projectOf(name);
    await pool.removePublished(this.#path(name));
    if (projectId !== undefined) await quotas.release(projectId);
    await pool.removePublished(this.#folder(name));
    const record = this.#record(name);
    // What a daemon that was killed was writing of it goes as well.
    for (const path of [record, join(dirname(record), unfinishedName(basename(record)))]) {
      if (await this.#host.exists(path)) await this.#host.removeTree(path);
    }
  }

  /** The volume first: when it has the new name and its snapshots have not, another call goes on. */
  async rename(name: string, newName: string): Promise<void> {
    if (await this.#host.exists(this.#path(name))) {
      await this.#refuseExisting(newName);
      await this.#host.copyTree(this.#record(name), this.#record(newName));
      await this.#host.rename(this.#path(name), this.#path(newName));
    }
    if (await this.#host.exists(this.#folder(name))) await this.#host.rename(this.#folder(name), this.#folder(newName));
    await this.#host.removeTree(this.#record(name));
  }

  async list(): Promise<readonly string[]> {
    const names = await this.#host.list(this.#parts.pool.layout.folder('custom'));
    return names.filter((name) => !name.startsWith('.')).sort();
  }

  async #mounted(path: string): Promise<MountedRoot> {
    if (!(await this.#host.exists(path))) throw new AppError('not_found', `volume ${path} is not there`);
    return { rootfsPath: path, owners: await markedOwners(this.#host, path) };
  }

  /** Nothing is mounted. Owners stay unmapped where the kernel can map them, else they are changed when the map changes. */
  async mountVolume(
    { name, forReading = false }: VolumeRef,
    idMap: IdMapRange | null,
    signal: AbortSignal,
  ): Promise<MountedRoot> {
    const path = this.#path(name);
    const found = await this.#mounted(path);
    const to = (await this.#host.mounts.canMapIds(this.#parts.pool.layout.root)) ? null : idMap;
    if (forReading || sameIdMap(found.owners, to)) return found;
    const change = async (work: string): Promise<void> => {
      await this.#host.shiftOwners(work, { from: found.owners, to }, signal);
      await markOwners(this.#host, work, to);
    };
    await this.#replaceBy(name, { source: path, change }, signal);
    return { rootfsPath: path, owners: to };
  }

  mountSnapshot(name: string, snapshot: string): Promise<MountedRoot> {
    return this.#mounted(this.#snapshot(name, snapshot));
  }

  async resize(name: string, sizeBytes: number | undefined): Promise<void> {
    const projectId = await this.#projectOf(name);
    if (projectId === undefined) {
      throw new AppError('unsupported', `pool ${this.#parts.context.pool} has no quotas: cannot resize ${name}`);
    }
    await this.#parts.quotas.limit(projectId, sizeBytes);
  }

  async usage(name: string): Promise<number | undefined> {
    const projectId = await this.#projectOf(name);
    return projectId === undefined ? undefined : this.#parts.quotas.used(projectId);
  }

  async createSnapshot(name: string, snapshot: string, signal: AbortSignal): Promise<void> {
    const path = this.#snapshot(name, snapshot);
    if (await this.#host.exists(path)) {
      throw new AppError('conflict', `snapshot ${snapshot} of ${name} exists in pool ${this.#parts.context.pool}`);
    }
    await this.#publish(this.#path(name), path, signal);
  }

  async #publish(from: string, to: string, signal: AbortSignal): Promise<void> {
    const { pool, context } = this.#parts;
    await using revert = new Reverter(context.log);
    const work = pool.workPath('snapshot');
    revert.add('snapshot', () => pool.removeTree(work));
    await this.#host.makeDirectory(work, { mode: FRESH_MODE, fresh: true });
    await this.#copyTree(from, work, signal);
    signal.throwIfAborted();
    await this.#host.makeDirectory(dirname(to), { mode: 0o700 });
    await this.#host.rename(work, to);
    revert.commit();
  }

  async deleteSnapshot(name: string, snapshot: string): Promise<void> {
    const path = this.#snapshot(name, snapshot);
    await this.#parts.pool.removePublished(path);
    await removeIfEmpty(dirname(path));
  }

  async renameSnapshot(name: string, snapshot: string, newName: string): Promise<void> {
    await this.#host.rename(this.#snapshot(name, snapshot), this.#snapshot(name, newName));
  }

  listSnapshots(name: string): Promise<readonly string[]> {
    return this.#host.list(this.#folder(name));
  }

  async restore(name: string, snapshot: string, signal: AbortSignal): Promise<void> {
    await this.#replaceBy(name, { source: this.#snapshot(name, snapshot) }, signal);
  }

  /** What it was changes places with a copy of the source, in one step. */
  async #replaceBy(
    name: string,
    { source, change }: { readonly source: string; readonly change?: (work: string) => Promise<void> },
    signal: AbortSignal,
  ): Promise<void> {
    const { pool, context, quotas } = this.#parts;
    const projectId = await this.#projectOf(name);
    await using revert = new Reverter(context.log); // never committed: what is left in the work folder is waste
    const work = pool.workPath('restore');
    revert.add('copy, or what it replaced', () => pool.removeTree(work));
    await this.#host.makeDirectory(work, { mode: FRESH_MODE, fresh: true });
    if (projectId !== undefined) await quotas.adopt(projectId, work);
    await this.#copyTree(source, work, signal);
    await change?.(work);
    signal.throwIfAborted();
    await this.#host.exchange(work, this.#path(name));
  }

  async #copyTree(from: string, to: string, signal: AbortSignal): Promise<void> {
    const copy: Argv = ['cp', '-a', '--reflink=auto', '--one-file-system', '-T', '--', from, to];
    await this.#host.run(copy, { signal, timeoutMs: COPY_LIMIT_MS });
  }

  /** Only while the file system still keeps quotas. */
  async #projectOf(name: string): Promise<number | undefined> {
    const path = this.#record(name);
    if (!this.#parts.quotas.enabled || !(await this.#host.exists(path))) return undefined;
    return (JSON.parse(await this.#host.readFile(path)) as { readonly projectId?: number }).projectId;
  }

  async #refuseExisting(name: string): Promise<void> {
    if (await this.#host.exists(this.#path(name))) {
      throw new AppError('conflict', `volume ${name} exists in pool ${this.#parts.context.pool}`);
    }
  }
}
