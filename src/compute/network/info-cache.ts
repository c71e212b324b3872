// The network cache of an instance: read from the object at hand, written through the conductor (section 3.6).
import type { RequestContext } from '#src/nova/context.ts';
import { parseNetworkInfo, serializeNetworkInfo, type Vif } from '#src/nova/network-model.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import type { Conductor } from '#src/nova/types.ts';

/** The cache as this process knows it. */
export function cachedVifs(instance: NovaObject<'Instance'>): readonly Vif[] {
  return parseNetworkInfo(instance.find('info_cache')?.find('network_info') ?? null);
}

/** Writes the cache and gives the instance the new one, without making that a change of the instance. */
export async function saveVifs(
  conductor: Conductor,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
  vifs: readonly Vif[],
): Promise<void> {
  const cache = createObject('InstanceInfoCache', {
    instance_uuid: instance.get('uuid'),
    network_info: serializeNetworkInfo(vifs),
  });
  await conductor.save(context, cache);
  instance.load('info_cache', cache);
}

/** Reads the cache anew: others may have written it since the instance was loaded. */
export async function reloadCache(
  conductor: Conductor,
  context: RequestContext,
  instance: NovaObject<'Instance'>,
): Promise<void> {
  const cache = instance.find('info_cache');
  if (cache === undefined || cache === null) return;
  await conductor.objectMethod(context, cache, { method: 'refresh' });
}
