// Builds that were placed here but never claimed: nobody will go on with them (contract section 4.3, step 8).
//
// Nova's own compute gives them up before it takes messages, and so those as well whose message still waits for it: users see an
// error that goes away by itself. Here the messages that wait are taken first.
import type { Log } from '#src/lib/log.ts';
import { isNova } from '#src/nova/exceptions.ts';
import { VM_STATES } from '#src/nova/states.ts';
import type { Placement } from '#src/openstack/types.ts';
import { type Asking, type Instance, instancesByFilters } from '../records.ts';
import type { InstanceOperations } from '../types.ts';

export interface InterruptedBuildParts {
  readonly asking: Asking;
  readonly operations: Pick<InstanceOperations, 'isBuilding'>;
  readonly log: Log;
}

/** To be asked before messages are taken. `known`: instances that are this host's already. */
export async function unclaimedConsumers(
  { placement, providerUuid }: { readonly placement: Placement; readonly providerUuid: string },
  known: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const consumers = Object.keys(await placement.getProviderAllocations(providerUuid, signal));
  return consumers.filter((uuid) => !known.has(uuid));
}

/** Those of `uuids` that are still to be built, by nobody. */
export async function failInterruptedBuilds(
  { asking, operations, log }: InterruptedBuildParts,
  uuids: readonly string[],
): Promise<void> {
  if (uuids.length === 0) return;
  const filters = { vm_state: VM_STATES.building, uuid: uuids };
  for (const instance of await instancesByFilters(asking, filters, [])) {
    const uuid = instance.get('uuid');
    if (operations.isBuilding(uuid) || (instance.find('host') ?? null) !== null) continue;
    if (await giveUp(asking, instance)) log.warn('build was interrupted', { instance: uuid });
  }
}

/** False: somebody has gone on with it meanwhile. */
async function giveUp({ conductor, context }: Asking, instance: Instance): Promise<boolean> {
  const expectedTaskState = [instance.find('task_state') ?? null];
  instance.set('vm_state', VM_STATES.error).set('task_state', null);
  try {
    await conductor.save(context, instance, { expectedTaskState });
    return true;
  } catch (error) {
    if (isNova(error, 'UnexpectedTaskStateError')) return false;
    throw error;
  }
}
