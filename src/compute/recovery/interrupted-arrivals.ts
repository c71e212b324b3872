// What this host had been told to take from elsewhere, and had not taken on when its process was killed: moves, evacuations and
// shelved instances. No record names this host yet; all that shows it is that the instance has resources here.
import type { Log } from '#src/lib/log.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES as STATUS, MIGRATION_TYPES, TASK_STATES as TASK, VM_STATES } from '#src/nova/states.ts';
import { type Asking, type Instance, instancesByFilters } from '../records.ts';
import type { InstanceOperations, MoveStep } from '../types.ts';
import { ATTRIBUTES } from './init-host.ts';
import { newestMove } from './interrupted-moves.ts';

export interface ArrivalParts {
  readonly asking: Asking;
  readonly operations: Pick<InstanceOperations, 'isBuilding' | 'repeatMoveStep' | 'undoUnshelve'>;
  readonly log: Log;
  readonly host: string;
  /** Whether something is being done to that instance. */
  readonly isBusy: (uuid: string) => boolean;
}

const UNSHELVING: ReadonlySet<string | null> = new Set([TASK.unshelving, TASK.spawning]);
const TASKS = [TASK.resizePrep, TASK.rebuilding, ...UNSHELVING];

/**
 * `uuids`: instances that have resources here. To be asked when the messages that waited have been taken: the instance of one that
 * comes later still is as if the move had failed on the way. What cannot be recovered is logged.
 */
export async function giveUpArrivals(parts: ArrivalParts, uuids: readonly string[]): Promise<void> {
  if (uuids.length === 0) return;
  const { asking, host, isBusy, log } = parts;
  for (const instance of await instancesByFilters(asking, { task_state: TASKS, uuid: uuids }, ATTRIBUTES)) {
    const uuid = instance.get('uuid');
    if (isBusy(uuid) || instance.get('host') === host) continue;
    await giveUp(parts, instance).catch((error: unknown) => {
      log.error('an arrival that was interrupted is not taken back', { instance: uuid, error });
    });
  }
}

async function giveUp({ asking, operations, log, host }: ArrivalParts, instance: Instance): Promise<void> {
  const about = { instance: instance.get('uuid'), task: instance.get('task_state') };
  if (UNSHELVING.has(instance.get('task_state'))) {
    if (instance.get('vm_state') !== VM_STATES.shelvedOffloaded || instance.get('host') !== null) return;
    log.warn('unshelving was interrupted', about);
    return await operations.undoUnshelve(asking.context, instance);
  }
  const migration = await newestMove(asking, instance.get('uuid'));
  const step = migration && stepFor(instance, migration, host);
  if (!step) return;
  log.warn('move was interrupted', about);
  await operations.repeatMoveStep(asking.context, step, { instance, migration });
}

/** Undefined for one that this host has claimed: that is under way, or was gone on with at the start. */
function stepFor(instance: Instance, migration: NovaObject<'Migration'>, host: string): MoveStep | undefined {
  const status = migration.get('status');
  const isEvacuation = migration.get('migration_type') === MIGRATION_TYPES.evacuation;
  if (instance.get('task_state') === TASK.rebuilding) {
    return isEvacuation && status === STATUS.accepted ? 'fail evacuation' : undefined;
  }
  // another host's name is of one that was tried before
  const isClaimed = isEvacuation || status !== STATUS.preMigrating || migration.get('dest_compute') === host;
  return isClaimed ? undefined : 'give up';
}
