// The late check of a server group's policy: two builds may have been scheduled at the same time (section 5.2 step 7).
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import { expectObject, type NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { ComputeServices } from '../types.ts';

type Group = NovaObject<'InstanceGroup'>;

const UUID = /^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$/i;

/** Rejects with GroupAffinityViolation. `hint` names the group by uuid or name; a group that is gone binds nobody. */
export async function checkGroupPolicy(
  services: ComputeServices,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  hint: string,
): Promise<void> {
  const method = UUID.test(hint) ? 'get_by_uuid' : 'get_by_name';
  const group = await findGroup(services, context, method, hint);
  if (group === undefined) return;
  await services.locks.run(`group:${group.get('uuid')}`, () => checkMembers(services, context, instance, group));
}

async function findGroup(
  { conductor }: ComputeServices,
  context: RequestContext,
  method: string,
  key: string,
): Promise<Group | undefined> {
  try {
    return expectObject(
      await conductor.classMethod(context, { object: 'InstanceGroup', method, args: [key] }),
      'InstanceGroup',
    );
  } catch (error) {
    if (isNova(error, 'InstanceGroupNotFound')) return undefined;
    throw error;
  }
}

async function checkMembers(
  services: ComputeServices,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  group: Group,
): Promise<void> {
  switch (group.find('policy')) {
    case 'anti-affinity':
      return await checkAntiAffinity(services, context, instance, group);
    case 'affinity':
      return await checkAffinity(services, context, instance, group);
    default:
  }
}

async function checkAntiAffinity(
  services: ComputeServices,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  group: Group,
): Promise<void> {
  const { conductor, config, tracker } = services;
  // The members are read anew: this runs under the group's lock, and another member may have come since.
  const [here, migrations, current] = await Promise.all([
    conductor.classMethod(context, { object: 'InstanceList', method: 'get_uuids_by_host', args: [config.host] }),
    conductor.classMethod(context, {
      object: 'MigrationList',
      method: 'get_in_progress_by_host_and_node',
      args: [config.host, tracker.nodeName],
    }),
    findGroup(services, context, 'get_by_uuid', group.get('uuid')),
  ]);
  const present = new Set<unknown>([
    ...(Array.isArray(here) ? here : []),
    ...expectList(migrations, 'MigrationList').map((migration) => migration.find('instance_uuid')),
  ]);
  const others = (current?.find('members') ?? []).filter((uuid) => uuid !== instance.get('uuid') && present.has(uuid));
  const limit = Number(current?.find('_rules')?.['max_server_per_host'] ?? 1);
  if (others.length >= limit) throw novaException('GroupAffinityViolation', { policy: 'Anti-affinity' });
}

async function checkAffinity(
  { conductor, config }: ComputeServices,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  group: Group,
): Promise<void> {
  const kwargs = { exclude: [instance.get('uuid')] };
  const hosts = await conductor.objectMethod(context, group, { method: 'get_hosts', kwargs });
  const isElsewhere = Array.isArray(hosts) && hosts.length > 0 && !hosts.includes(config.host);
  if (isElsewhere) throw novaException('GroupAffinityViolation', { policy: 'Affinity' });
}
