// limits.network.priority: which of the host's interfaces it is for (lxd-engine-contract section 4.2).
import type { RuntimeLimits } from '#drivers/runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import type { ConfigMap } from '../types.ts';

/** All but ends of containers' cables, which come and go. */
export async function networkPrioritiesOf(
  host: Pick<Host, 'links'>,
  config: ConfigMap,
): Promise<Pick<RuntimeLimits, 'networkPriorities'>> {
  const priority = config['limits.network.priority'] ?? '';
  if (priority === '') return {};
  const links = await host.links.list();
  const lasting = links.filter(({ kind }) => kind !== 'veth');
  return { networkPriorities: Object.fromEntries(lasting.map(({ name }) => [name, Number(priority)])) };
}
