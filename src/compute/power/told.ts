// The two notifications around an operation that succeeds.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { InstanceMoment, InstanceNotifications } from '../types.ts';

export async function told(
  notifications: InstanceNotifications,
  context: RequestContext,
  { instance, name }: { readonly instance: NovaObject<'Instance'>; readonly name: InstanceMoment },
  work: () => Promise<void>,
): Promise<void> {
  notifications.moment(context, instance, { name, phase: 'start' });
  await work();
  notifications.moment(context, instance, { name, phase: 'end' });
}
