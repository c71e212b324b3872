// Guests and records of deleted instances that were left behind (contract section 4.9).
import { RequestContext } from '#src/nova/context.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import type { VirtDriver } from '#drivers/virt/driver.ts';
import type { PeriodicConfig } from '../config/config.ts';
import { type Instance, instancesByFilters } from '../records.ts';
import type { InstanceOperations } from '../types.ts';

export interface DeletedGuestParts {
  readonly config: PeriodicConfig;
  readonly host: string;
  readonly conductor: Conductor;
  readonly virt: VirtDriver;
  readonly operations: InstanceOperations;
  readonly locks: KeyedLock;
  readonly log: Log;
  readonly now?: () => number;
}

const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;

/** Guests that run although Nova has deleted their instance: `running_deleted_instance_action`. */
export async function cleanUpRunningDeleted(parts: DeletedGuestParts, signal: AbortSignal): Promise<void> {
  const { config, conductor, virt, locks, log, now = Date.now } = parts;
  const guests = await virt.listInstances(signal);
  if (guests.length === 0 || config.runningDeletedInstanceAction === 'noop') return;
  const context = RequestContext.admin().withReadDeleted('yes');
  const filters = { deleted: true, soft_deleted: false, uuid: guests.map(({ uuid }) => uuid) };
  for (const instance of await instancesByFilters({ conductor, context }, filters, ATTRIBUTES)) {
    const uuid = instance.get('uuid');
    const deletedAt = instance.find('deleted_at')?.getTime() ?? 0;
    if (locks.isBusy(uuid) || now() - deletedAt < config.runningDeletedInstanceTimeoutMs) continue;
    log.warn('guest of a deleted instance found', { instance: uuid, action: config.runningDeletedInstanceAction });
    await act(parts, context, instance, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      log.error('guest of a deleted instance not removed', { instance: uuid, error });
    });
  }
}

async function act(
  { config, virt, operations }: DeletedGuestParts,
  context: RequestContext,
  instance: Instance,
  signal: AbortSignal,
): Promise<void> {
  const action = config.runningDeletedInstanceAction;
  if (action === 'reap') await operations.removeGuest(context, instance, signal);
  else if (action === 'shutdown') await virt.powerOff(instance.get('uuid'), { graceSeconds: 0 }, signal);
}

/** Deleted instances of this host whose disks are not known to be gone. */
export async function runPendingDeletes(parts: DeletedGuestParts, signal: AbortSignal): Promise<void> {
  const { config, conductor, host, locks, log } = parts;
  const context = RequestContext.admin().withReadDeleted('yes');
  const filters = { deleted: true, soft_deleted: false, host, cleaned: false };
  for (const instance of await instancesByFilters({ conductor, context }, filters, ['system_metadata'])) {
    const metadata = instance.get('system_metadata');
    const attempts = Number(metadata['clean_attempts'] ?? '0');
    if (attempts >= config.maximumInstanceDeleteAttempts || locks.isBusy(instance.get('uuid'))) continue;
    const isGone = await removeDisks(parts, instance, signal);
    instance.set('system_metadata', { ...metadata, clean_attempts: String(attempts + 1) });
    if (isGone) instance.set('cleaned', true);
    await conductor.save(context, instance);
    log.debug('deletion finished', { instance: instance.get('uuid'), isGone, attempt: attempts + 1 });
  }
}

async function removeDisks(
  { virt, log }: DeletedGuestParts,
  instance: Instance,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await virt.destroy(instance.get('uuid'), signal);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    log.warn('disks of a deleted instance not removed', { instance: instance.get('uuid'), error });
    return false;
  }
}

/** Soft-deleted instances whose time is over. */
export async function reclaimQueuedDeletes(parts: DeletedGuestParts, signal: AbortSignal): Promise<void> {
  const { config, conductor, host, operations, log, now = Date.now } = parts;
  const context = RequestContext.admin();
  const filters = { vm_state: 'soft-delete', task_state: null, host };
  for (const instance of await instancesByFilters({ conductor, context }, filters, ATTRIBUTES)) {
    const deletedAt = instance.find('deleted_at')?.getTime();
    if (deletedAt === undefined || now() - deletedAt < config.reclaimInstanceIntervalMs) continue;
    signal.throwIfAborted();
    log.info('reclaiming soft-deleted instance', { instance: instance.get('uuid') });
    await operations.terminate(context, instance).catch((error: unknown) => {
      log.error('soft-deleted instance not reclaimed', { instance: instance.get('uuid'), error });
    });
  }
}
