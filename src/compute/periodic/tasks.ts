// The periodic tasks of this compute and their spacings (contract section 4.9).
import { RequestContext } from '#src/nova/context.ts';
import { createSchedulerClient, type SchedulerClient } from '#src/nova/scheduler.ts';
import { VM_STATES } from '#src/nova/states.ts';
import { instancesByFilters } from '../records.ts';
import { removeStrays } from '../recovery/stray-guests.ts';
import type { ComputeServices, InstanceOperations } from '../types.ts';
import {
  cleanUpRunningDeleted,
  type DeletedGuestParts,
  reclaimQueuedDeletes,
  runPendingDeletes,
} from './deleted-guests.ts';
import { endOldRescues } from './rescued-instances.ts';
import { offloadShelved } from './shelved-instances.ts';
import { confirmOldResizes } from './unconfirmed-resizes.ts';
import { auditUsage } from './usage-audit.ts';
import type { PowerSync } from './power-sync.ts';
import type { PeriodicTask } from './runner.ts';

export interface TaskParts {
  readonly services: ComputeServices;
  readonly operations: InstanceOperations;
  readonly powerSync: PowerSync;
  /** ResourceTracker.update: not part of what operations may call. */
  readonly updateResources: (context: RequestContext, signal: AbortSignal) => Promise<void>;
}

export function periodicTasks(parts: TaskParts): readonly PeriodicTask[] {
  const { services, operations, powerSync, updateResources } = parts;
  const { config, conductor, virt, locks, log } = services;
  const { periodic, power, resources } = config;
  const deleted: DeletedGuestParts = { config: periodic, host: config.host, conductor, virt, operations, locks, log };
  return [
    {
      name: 'update_available_resource',
      spacingMs: resources.updateIntervalMs,
      run: (signal) => updateResources(RequestContext.admin(), signal),
    },
    {
      name: '_sync_power_states',
      spacingMs: power.syncIntervalMs,
      isImmediate: true,
      run: (signal) => powerSync.syncAll(signal),
    },
    {
      name: '_cleanup_running_deleted_instances',
      spacingMs: periodic.runningDeletedInstancePollIntervalMs,
      isImmediate: true,
      run: (signal) => cleanUpRunningDeleted(deleted, signal),
    },
    {
      name: '_run_pending_deletes',
      spacingMs: periodic.instanceDeleteIntervalMs,
      run: (signal) => runPendingDeletes(deleted, signal),
    },
    {
      name: '_cleanup_expired_console_auth_tokens',
      spacingMs: periodic.instanceDeleteIntervalMs,
      run: async () => {
        const call = { object: 'ConsoleAuthToken', method: 'clean_expired_console_auths' } as const;
        await conductor.classMethod(RequestContext.admin(), call);
      },
    },
    strayGuestsTask(services),
    ...optionalTasks(services, deleted, operations),
  ];
}

function strayGuestsTask({ config, conductor, virt, locks, log }: ComputeServices): PeriodicTask {
  return {
    name: '_cleanup_incomplete_migrations',
    spacingMs: config.periodic.instanceDeleteIntervalMs,
    run: (signal) => {
      const asking = { conductor, context: RequestContext.admin() };
      return removeStrays({ asking, log, host: config.host, virt, locks }, signal);
    },
  };
}

/** Tasks that the configuration switches on; without it they would ask Nova for nothing. */
function optionalTasks(
  services: ComputeServices,
  deleted: DeletedGuestParts,
  operations: InstanceOperations,
): readonly PeriodicTask[] {
  const { config, rpc } = services;
  const tasks: PeriodicTask[] = [];
  if (config.periodic.trackInstanceChanges) {
    const scheduler = createSchedulerClient(rpc);
    tasks.push({
      name: '_sync_scheduler_instance_info',
      spacingMs: config.periodic.schedulerInstanceSyncIntervalMs,
      run: () => syncSchedulers(services, scheduler),
    });
  }
  if (config.build.instanceBuildTimeoutMs > 0) {
    tasks.push({ name: '_check_instance_build_time', spacingMs: 0, run: () => failSlowBuilds(services) });
  }
  if (config.periodic.reclaimInstanceIntervalMs > 0) {
    const run = (signal: AbortSignal): Promise<void> => reclaimQueuedDeletes(deleted, signal);
    tasks.push({ name: '_reclaim_queued_deletes', spacingMs: 0, run });
  }
  if (config.build.shelvedOffloadTimeMs > 0) {
    const run = (signal: AbortSignal): Promise<void> => offloadShelved(services, operations, signal);
    tasks.push({ name: '_poll_shelved_instances', spacingMs: config.periodic.shelvedPollIntervalMs, run });
  }
  if (config.periodic.rescueTimeoutMs > 0) {
    tasks.push({ name: '_poll_rescued_instances', spacingMs: 0, run: () => endOldRescues(services) });
  }
  if (config.periodic.instanceUsageAudit) {
    tasks.push({ name: '_instance_usage_audit', spacingMs: 0, run: () => auditUsage(services) });
  }
  if (config.periodic.resizeConfirmWindowMs > 0) {
    tasks.push({ name: '_poll_unconfirmed_resizes', spacingMs: 0, run: () => confirmOldResizes(services) });
  }
  return tasks;
}

async function syncSchedulers({ config, conductor }: ComputeServices, scheduler: SchedulerClient): Promise<void> {
  const context = RequestContext.admin();
  const call = { object: 'InstanceList', method: 'get_uuids_by_host', args: [config.host] } as const;
  const uuids = await conductor.classMethod(context, call);
  await scheduler.syncInstanceInfo(context, config.host, Array.isArray(uuids) ? uuids.map(String) : []);
}

async function failSlowBuilds({ config, conductor, log }: ComputeServices): Promise<void> {
  const context = RequestContext.admin();
  const filters = { vm_state: VM_STATES.building, host: config.host };
  const oldest = Date.now() - config.build.instanceBuildTimeoutMs;
  for (const instance of await instancesByFilters({ conductor, context }, filters, [])) {
    if ((instance.get('created_at')?.getTime() ?? Date.now()) > oldest) continue;
    log.warn('build takes too long, giving it up', { instance: instance.get('uuid') });
    instance.set('vm_state', VM_STATES.error).set('task_state', null);
    await conductor.save(context, instance);
  }
}
