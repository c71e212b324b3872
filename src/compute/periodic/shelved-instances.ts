// Shelved instances whose time on this host is over (_poll_shelved_instances, contract section 4.9).
import { RequestContext } from '#src/nova/context.ts';
import { VM_STATES } from '#src/nova/states.ts';
import { instancesByFilters } from '../records.ts';
import type { ComputeServices, InstanceOperations } from '../types.ts';

const ATTRIBUTES = ['system_metadata', 'info_cache', 'flavor'];

export async function offloadShelved(
  { config, conductor, log }: Pick<ComputeServices, 'config' | 'conductor' | 'log'>,
  operations: Pick<InstanceOperations, 'offloadShelved'>,
  signal: AbortSignal,
): Promise<void> {
  const context = RequestContext.admin();
  const filters = { vm_state: VM_STATES.shelved, task_state: null, host: config.host };
  const newest = Date.now() - config.build.shelvedOffloadTimeMs;
  for (const instance of await instancesByFilters({ conductor, context }, filters, ATTRIBUTES)) {
    const shelvedAt = Date.parse(`${instance.find('system_metadata')?.['shelved_at'] ?? ''}Z`);
    if (Number.isNaN(shelvedAt) || shelvedAt > newest) continue;
    signal.throwIfAborted();
    await operations.offloadShelved(context, instance).catch((error: unknown) => {
      log.error('shelved instance not taken off this host', { instance: instance.get('uuid'), error });
    });
  }
}
