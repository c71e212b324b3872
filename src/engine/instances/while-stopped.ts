// An instance that is stopped for a moment only is noted on disk: when the daemon is killed in that moment, the next one starts it again.
import { rm } from 'node:fs/promises';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { type InstanceKey, instancePaths } from './instance-paths.ts';

type Noting = Pick<EngineContext, 'host' | 'paths'>;

/** `work` stops the instance and starts it again; by the holder of its lock. */
export async function whileStopped<T>({ host, paths }: Noting, key: InstanceKey, work: () => Promise<T>): Promise<T> {
  const { startsAgain } = instancePaths(paths, key);
  await host.writeFile(startsAgain, '', { mode: 0o600 });
  try {
    return await work();
  } finally {
    await forgetStartAgain({ paths }, key);
  }
}

export async function forgetStartAgain({ paths }: Pick<Noting, 'paths'>, key: InstanceKey): Promise<void> {
  await rm(instancePaths(paths, key).startsAgain, { force: true });
}

export function startsAgain({ host, paths }: Noting, key: InstanceKey): Promise<boolean> {
  return host.exists(instancePaths(paths, key).startsAgain);
}

/** Those that a daemon was killed over. */
export async function startAgain({ database, host, paths }: EngineContext): Promise<readonly InstanceRecord[]> {
  const found: InstanceRecord[] = [];
  for (const record of database.instances.list()) {
    if (await startsAgain({ host, paths }, record)) found.push(record);
  }
  return found;
}
