// What a failed step of a move leaves: the instance in error, or as it was before when nothing had been done to it yet.
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES, VM_STATES } from '#src/nova/states.ts';
import { findMigration } from '../records.ts';
import type { ComputeServices } from '../types.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

export interface Move {
  readonly instance: NovaObject<'Instance'>;
  readonly migration: NovaObject<'Migration'>;
}

/** Refused before anything was done: the instance goes on as it was; `cause` is what the caller and the owner see. */
export class Refusal extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
    this.name = 'Refusal';
  }
}

/** Clearing the task is left to the wrapper of the RPC method. */
export async function orError(
  { conductor, log }: Pick<ComputeServices, 'conductor' | 'log'>,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Refusal) throw error.cause;
    if (isNova(error, 'InstanceNotFound', 'UnexpectedDeletingTaskStateError')) throw error;
    instance.set('vm_state', VM_STATES.error);
    await conductor.save(context, instance).catch((cause: unknown) => {
      log.warn('cannot put an instance into error', { instance: instance.get('uuid'), error: cause });
    });
    throw error;
  }
}

/** Whether the guest goes to another host, or only gets another size on its own. */
export function isBetweenHosts({ migration }: Pick<Move, 'migration'>): boolean {
  return migration.get('source_compute') !== migration.get('dest_compute');
}

/** The message is for the host at that end of the move: a compute that was renamed, or a broken sender. */
export function refuseElsewhere({ migration }: Move, end: 'source_compute' | 'dest_compute', host: string): void {
  if (migration.get(end) === host) return;
  throw new Refusal(novaException('MigrationPreCheckError', { reason: `${host} is not an end of this migration` }));
}

/** What Nova knows of a move by now: messages are delivered late, and a step may have been done by a recovery. */
export async function statusNow(
  { conductor }: Pick<ComputeServices, 'conductor'>,
  context: RequestContext,
  migration: NovaObject<'Migration'>,
): Promise<string | null> {
  return (await findMigration({ conductor, context: context.elevated() }, migration.get('id'))).get('status');
}

/** Until the guest has left, the conductor's exchange of allocations can be taken back. */
export async function takeBackAllocation(
  { placement, log }: Pick<ComputeServices, 'placement' | 'log'>,
  { instance, migration }: Move,
): Promise<void> {
  const uuid = instance.get('uuid');
  await placement.moveAllocations(migration.get('uuid'), uuid, limited(UNDO_LIMIT_MS)).catch((error: unknown) => {
    log.error('cannot move back the allocation of an instance', { instance: uuid, error });
  });
}

/** The way back of the move is closed: its claim and its context go. */
export async function dropClaim(
  { conductor, tracker }: Pick<ComputeServices, 'conductor' | 'tracker'>,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
): Promise<void> {
  await tracker.keepRoom(instance, null);
  await conductor.objectMethod(context, instance, { method: 'drop_migration_context' });
}

/** The outcome of a move, unless it has been told already. */
export async function setStatus(
  { conductor }: Pick<ComputeServices, 'conductor'>,
  context: RequestContext,
  migration: NovaObject<'Migration'>,
  status: keyof typeof MIGRATION_STATUSES,
): Promise<void> {
  migration.set('status', MIGRATION_STATUSES[status]);
  await conductor.save(context.elevated(), migration);
}

export const wasStopped = (instance: NovaObject<'Instance'>): boolean =>
  instance.find('system_metadata')?.['old_vm_state'] === VM_STATES.stopped;

/** The move is over: what only it needed goes. Nothing of it decides anything any more, so a failure is only logged. */
export async function forgetFlavors(
  { conductor, log }: Pick<ComputeServices, 'conductor' | 'log'>,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
): Promise<void> {
  const { old_vm_state: _old, ...metadata } = instance.get('system_metadata');
  instance.set('old_flavor', null).set('new_flavor', null).set('system_metadata', metadata);
  await conductor.save(context, instance).catch((error: unknown) => {
    log.warn('cannot forget the flavors of a move', { instance: instance.get('uuid'), error });
  });
}

/** The numbers that Nova keeps beside the flavor. */
export function setFlavor(instance: NovaObject<'Instance'>, flavor: NovaObject<'Flavor'>): void {
  instance
    .set('flavor', flavor)
    .set('instance_type_id', flavor.get('id'))
    .set('memory_mb', flavor.get('memory_mb'))
    .set('vcpus', flavor.get('vcpus'))
    .set('root_gb', flavor.get('root_gb'))
    .set('ephemeral_gb', flavor.get('ephemeral_gb'));
}
