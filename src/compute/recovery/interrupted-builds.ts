// Builds that were placed here but never claimed: nobody will go on with them (contract section 4.3, step 8).
import type { Log } from '#src/lib/log.ts';
import { VM_STATES } from '#src/nova/states.ts';
import type { Placement } from '#src/openstack/types.ts';
import { type Asking, instancesByFilters } from '../records.ts';

export interface InterruptedBuildParts {
  readonly asking: Asking;
  readonly placement: Placement;
  readonly log: Log;
  readonly providerUuid: string;
}

/** `known`: instances that were looked after already. */
export async function failInterruptedBuilds(
  { asking, placement, log, providerUuid }: InterruptedBuildParts,
  known: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<void> {
  const consumers = Object.keys(await placement.getProviderAllocations(providerUuid, signal));
  const unknown = consumers.filter((uuid) => !known.has(uuid));
  if (unknown.length === 0) return;
  for (const instance of await instancesByFilters(asking, { vm_state: VM_STATES.building, uuid: unknown }, [])) {
    instance.set('vm_state', VM_STATES.error).set('task_state', null);
    await asking.conductor.save(asking.context, instance);
    log.warn('build was interrupted', { instance: instance.get('uuid') });
  }
}
