// An instance whose record was lost and is there again, while its container ran on.
import { idMapOf, type IdMapRange, type IdRange } from '#src/host/id-map.ts';
import type { InstanceRecord } from '../db/records.ts';
import { idMapJson } from './idmap.ts';
import { instancePaths, lockKey } from './instance-paths.ts';
import { reconcileOne, type ReconcileParts } from './reconcile.ts';

/** Ids of the host that none are left of: those of a process outside of all containers. */
const WHOLE = 2 ** 32 - 1;

/** Nothing is done for one that does not run. */
export async function adoptRunning(
  parts: ReconcileParts,
  { project, name }: Pick<InstanceRecord, 'project' | 'name'>,
  signal: AbortSignal,
): Promise<void> {
  const { context, runtime } = parts;
  const { database, host, locks } = context;
  const adopt = async (): Promise<void> => {
    const record = database.instances.get(project, name);
    const { container } = instancePaths(context.paths, record);
    if ((await runtime.state(container, signal)) === 'stopped') return;
    const pid = await runtime.initPid(container, signal);
    if (pid === undefined) return;
    const [uids, gids] = await Promise.all(['uid', 'gid'].map((kind) => host.readFile(`/proc/${pid}/${kind}_map`)));
    const found = {
      'volatile.idmap.current': idMapJson(mapOf(uids ?? '', gids ?? '')),
      'volatile.last_state.power': 'RUNNING',
    };
    database.instances.update(record.id, { config: { ...record.config, ...found } });
    await reconcileOne(parts, database.instances.get(project, name), signal);
  };
  await locks.run(lockKey({ project, name }), adopt, signal);
}

/** null: privileged. */
export function mapOf(uids: string, gids: string): IdMapRange | null {
  const ranges = [...rangesOf('uid', uids), ...rangesOf('gid', gids)];
  return ranges.some(({ size }) => size === WHOLE) ? null : idMapOf(ranges);
}

function rangesOf(kind: IdRange['kind'], text: string): readonly IdRange[] {
  return text
    .split('\n')
    .map((line) => line.trim().split(/\s+/u).map(Number))
    .filter((numbers) => numbers.length === 3)
    .map(([containerId = 0, hostId = 0, size = 0]) => ({ kind, containerId, hostId, size }));
}
