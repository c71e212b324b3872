// Guests that were evacuated while this host was down: Nova runs them elsewhere, so they must not run here (section 4.3).
import { kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { MIGRATION_STATUSES, MIGRATION_TYPES } from '#src/nova/states.ts';
import type { Placement } from '#src/openstack/types.ts';
import { type Asking, findInstance, migrationsByFilters } from '../records.ts';
import type { InstanceOperations } from '../types.ts';

export interface EvacuationParts {
  readonly asking: Asking;
  readonly placement: Placement;
  readonly operations: InstanceOperations;
  readonly log: Log;
  readonly host: string;
  readonly providerUuid: string;
}

const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;

/** Returns the instances that were evacuated; they are no longer this host's. */
export async function removeEvacuated(parts: EvacuationParts, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const { asking, placement, operations, log, host, providerUuid } = parts;
  const { conductor } = asking;
  const context = asking.context.withReadDeleted('yes');
  const migrations = await migrationsByFilters(
    { conductor, context },
    {
      source_compute: host,
      status: [MIGRATION_STATUSES.accepted, MIGRATION_STATUSES.preMigrating, MIGRATION_STATUSES.done],
      migration_type: MIGRATION_TYPES.evacuation,
    },
  );
  const evacuated = new Set<string>();
  for (const migration of migrations) {
    const uuid = migration.get('instance_uuid') ?? '';
    const instance = await findInstance({ conductor, context }, uuid, ATTRIBUTES);
    // accepted, but never rebuilt elsewhere: still ours
    if (instance?.get('host') === host) continue;
    evacuated.add(uuid);
    if (instance) await operations.removeGuest(context, instance, signal);
    await placement.removeFromAllocations(uuid, providerUuid, signal).catch((error: unknown) => {
      if (kindOf(error) !== 'conflict') throw error;
      log.warn('allocation of an evacuated instance changed meanwhile', { instance: uuid, error });
    });
    migration.set('status', MIGRATION_STATUSES.completed);
    await conductor.save(context, migration);
    log.info('evacuated instance removed from this host', { instance: uuid });
  }
  return evacuated;
}
