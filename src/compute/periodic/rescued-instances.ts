// Instances that have been rescued for too long (_poll_rescued_instances, contract section 4.9): what the API does on unrescue.
import type { Log } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import { ACTIONS, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { type Instance, instancesByFilters } from '../records.ts';
import { castStep } from '../resize/cast-step.ts';
import type { ComputeServices } from '../types.ts';

/** What the operation needs of the record. */
const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;

type Parts = Pick<ComputeServices, 'config' | 'conductor' | 'rpc'> & { readonly log: Log };

export async function endOldRescues(parts: Parts): Promise<void> {
  const { config, conductor, log } = parts;
  const context = RequestContext.admin();
  const filters = { vm_state: VM_STATES.rescued, task_state: null, host: config.host };
  const newest = Date.now() - config.periodic.rescueTimeoutMs;
  for (const instance of await instancesByFilters({ conductor, context }, filters, ATTRIBUTES)) {
    if ((instance.get('launched_at')?.getTime() ?? Date.now()) > newest) continue;
    await end(parts, context, instance).catch((error: unknown) => {
      log.error('cannot end a rescue, trying again later', { instance: instance.get('uuid'), error });
    });
  }
}

async function end({ config, conductor, rpc, log }: Parts, context: RequestContext, instance: Instance): Promise<void> {
  instance.set('task_state', TASK_STATES.unrescuing);
  await conductor.save(context, instance, { expectedTaskState: null });
  await conductor.classMethod(context, {
    object: 'InstanceAction',
    method: 'action_start',
    args: [instance.get('uuid'), ACTIONS.unrescue],
    kwargs: { want_result: false },
  });
  log.info('ending a rescue that nobody ended', { instance: instance.get('uuid') });
  await castStep({ rpc, host: config.host }, context, 'unrescue_instance', { instance });
}
