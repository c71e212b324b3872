// What the user and the administrator get to see of a failed operation: InstanceFault rows and results of action events.
import { asError } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { faultOf } from '#src/nova/exceptions.ts';
import { createObject } from '#src/nova/objects/object.ts';
import type { ComputeServices } from './types.ts';

export interface FaultOptions {
  /** Shown instead of the error's own text. */
  readonly message?: string;
}

/** Section 5.0 F: errors that are not Nova's are known to the owner by class only, their text is in `details`. */
export async function recordFault(
  { conductor, config }: Pick<ComputeServices, 'conductor' | 'config'>,
  { context, instanceUuid, error }: { context: RequestContext; instanceUuid: string; error: unknown },
  options: FaultOptions = {},
): Promise<void> {
  const fault = faultOf(error);
  const message = options.message === undefined ? fault.message : cutToColumn(options.message);
  const row = createObject('InstanceFault', {
    instance_uuid: instanceUuid,
    code: fault.code,
    message,
    details: fault.details,
    host: config.host,
  });
  await conductor.objectMethod(context, row, { method: 'create' });
}

/** Runs `work` between event_start and event_finish_with_failure (section 5.0 E). A start that fails prevents the work. */
export async function withActionEvent<T>(
  { conductor, config, log }: Pick<ComputeServices, 'conductor' | 'config' | 'log'>,
  { context, instanceUuid, event }: { context: RequestContext; instanceUuid: string; event: string },
  work: () => Promise<T>,
): Promise<T> {
  const call = async (method: string, kwargs: Readonly<Record<string, unknown>>): Promise<void> => {
    await conductor.classMethod(context, {
      object: 'InstanceActionEvent',
      method,
      args: [instanceUuid, event],
      kwargs: { ...kwargs, want_result: false },
    });
  };
  await call('event_start', { host: config.host });
  let result: T;
  try {
    result = await work();
  } catch (error) {
    const failure = { exc_val: faultOf(error).message, exc_tb: asError(error).stack ?? '' };
    await call('event_finish_with_failure', failure).catch((cause: unknown) => {
      log.warn('cannot record the failure of an action', { event, instance: instanceUuid, error: cause });
    });
    throw error;
  }
  await call('event_finish_with_failure', { exc_val: null, exc_tb: null });
  return result;
}

/** At most 255 bytes, as the column holds. */
function cutToColumn(message: string): string {
  const bytes = Buffer.from(message);
  return bytes.length <= 255
    ? message
    : bytes
        .subarray(0, 255)
        .toString()
        .replace(/\uFFFD+$/, '');
}
