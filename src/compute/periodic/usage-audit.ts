// Once a period every instance that was here in it is told of to those who bill for it (_instance_usage_audit, contract section 4.9).
// Nova's task log says that it has been done; what was interrupted is not done again, as with a stock compute.
import type { Log } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import { type AuditPeriod, lastPeriod } from '#src/nova/notifications/audit-period.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Instance } from '../records.ts';
import type { ComputeServices } from '../types.ts';

const TASK = 'instance_usage_audit';
const ATTRIBUTES = ['system_metadata', 'info_cache', 'metadata', 'flavor'] as const;

type Parts = Pick<ComputeServices, 'config' | 'conductor' | 'notifications'> & { readonly log: Log };

export async function auditUsage(parts: Parts, now: Date = new Date()): Promise<void> {
  const { config, log } = parts;
  const context = RequestContext.admin();
  const period = lastPeriod(config.messaging.notifications.auditPeriod, now);
  if (await isDone(parts, context, period)) return;
  const instances = await activeIn(parts, context, period);
  const since = performance.now();
  const task = await begin(parts, context, { period, count: instances.length });
  if (!task) return;
  // what cannot be told is logged there, and keeps nobody else's usage from being told
  for (const instance of instances) {
    parts.notifications.moment(context, instance, { name: 'exists', phase: 'once', period });
  }
  const seconds = (performance.now() - since) / 1000;
  const count = instances.length;
  task.set('errors', 0);
  task.set('message', `Instance usage audit ran for host ${config.host}, ${count} instances in ${seconds} seconds.`);
  await parts.conductor.objectMethod(context, task, { method: 'end_task' });
  log.info('usage told', { begin: period.begin, end: period.end, instances: count });
}

async function isDone({ conductor, config }: Parts, context: RequestContext, period: AuditPeriod): Promise<boolean> {
  const args = [TASK, timeText(period.begin), timeText(period.end), config.host];
  return (await conductor.classMethod(context, { object: 'TaskLog', method: 'get', args })) !== null;
}

/** Those that are deleted by now as well. */
async function activeIn(
  { conductor, config }: Parts,
  context: RequestContext,
  period: AuditPeriod,
): Promise<readonly Instance[]> {
  const call = { object: 'InstanceList', method: '_get_active_by_window_joined' } as const;
  const args = [timeText(period.begin), timeText(period.end), null, config.host];
  const kwargs = { expected_attrs: ATTRIBUTES, use_slave: true, limit: null, marker: null };
  return expectList(await conductor.classMethod(context, { ...call, args, kwargs }), 'InstanceList');
}

/** Undefined: another compute of this name has begun with it. */
async function begin(
  { conductor, config }: Parts,
  context: RequestContext,
  { period, count }: { readonly period: AuditPeriod; readonly count: number },
): Promise<NovaObject<'TaskLog'> | undefined> {
  const task = createObject('TaskLog', {
    task_name: TASK,
    period_beginning: period.begin,
    period_ending: period.end,
    host: config.host,
    task_items: count,
    message: 'Instance usage audit started...',
  });
  try {
    await conductor.objectMethod(context, task, { method: 'begin_task' });
    return task;
  } catch (error) {
    if (isNova(error, 'TaskAlreadyRunning')) return undefined;
    throw error;
  }
}

/** As Nova writes times that are no field of an object: without a zone, with microseconds. */
function timeText(time: Date): string {
  return time.toISOString().replace(/Z$/, '000');
}
