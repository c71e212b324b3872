// A move that does not take place: what its preparation gave the instance goes.
import type { RequestContext } from '#src/nova/context.ts';
import { MIGRATION_STATUSES, MIGRATION_TYPES } from '#src/nova/states.ts';
import { type Instance, migrationsByFilters } from '../records.ts';
import type { ComputeServices } from '../types.ts';
import { dropClaim, forgetFlavors, setStatus, takeBackAllocation } from './failing.ts';
import { discardAtDestination } from './peer.ts';

const UNDER_WAY = [
  MIGRATION_STATUSES.preMigrating,
  MIGRATION_STATUSES.migrating,
  MIGRATION_STATUSES.postMigrating,
] as const;
const TYPES: ReadonlySet<string> = new Set([MIGRATION_TYPES.migration, MIGRATION_TYPES.resize]);

/** Nova's record of the move is the caller's. */
export async function takeBackMove(
  services: ComputeServices,
  context: RequestContext,
  instance: Instance,
  signal: AbortSignal,
): Promise<void> {
  await services.virt.moves.withdraw(instance.get('uuid'), signal);
  await dropClaim(services, context, instance);
  await forgetFlavors(services, context, instance);
}

/** The process that ran it was killed before the instance was the destination's; its task is the caller's. */
export async function abandonMove(
  services: ComputeServices,
  context: RequestContext,
  instance: Instance,
  signal: AbortSignal,
): Promise<void> {
  const filters = { instance_uuid: instance.get('uuid'), status: UNDER_WAY };
  for (const migration of await migrationsByFilters({ conductor: services.conductor, context }, filters)) {
    if (!TYPES.has(migration.get('migration_type'))) continue;
    await takeBackAllocation(services, { instance, migration });
    await setStatus(services, context, migration, 'error');
    await discardAtDestination(services, context, { instance, migration });
  }
  await takeBackMove(services, context, instance, signal);
}
