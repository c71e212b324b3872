// Resizes that nobody confirmed in time are confirmed, as if the owner had (contract section 4.9).
import type { Log } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import { ACTIONS, MIGRATION_STATUSES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { findInstance } from '../records.ts';
import { castStep } from '../resize/cast-step.ts';
import type { ComputeServices } from '../types.ts';

type Migration = NovaObject<'Migration'>;

const BUSY: ReadonlySet<string | null> = new Set([
  TASK_STATES.deleting,
  TASK_STATES.softDeleting,
  TASK_STATES.resizeFinish,
]);

type Parts = Pick<ComputeServices, 'config' | 'conductor' | 'rpc'> & { readonly log: Log };

export async function confirmOldResizes({ config, conductor, rpc, log }: Parts): Promise<void> {
  const context = RequestContext.admin();
  const seconds = config.periodic.resizeConfirmWindowMs / 1000;
  const call = {
    object: 'MigrationList',
    method: 'get_unconfirmed_by_dest_compute',
    args: [seconds, config.host],
  } as const;
  for (const migration of expectList(await conductor.classMethod(context, call), 'MigrationList')) {
    await confirm({ config, conductor, rpc, log }, context, migration).catch((error: unknown) => {
      log.error('cannot confirm a resize, trying again later', { migration, error });
    });
  }
}

async function confirm({ config, conductor, rpc, log }: Parts, context: RequestContext, migration: Migration) {
  const uuid = migration.get('instance_uuid') ?? '';
  const instance = await findInstance({ conductor, context }, uuid, ['metadata', 'system_metadata']);
  if (instance && BUSY.has(instance.get('task_state'))) return;
  if (!instance || !isResized(instance)) {
    log.warn('resize cannot be confirmed', { instance: uuid, state: instance?.get('vm_state') ?? 'gone' });
    migration.set('status', MIGRATION_STATUSES.error);
    await conductor.save(context, migration);
    return;
  }
  migration.set('status', MIGRATION_STATUSES.confirming);
  await conductor.save(context, migration);
  await conductor.classMethod(context, {
    object: 'InstanceAction',
    method: 'action_start',
    args: [uuid, ACTIONS.confirmResize],
    kwargs: { want_result: false },
  });
  log.info('confirming a resize that nobody confirmed', { instance: uuid });
  const host = migration.get('source_compute') ?? config.host;
  await castStep({ rpc, host }, context, 'confirm_resize', { instance, migration });
}

function isResized(instance: NovaObject<'Instance'>): boolean {
  return instance.get('vm_state') === VM_STATES.resized && instance.get('task_state') === null;
}
