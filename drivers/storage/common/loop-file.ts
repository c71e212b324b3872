// Files that pools are made on: where they lie, and how big they are.
import { basename, dirname, join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { unfinishedName } from '#src/host/unfinished.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { StorageContext } from '../driver.ts';
import { checkName } from './layout.ts';
import { parseSizeBytes } from './size.ts';

const GIB = 2 ** 30;

export function loopFilePath({ disksPath, pool }: Pick<StorageContext, 'disksPath' | 'pool'>): string {
  return join(disksPath, `${checkName('pool', pool)}.img`);
}

/** A sparse file of the pool's `size`, which by default is LXD's. AppError 'conflict', touching nothing, when it is there. */
export async function makeLoopFile(
  { host, log, pool, config }: StorageContext,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  if (await host.exists(path)) throw new AppError('conflict', `loop file ${path} of pool ${pool} exists`);
  const { size = '' } = config;
  await host.makeDirectory(dirname(path), { mode: 0o700 });
  const bytes = size === '' ? await defaultBytes(host, dirname(path)) : parseSizeBytes(size);
  await using revert = new Reverter(log);
  revert.add(`loop file ${path}`, () => host.removeTree(path));
  await host.writeFile(path, '', { mode: 0o600 });
  await host.run(['truncate', '-s', String(bytes), path], { signal });
  revert.commit();
}

/** With what a killed process had begun to write. Absent is success. */
export async function discardLoopFile(host: StorageContext['host'], path: string): Promise<void> {
  await host.removeTree(join(dirname(path), unfinishedName(basename(path))));
  await host.removeTree(path);
}

/** LXD's (contract section 3.4): a fifth of what is free, at least 5 GiB, at most 30. */
async function defaultBytes(host: StorageContext['host'], folder: string): Promise<number> {
  const { totalBytes, usedBytes } = await host.usage(folder);
  const fifth = Math.floor((totalBytes - usedBytes) / 5 / GIB) * GIB;
  return Math.min(Math.max(fifth, 5 * GIB), 30 * GIB);
}

/** As LXD records sizes: in GiB where that is exact. */
export function sizeText(bytes: number): string {
  return bytes % GIB === 0 ? `${bytes / GIB}GiB` : String(bytes);
}
