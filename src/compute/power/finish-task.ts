// The end of an operation on the power of a guest.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';

export interface Ending {
  readonly instance: NovaObject<'Instance'>;
  readonly vmState: string;
  readonly expectedTaskState: string | readonly string[];
}

/** The task is done: the state that the guest is in now, unless another task has begun. */
export async function finishTask(
  { virt, conductor }: Pick<ComputeServices, 'virt' | 'conductor'>,
  context: RequestContext,
  { instance, vmState, expectedTaskState }: Ending,
  signal: AbortSignal,
): Promise<void> {
  const powerState = await virt.powerState(instance.get('uuid'), signal);
  const fields = { power_state: powerState, vm_state: vmState, task_state: null };
  await transition({ conductor, context }, instance, fields, { expectedTaskState });
}
