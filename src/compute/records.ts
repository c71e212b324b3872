// Reads of Nova's records that start-up, tracker and periodic tasks share; each is one call of the conductor.
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import { expectObject, type NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Conductor } from '#src/nova/types.ts';

export type Instance = NovaObject<'Instance'>;

/** Who asks, and whom. */
export interface Asking {
  readonly conductor: Conductor;
  readonly context: RequestContext;
}

type Attributes = readonly string[];

export async function instancesOfHost({ conductor, context }: Asking, host: string, attributes: Attributes) {
  const call = { object: 'InstanceList', method: 'get_by_host', args: [host] } as const;
  const result = await conductor.classMethod(context, { ...call, kwargs: { expected_attrs: attributes } });
  return expectList(result, 'InstanceList');
}

export async function instancesOfNode(
  { conductor, context }: Asking,
  place: { readonly host: string; readonly node: string },
  attributes: Attributes,
) {
  const call = { object: 'InstanceList', method: 'get_by_host_and_node', args: [place.host, place.node] } as const;
  const result = await conductor.classMethod(context, { ...call, kwargs: { expected_attrs: attributes } });
  return expectList(result, 'InstanceList');
}

export async function instancesByFilters(
  { conductor, context }: Asking,
  filters: Readonly<Record<string, unknown>>,
  attributes: Attributes,
) {
  const call = { object: 'InstanceList', method: 'get_by_filters', args: [filters] } as const;
  const kwargs = { expected_attrs: attributes, use_slave: true };
  return expectList(await conductor.classMethod(context, { ...call, kwargs }), 'InstanceList');
}

/** Undefined when there is none; deleted ones only with a context that reads them. */
export async function findInstance(
  { conductor, context }: Asking,
  uuid: string,
  attributes: Attributes,
): Promise<Instance | undefined> {
  const kwargs = { uuid, expected_attrs: attributes };
  try {
    const result = await conductor.classMethod(context, { object: 'Instance', method: 'get_by_uuid', kwargs });
    return expectObject(result, 'Instance');
  } catch (error) {
    if (isNova(error, 'InstanceNotFound')) return undefined;
    throw error;
  }
}

export async function migrationsByFilters(
  { conductor, context }: Asking,
  filters: Readonly<Record<string, unknown>>,
): Promise<readonly NovaObject<'Migration'>[]> {
  const call = { object: 'MigrationList', method: 'get_by_filters', args: [filters] } as const;
  return expectList(await conductor.classMethod(context, call), 'MigrationList');
}

export async function findMigration({ conductor, context }: Asking, id: number): Promise<NovaObject<'Migration'>> {
  const call = { object: 'Migration', method: 'get_by_id', args: [id] } as const;
  return expectObject(await conductor.classMethod(context, call), 'Migration');
}

/** By what its allocation is called. */
export async function findMigrationOf(
  { conductor, context }: Asking,
  uuid: string,
): Promise<NovaObject<'Migration'> | undefined> {
  const call = { object: 'Migration', method: 'get_by_uuid', args: [uuid] } as const;
  try {
    return expectObject(await conductor.classMethod(context, call), 'Migration');
  } catch (error) {
    if (isNova(error, 'MigrationNotFound')) return undefined;
    throw error;
  }
}

/** Undefined when the host has no such node. */
export async function findNode(
  { conductor, context }: Asking,
  host: string,
  node: string,
): Promise<NovaObject<'ComputeNode'> | undefined> {
  const call = { object: 'ComputeNode', method: 'get_by_host_and_nodename', args: [host, node] } as const;
  try {
    return expectObject(await conductor.classMethod(context, call), 'ComputeNode');
  } catch (error) {
    if (isNova(error, 'ComputeHostNotFound')) return undefined;
    throw error;
  }
}

export async function findService(
  { conductor, context }: Asking,
  host: string,
): Promise<NovaObject<'Service'> | undefined> {
  const call = { object: 'Service', method: 'get_by_host_and_binary', args: [host, 'nova-compute'] } as const;
  const result = await conductor.classMethod(context, call);
  return result === null ? undefined : expectObject(result, 'Service');
}
