// A folder that goes with the last of what was in it.
import { rmdir } from 'node:fs/promises';

const STAYS: ReadonlySet<unknown> = new Set(['ENOTEMPTY', 'EEXIST', 'ENOENT']);

/** With something in it, it stays; absent is success. */
export async function removeIfEmpty(path: string): Promise<void> {
  await rmdir(path).catch((error: NodeJS.ErrnoException) => {
    if (!STAYS.has(error.code)) throw error;
  });
}
