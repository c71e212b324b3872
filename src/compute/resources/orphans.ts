// Allocations of what is over: a deletion or the end of a move that was cut short must not keep its room (contract section 4.7).
import { kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { MIGRATION_STATUSES } from '#src/nova/states.ts';
import type { Placement } from '#src/openstack/types.ts';
import { type Asking, findInstance, findMigrationOf } from '../records.ts';

export interface OrphanSearch {
  readonly providerUuid: string;
  /** Instances and migrations that are counted here. */
  readonly isKnown: (uuid: string) => boolean;
}

/**
 * A consumer that Nova does not know, or knows as alive, is left alone: it may be on its way here, or be of another cell.
 */
export async function removeOrphanAllocations(
  { asking, placement, log }: { readonly asking: Asking; readonly placement: Placement; readonly log: Log },
  { providerUuid, isKnown }: OrphanSearch,
  signal: AbortSignal,
): Promise<void> {
  const consumers = Object.keys(await placement.getProviderAllocations(providerUuid, signal));
  const reading = { ...asking, context: asking.context.withReadDeleted('yes') };
  for (const uuid of consumers.filter((consumer) => !isKnown(consumer))) {
    if (!(await isOver(reading, uuid))) continue;
    try {
      await placement.removeAllocations(uuid, signal);
      log.info('allocation of what is over removed', { consumer: uuid });
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      log.warn('allocation of what is over changed meanwhile, trying again next time', { consumer: uuid, error });
    }
  }
}

/** A deleted instance; or a move that is confirmed: its allocation was for the way back, and Placement was away when it was to go. */
async function isOver(asking: Asking, uuid: string): Promise<boolean> {
  const instance = await findInstance(asking, uuid, []);
  if (instance) return instance.find('deleted') === true && instance.find('hidden') !== true;
  return (await findMigrationOf(asking, uuid))?.get('status') === MIGRATION_STATUSES.confirmed;
}
