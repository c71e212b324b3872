// Snapshots and copies of volumes that are directories: copies that share their blocks where the file system can do that.
import { dirname, join } from 'node:path';
import type { Argv, Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext } from '../driver.ts';
import type { InstanceQuotas } from './instance-quotas.ts';
import type { PoolDirectory } from './pool-directory.ts';
import { readRecord, type VolumeRecord, writeRecord } from './volume-record.ts';
import { removeIfEmpty } from './remove-if-empty.ts';

const COPY_LIMIT_MS = 24 * 3600_000;
const BESIDE = ['metadata.yaml', 'templates'];

/** Which folders of a volume's directory hold what. */
export interface TreeShape {
  /** What the instance wrote, or all of its root. */
  content(record: VolumeRecord): string;
  /** The content's folder in a copy. */
  readonly freshContent: string;
  /** Folders that a copy needs, and begins with empty ones. */
  readonly emptyFolders: readonly string[];
  readonly quotaFolders: readonly string[];
}

export interface TreeSnapshotParts {
  readonly context: StorageContext;
  readonly pool: PoolDirectory;
  readonly quotas: InstanceQuotas;
  readonly shape: TreeShape;
}

interface Copying {
  /** Directories of volumes or snapshots. */
  readonly from: string;
  readonly to: string;
  readonly projectId?: number | undefined;
  readonly signal: AbortSignal;
}

export class TreeSnapshots {
  readonly #parts: TreeSnapshotParts;
  readonly #host: Host;

  constructor(parts: TreeSnapshotParts) {
    this.#parts = parts;
    this.#host = parts.context.host;
  }

  path(volume: string, snapshot: string): string {
    if (snapshot === '' || snapshot === '.' || snapshot === '..' || /[/\0]/u.test(snapshot)) {
      throw new AppError('invalid', `invalid snapshot name ${JSON.stringify(snapshot)}`);
    }
    return join(this.folder(volume), snapshot);
  }

  /** All snapshots of a volume. */
  folder(volume: string): string {
    const { layout } = this.#parts.pool;
    return join(
      layout.folder('containers-snapshots'),
      layout.instance(volume).slice(layout.folder('containers').length),
    );
  }

  async create(volume: string, snapshot: string, signal: AbortSignal): Promise<void> {
    const { layout } = this.#parts.pool;
    const path = this.path(volume, snapshot);
    if (await this.#host.exists(path)) {
      throw new AppError('conflict', `snapshot ${snapshot} of ${volume} exists in pool ${this.#parts.context.pool}`);
    }
    await this.#publish(path, { from: layout.instance(volume), signal });
  }

  /** Copies of snapshots for another volume, which is not there yet. */
  async copyAll(from: string, to: string, snapshots: readonly string[], signal: AbortSignal): Promise<void> {
    for (const snapshot of snapshots) {
      await this.#publish(this.path(to, snapshot), { from: this.path(from, snapshot), signal });
    }
  }

  /** Nobody sees it before it is complete. */
  async #publish(path: string, { from, signal }: Omit<Copying, 'to'>): Promise<void> {
    const { pool, context } = this.#parts;
    await using revert = new Reverter(context.log);
    const work = pool.workPath('snapshot');
    revert.add('snapshot', () => pool.removeTree(work));
    await this.copy({ from, to: work, signal });
    signal.throwIfAborted();
    await this.#host.makeDirectory(dirname(path), { mode: 0o711 });
    await this.#host.rename(work, path);
    revert.commit();
  }

  /** Returns the image that it was made from. What is left when another call was cut off goes as well. */
  async delete(volume: string, snapshot: string): Promise<string | null> {
    const path = this.path(volume, snapshot);
    const image = (await this.#host.exists(path)) ? (await readRecord(this.#host, path)).image : null;
    await this.#parts.pool.removePublished(path);
    await removeIfEmpty(dirname(path));
    return image;
  }

  async rename(volume: string, snapshot: string, newName: string): Promise<void> {
    await this.#host.rename(this.path(volume, snapshot), this.path(volume, newName));
  }

  async list(volume: string): Promise<readonly string[]> {
    return this.#host.list(this.folder(volume));
  }

  /** The volume is not mounted. What it was changes places with a copy of the snapshot, in one step. */
  async restore(volume: string, snapshot: string, signal: AbortSignal): Promise<void> {
    const { pool, context } = this.#parts;
    const path = pool.layout.instance(volume);
    const { projectId } = await readRecord(this.#host, path);
    await using revert = new Reverter(context.log); // never committed: what is left in the work folder is waste
    const work = pool.workPath('restore');
    revert.add('restored copy', () => pool.removeTree(work));
    await this.copy({ from: this.path(volume, snapshot), to: work, projectId, signal });
    signal.throwIfAborted();
    await this.#host.exchange(work, path);
  }

  /** A whole volume directory, into one that is made for it. */
  async copy({ from, to, projectId, signal }: Copying): Promise<void> {
    const { shape, quotas } = this.#parts;
    const { projectId: _old, ...record } = await readRecord(this.#host, from);
    await this.#host.makeDirectory(to, { mode: 0o100, fresh: true });
    const folders = new Set([...shape.emptyFolders, ...shape.quotaFolders, shape.freshContent]);
    for (const folder of folders) await this.#host.makeDirectory(join(to, folder), { mode: 0o711, fresh: true });
    if (projectId !== undefined) {
      for (const folder of shape.quotaFolders) await quotas.adopt(projectId, join(to, folder));
    }
    const paths = [join(from, shape.content(record)), join(to, shape.freshContent)] as const;
    const copy: Argv = ['cp', '-a', '--reflink=auto', '--one-file-system', '-T', '--', ...paths];
    await this.#host.run(copy, { signal, timeoutMs: COPY_LIMIT_MS });
    for (const file of BESIDE) {
      if (await this.#host.exists(join(from, file))) await this.#host.copyTree(join(from, file), join(to, file));
    }
    const upper = record.upper === undefined ? {} : { upper: shape.freshContent };
    await writeRecord(this.#host, to, { ...record, ...upper, ...(projectId !== undefined && { projectId }) });
  }
}
