// Allocations of instances that are gone: a deletion that was cut short must not keep its room (contract section 4.7).
import { kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Placement } from '#src/openstack/types.ts';
import { type Asking, findInstance } from '../records.ts';

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
    const instance = await findInstance(reading, uuid, []);
    if (instance?.find('deleted') !== true || instance.find('hidden') === true) continue;
    try {
      await placement.removeAllocations(uuid, signal);
      log.info('allocation of a deleted instance removed', { instance: uuid });
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      log.warn('allocation of a deleted instance changed meanwhile, trying again next time', { instance: uuid, error });
    }
  }
}
