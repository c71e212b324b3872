// The files of backups, under names that say nothing; written beside them until they are whole.
import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';

const PART = '.part';
const HOUR_MS = 3600_000;
type Context = Pick<EngineContext, 'database' | 'paths'>;

export class BackupFiles {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  path(file: string): string {
    return join(this.#directory, file);
  }

  /** Writes all of it to the disk; the file's name. Nothing stays when it fails. */
  async write(content: AsyncIterable<Buffer>): Promise<string> {
    const file = randomUUID();
    await using received = await this.receive(content);
    await rename(received.path, this.path(file));
    return file;
  }

  /** A file that is removed at the end of its scope. */
  async receive(content: AsyncIterable<Buffer>): Promise<AsyncDisposable & { readonly path: string }> {
    const path = this.scratchPath();
    const remove = (): Promise<void> => rm(path, { force: true });
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await pipeline(content, createWriteStream(path, { flags: 'wx', mode: 0o600, flush: true }));
    } catch (error) {
      await remove();
      throw isFull(error)
        ? new AppError('internal', 'No space left for the backup on the server', { cause: error })
        : error;
    }
    return { path, [Symbol.asyncDispose]: remove };
  }

  /** For a file that is needed while a backup is made; what is left there is removed at the next start. */
  scratchPath(): string {
    return this.path(`${randomUUID()}${PART}`);
  }

  /** Absent is success. */
  remove(file: string): Promise<void> {
    return rm(this.path(file), { force: true });
  }

  /** While others may be written: whole ones alone are looked at. */
  async removeUnknown(known: () => ReadonlySet<string>): Promise<void> {
    const entries = await readdir(this.#directory, { withFileTypes: true }).catch(() => []);
    const names = entries.flatMap((entry) => (entry.isFile() && !entry.name.endsWith(PART) ? [entry.name] : []));
    const old = await olderThan(
      HOUR_MS,
      names.map((name) => this.path(name)),
    );
    for (const path of old) if (!known().has(basename(path))) await rm(path, { force: true });
  }

  /** Removes what no backup knows, and tells what there is. */
  async sweep(known: ReadonlySet<string>): Promise<ReadonlySet<string>> {
    const names = await readdir(this.#directory).catch(() => []);
    for (const name of names) if (!known.has(name)) await rm(this.path(name), { force: true, recursive: true });
    return new Set(names);
  }
}

/** Newer ones may be about to get their row. */
async function olderThan(ageMs: number, paths: readonly string[]): Promise<readonly string[]> {
  const then = Date.now() - ageMs;
  const found = await Promise.all(
    paths.map(async (path) => ((await stat(path).catch(() => undefined))?.mtimeMs ?? Infinity) < then && path),
  );
  return found.filter((path) => path !== false);
}

function isFull(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOSPC' || code === 'EDQUOT';
}

export function instanceBackupFiles({ paths }: Pick<Context, 'paths'>): BackupFiles {
  return new BackupFiles(join(paths.backups, 'instances'));
}

/** The files of an instance that is deleted; its rows go with it. */
export async function removeBackups(context: Context, { id }: InstanceRecord): Promise<void> {
  const files = instanceBackupFiles(context);
  for (const { file } of context.database.backups.list(id)) await files.remove(file);
}
