// access_ip_v4 and access_ip_v6 of a new instance (default_access_ip_network_name, section 5.2 step 13).
import { fixedIpsOf, type Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';

/** The first address of each version on the network with that label; the user's own addresses stay. */
export function setAccessAddresses(
  instance: NovaObject<'Instance'>,
  vifs: readonly Vif[],
  networkLabel: string | null,
): void {
  const vif = networkLabel === null ? undefined : vifs.find(({ network }) => network?.label === networkLabel);
  const isSet = (instance.find('access_ip_v4') ?? instance.find('access_ip_v6') ?? null) !== null;
  if (vif === undefined || isSet) return;
  const addresses = fixedIpsOf(vif);
  for (const [field, version] of [['access_ip_v4', 4] as const, ['access_ip_v6', 6] as const]) {
    const address = addresses.find((ip) => ip.version === version)?.address ?? null;
    if (address !== null) instance.set(field, address);
  }
}
