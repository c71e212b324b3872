// Moves that a killed process left half done are gone on with, or undone, before this host takes work.
import { inParallel } from '../in-parallel.ts';
import type { Log } from '#src/lib/log.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES as STATUS, MIGRATION_TYPES, TASK_STATES } from '#src/nova/states.ts';
import { type Asking, findInstance, type Instance, migrationsByFilters } from '../records.ts';
import type { InstanceOperations, MoveRecords } from '../types.ts';
import { movePlan } from './move-plan.ts';

type Migration = NovaObject<'Migration'>;

export interface MoveRecoveryParts {
  readonly asking: Asking;
  readonly operations: InstanceOperations;
  readonly log: Log;
  readonly host: string;
}

const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;
const UNDER_WAY = [
  STATUS.preMigrating,
  STATUS.migrating,
  STATUS.postMigrating,
  STATUS.finished,
  STATUS.confirming,
  STATUS.reverting,
] as const;
const TYPES: ReadonlySet<string> = new Set([
  MIGRATION_TYPES.migration,
  MIGRATION_TYPES.resize,
  MIGRATION_TYPES.evacuation,
]);
const AT_ONCE = 8;

/** `instances`: those that Nova has on this host. */
export async function recoverMoves(
  parts: MoveRecoveryParts,
  instances: readonly Instance[],
  signal: AbortSignal,
): Promise<void> {
  const { asking, host } = parts;
  const migrations = await migrationsByFilters(asking, { host, status: UNDER_WAY });
  await inParallel(migrations, AT_ONCE, async (migration) => {
    signal.throwIfAborted();
    if (!TYPES.has(migration.get('migration_type'))) return;
    const instance = await findInstance(asking, migration.get('instance_uuid') ?? '', ATTRIBUTES);
    if (instance) await recoverMove(parts, { instance, migration }, signal);
  });
  // the word to the source was lost, or this host's own part
  const reverting = instances.filter((instance) => instance.get('task_state') === TASK_STATES.resizeReverting);
  await inParallel(reverting, AT_ONCE, async (instance) => {
    const newest = await newestMove(asking, instance.get('uuid'));
    if (newest?.get('status') === STATUS.reverted) await recoverMove(parts, { instance, migration: newest }, signal);
  });
}

/** What cannot be recovered is logged, and never keeps the service from starting. */
export async function recoverMove(
  { asking, operations, log, host }: MoveRecoveryParts,
  move: MoveRecords,
  signal: AbortSignal,
): Promise<void> {
  const { instance, migration } = move;
  const step = movePlan({
    status: migration.get('status'),
    isEvacuation: migration.get('migration_type') === MIGRATION_TYPES.evacuation,
    source: migration.get('source_compute'),
    destination: migration.get('dest_compute'),
    own: host,
    place: instance.get('host'),
    taskState: instance.get('task_state'),
    vmState: instance.get('vm_state'),
  });
  if (step === null) return;
  const about = { instance: instance.get('uuid'), migration: migration.get('uuid'), step };
  log.info('move was interrupted', about);
  await operations.repeatMoveStep(asking.context, step, move).catch((error: unknown) => {
    signal.throwIfAborted();
    log.error('move could not be recovered', { ...about, error });
  });
}

/** Cold migration, resize or evacuation, whatever became of it. */
export async function newestMove(asking: Asking, instanceUuid: string): Promise<Migration | undefined> {
  const all = await migrationsByFilters(asking, { instance_uuid: instanceUuid });
  const moves = all.filter((migration) => TYPES.has(migration.get('migration_type')));
  return moves.toSorted((a, b) => b.get('id') - a.get('id'))[0];
}
