// Old logs go: those of instances that are gone, and what instances left there beside the logs of their present life.
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Service } from '#src/lib/service.ts';
import { sleep } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import { hostName } from './instance-paths.ts';

const MAX_AGE_MS = 48 * 3_600_000;
const PERIOD_MS = 24 * 3_600_000;
const FIRST_MS = 60_000;
/** Of the present life. */
const KEPT = new Set(['lxc.conf', 'lxc.log', 'lxc.log.old', 'console.log', 'forkexec.log', 'forkstart.log']);

type Context = Pick<EngineContext, 'database' | 'log' | 'paths'>;

/** One round. */
export async function expireLogs({ database, log, paths }: Context, now = Date.now()): Promise<void> {
  const known = new Set(database.instances.list().map((record) => hostName(record)));
  for (const entry of await readdir(paths.logs, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const directory = join(paths.logs, entry.name);
    try {
      await expireDirectory(directory, { isKnown: known.has(entry.name), now });
    } catch (error) {
      log.warn('old logs could not be removed', { directory, error });
    }
  }
}

async function expireDirectory(directory: string, { isKnown, now }: { isKnown: boolean; now: number }): Promise<void> {
  const names = await readdir(directory);
  let left = names.length;
  for (const name of names) {
    if (isKnown && KEPT.has(name)) continue;
    const path = join(directory, name);
    if (now - (await stat(path)).mtimeMs < MAX_AGE_MS) continue;
    await rm(path, { recursive: true, force: true });
    left--;
  }
  if (!isKnown && left === 0) await rm(directory, { recursive: true, force: true });
}

/** Shortly after the start, and daily. */
export function logExpiry(context: Context): Service {
  const end = new AbortController();
  const run = async () => {
    await sleep(FIRST_MS, end.signal);
    for (;;) {
      await expireLogs(context);
      await sleep(PERIOD_MS, end.signal);
    }
  };
  return {
    name: 'expiry of logs',
    start: async () => {
      void run().catch((error: unknown) => {
        if (!end.signal.aborted) context.log.error('logs are not expired any more', { error });
      });
    },
    stop: async () => end.abort(),
  };
}
