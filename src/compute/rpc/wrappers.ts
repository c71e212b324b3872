// What surrounds RPC methods (section 5.0): each wrapper is one rule, and a method lists its wrappers from outside in.
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { recordFault, withActionEvent } from '../faults.ts';
import type { ComputeServices } from '../types.ts';

/** One run of one method. */
export interface Invocation {
  readonly method: string;
  readonly context: RequestContext;
  /** The instance that the method is about, if it is about one. */
  readonly instance?: NovaObject<'Instance'>;
  /** The move that the method is a step of. */
  readonly migration?: NovaObject<'Migration'>;
}

export type Work = () => Promise<unknown>;
export type Wrapper = (services: ComputeServices, invocation: Invocation, work: Work) => Promise<unknown>;

/** Runs `work` inside of the wrappers; the first is the outermost. */
export function wrapped(
  services: ComputeServices,
  invocation: Invocation,
  wrappers: readonly Wrapper[],
  work: Work,
): Promise<unknown> {
  const run = wrappers.reduceRight<Work>((inner, wrapper) => () => wrapper(services, invocation, inner), work);
  return run();
}

/** X: consumers of notifications hear of every failure. */
export const notifyFailure: Wrapper = async ({ notifications }, { method, context, instance }, work) => {
  try {
    return await work();
  } catch (error) {
    const about = instance === undefined ? {} : { instanceUuid: instance.get('uuid') };
    notifications.failure(context, { method, error, ...about });
    throw error;
  }
};

/** T: a failed operation leaves no task behind, unless somebody else has given the instance another one. */
export const revertTaskState: Wrapper = async (services, { method, context, instance }, work) => {
  try {
    return await work();
  } catch (error) {
    if (instance !== undefined && !isNova(error, 'UnexpectedTaskStateError')) {
      await clearTask(services, context, instance).catch((cause: unknown) => {
        if (isNova(cause, 'InstanceNotFound')) return;
        services.log.warn('cannot clear the task of an instance', { method, instance, error: cause });
        services.underWay.leaveTask(instance.get('uuid'));
      });
    }
    throw error;
  }
};

async function clearTask(
  { conductor, tracker, config }: ComputeServices,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
): Promise<void> {
  instance.set('task_state', null);
  await conductor.save(context, instance);
  if (instance.find('host') === config.host) await tracker.updateUsage(context, instance);
}

/** E: the action of the user's request gets an event `compute_<method>` with its result. */
export const recordEvent: Wrapper = (services, { method, context, instance }, work) =>
  instance === undefined
    ? work()
    : withActionEvent(services, { context, instanceUuid: instance.get('uuid'), event: `compute_${method}` }, work);

/** F: the failure becomes the fault that `server show` tells. */
export const recordInstanceFault: Wrapper = async (services, { method, context, instance }, work) => {
  try {
    return await work();
  } catch (error) {
    if (instance !== undefined && !isNova(error, 'InstanceNotFound')) {
      const instanceUuid = instance.get('uuid');
      await recordFault(services, { context, instanceUuid, error }).catch((cause: unknown) => {
        services.log.warn('cannot record a fault', { method, instance: instanceUuid, error: cause });
      });
    }
    throw error;
  }
};

/** "+ mig": the migration of a failed step is in error. */
export const failMigration: Wrapper = async ({ conductor, log }, { method, context, migration }, work) => {
  try {
    return await work();
  } catch (error) {
    if (migration !== undefined) {
      migration.set('status', 'error');
      await conductor.save(context.elevated(), migration).catch((cause: unknown) => {
        log.warn('cannot mark a migration as failed', { method, migration, error: cause });
      });
    }
    throw error;
  }
};

/** The combinations of table 5.1. */
export const X: readonly Wrapper[] = [notifyFailure];
export const F: readonly Wrapper[] = [recordInstanceFault];
export const XF: readonly Wrapper[] = [notifyFailure, recordInstanceFault];
export const XEF: readonly Wrapper[] = [notifyFailure, recordEvent, recordInstanceFault];
export const XTF: readonly Wrapper[] = [notifyFailure, revertTaskState, recordInstanceFault];
export const XTEF: readonly Wrapper[] = [notifyFailure, revertTaskState, recordEvent, recordInstanceFault];
export const XEFM: readonly Wrapper[] = [...XEF, failMigration];
export const XTEFM: readonly Wrapper[] = [...XTEF, failMigration];
