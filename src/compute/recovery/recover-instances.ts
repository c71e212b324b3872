// Carries out the recovery plans of this host's instances at start (contract section 4.6).
import type { Log } from '#src/lib/log.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import {
  MIGRATION_STATUSES,
  MIGRATION_TYPES,
  type PowerState,
  POWER_STATES,
  TASK_STATES,
  VM_STATES,
} from '#src/nova/states.ts';
import type { Conductor } from '#src/nova/types.ts';
import { inParallel } from '../in-parallel.ts';
import { type Instance, migrationsByFilters } from '../records.ts';
import type { InstanceOperations } from '../types.ts';
import { recoveryPlan, type RecoveryStep } from './recovery-plan.ts';

export interface RecoveryParts {
  readonly context: RequestContext;
  readonly conductor: Conductor;
  readonly operations: InstanceOperations;
  readonly log: Log;
  readonly resumesGuests: boolean;
}

/** So many at once: a shutdown that takes its minute must not hold up the others. */
const AT_ONCE = 8;

/** An instance that cannot be recovered is logged, and never keeps the service from starting. */
export async function recoverInstances(
  parts: RecoveryParts,
  instances: readonly Instance[],
  powers: ReadonlyMap<string, PowerState>,
  signal: AbortSignal,
): Promise<void> {
  await inParallel(instances, AT_ONCE, async (instance) => {
    signal.throwIfAborted();
    const uuid = instance.get('uuid');
    const plan = recoveryPlan({
      vmState: instance.get('vm_state'),
      oldVmState: instance.find('system_metadata')?.['old_vm_state'] ?? null,
      taskState: instance.get('task_state'),
      recordedPower: instance.get('power_state'),
      power: powers.get(uuid) ?? POWER_STATES.nostate,
      resumesGuests: parts.resumesGuests,
    });
    if (plan.some((step) => step !== 'plug')) parts.log.info('instance was interrupted', { instance: uuid, plan });
    try {
      for (const step of plan) await STEPS[step](parts, instance, signal);
    } catch (error) {
      await failedStep(parts, instance, error);
    }
  });
}

type Step = (parts: RecoveryParts, instance: Instance, signal: AbortSignal) => Promise<void>;

const STEPS: Readonly<Record<RecoveryStep, Step>> = {
  'complete deletion': ({ operations, context }, instance) => operations.completeDeletion(context, instance),
  fail: setError,
  'clear task': async ({ conductor, context }, instance) => {
    instance.set('task_state', null);
    await conductor.save(context, instance);
  },
  'make active': async ({ conductor, context }, instance) => {
    instance.set('task_state', null).set('vm_state', VM_STATES.active);
    await conductor.save(context, instance);
  },
  terminate: async (parts, instance) => {
    try {
      await parts.operations.terminate(parts.context, instance);
    } catch (error) {
      parts.log.error('interrupted deletion failed again', { instance: instance.get('uuid'), error });
      await setError(parts, instance);
    }
  },
  'escalate to hard reboot': async ({ conductor, context }, instance) => {
    instance.set('task_state', TASK_STATES.rebootPendingHard);
    await conductor.save(context, instance);
  },
  'reboot hard': ({ operations, context }, instance) => operations.reboot(context, instance, 'HARD'),
  'reboot soft': ({ operations, context }, instance) => operations.reboot(context, instance, 'SOFT'),
  unpause: ({ operations, context }, instance) => operations.unpause(context, instance),
  stop: ({ operations, context }, instance) => operations.stop(context, instance, true),
  start: ({ operations, context }, instance) => operations.start(context, instance),
  'undo rescue': ({ operations, context }, instance) => operations.undoRescue(context, instance),
  'undo unshelving': ({ operations, context }, instance) => operations.undoUnshelve(context, instance),
  offload: ({ operations, context }, instance) => operations.offloadShelved(context, instance),
  'do again': doAgain,
  unrescue: ({ operations, context }, instance) => operations.unrescue(context, instance),
  plug: async (parts, instance, signal) => {
    try {
      await parts.operations.plugInterfaces(parts.context, instance, signal);
    } catch (error) {
      signal.throwIfAborted();
      parts.log.error('interfaces cannot be plugged', { instance: instance.get('uuid'), error });
      await setError(parts, instance);
    }
  },
  'fail live migration': failLiveMigration,
  'abandon move': ({ operations, context }, instance, signal) => operations.abandonMove(context, instance, signal),
  'resume guest': ({ operations, context }, instance, signal) => operations.resumeGuest(context, instance, signal),
};

const AGAIN = {
  [TASK_STATES.pausing]: 'pause',
  [TASK_STATES.suspending]: 'suspend',
  [TASK_STATES.resuming]: 'resume',
  [TASK_STATES.softDeleting]: 'softDelete',
  [TASK_STATES.restoring]: 'restore',
} as const;

/** A failure leaves no task behind, as one of the RPC does not. */
async function doAgain({ operations, conductor, context }: RecoveryParts, instance: Instance): Promise<void> {
  const work = Object.entries(AGAIN).find(([task]) => task === instance.get('task_state'))?.[1];
  if (!work) return;
  try {
    await operations[work](context, instance);
  } catch (error) {
    instance.set('task_state', null);
    await conductor.save(context, instance);
    throw error;
  }
}

async function setError({ conductor, context }: RecoveryParts, instance: Instance): Promise<void> {
  instance.set('vm_state', VM_STATES.error).set('task_state', null);
  await conductor.save(context, instance);
}

async function failLiveMigration({ conductor, context }: RecoveryParts, instance: Instance): Promise<void> {
  const filters = {
    instance_uuid: instance.get('uuid'),
    status: MIGRATION_STATUSES.running,
    migration_type: MIGRATION_TYPES.liveMigration,
  };
  for (const migration of await migrationsByFilters({ conductor, context }, filters)) {
    migration.set('status', MIGRATION_STATUSES.error);
    await conductor.save(context, migration);
  }
}

/** The operations have put the instance into a consistent state themselves. */
async function failedStep({ log }: RecoveryParts, instance: Instance, error: unknown): Promise<void> {
  const about = { instance: instance.get('uuid'), error };
  if (isNova(error, 'InstanceNotFound')) log.info('instance was deleted meanwhile', about);
  else log.error('instance could not be recovered', about);
}
