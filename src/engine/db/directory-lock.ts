// One daemon per directory: a lock that the kernel drops when its holder is gone, however it went.
import { AppError } from '#src/lib/errors.ts';
import { isBusy, Sqlite } from './sqlite.ts';

/** AppError 'conflict' when another process holds it. */
export function lockDirectory(path: string): Disposable {
  const sqlite = new Sqlite(path, { waitMs: 0, wal: false });
  try {
    sqlite.script('BEGIN EXCLUSIVE');
  } catch (error) {
    sqlite[Symbol.dispose]();
    if (!isBusy(error)) throw error;
    throw new AppError('conflict', `another daemon is running on this directory (it holds ${path})`, { cause: error });
  }
  return sqlite;
}
