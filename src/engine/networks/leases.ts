// The addresses that are in use on a managed network, as GET /1.0/networks/NAME/leases shows them.
import type { HostRegistry, NetworkLease } from '#drivers/network/driver.ts';
import { eui64Address, ipText, parseNetwork } from '#src/lib/ip.ts';
import type { EngineDatabase } from '../db/database.ts';
import type { NetworkRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { networkUsers, usesNetwork } from './used-by.ts';

export interface ShownLease extends NetworkLease {
  /** LXD's "none" for this server; empty for the server's own addresses. */
  readonly location: '' | 'none';
}

interface LeaseQuery {
  readonly network: NetworkRecord;
  /** Of the request: only its instances are shown. */
  readonly project: string;
}

/** Gateways, then what instances have by their configuration, then what DHCP has given out beside. */
export async function networkLeases(
  database: EngineDatabase,
  { network, project }: LeaseQuery,
  hosts: HostRegistry | undefined,
): Promise<readonly ShownLease[]> {
  const nics = nicsOf(database, { network, project });
  const fixed = nics.flatMap((nic) => fixedLeases(network.config, nic));
  const isHolder = project === network.project;
  const hwaddrs = new Set(nics.map(({ hwaddr }) => hwaddr));
  const given = ((await hosts?.leases(network.name)) ?? []).filter(({ hwaddr, address }) => {
    const isKnown = fixed.some((lease) => lease.address === address && (hwaddr === '' || lease.hwaddr === hwaddr));
    return !isKnown && (isHolder || hwaddrs.has(hwaddr));
  });
  return [
    ...(isHolder ? gateways(network) : []),
    ...fixed,
    ...given.map((lease) => ({ ...lease, location: 'none' as const })),
  ];
}

interface NetworkNic {
  readonly instance: string;
  readonly hwaddr: string;
  readonly config: ConfigMap;
}

function nicsOf(database: EngineDatabase, { network, project }: LeaseQuery): readonly NetworkNic[] {
  const { instances } = networkUsers(database, network);
  return instances
    .filter((instance) => instance.project === project)
    .flatMap(({ name, config: local, expandedDevices }) =>
      Object.entries(expandedDevices)
        .filter(([, device]) => usesNetwork(device, network.name))
        .map(([device, config]) => {
          const { hwaddr: said = '' } = config;
          const hwaddr = said === '' ? (local[`volatile.${device}.hwaddr`] ?? '') : said;
          return { instance: name, config, hwaddr: hwaddr.toLowerCase() };
        }),
    );
}

/** Static ones, and that which an instance gives itself where the network says only how. */
function fixedLeases(network: ConfigMap, { instance, hwaddr, config }: NetworkNic): readonly ShownLease[] {
  const lease = (address: string, type: NetworkLease['type']): ShownLease => {
    return { hostname: instance, hwaddr, address, type, location: 'none' };
  };
  const statics = ['ipv4.address', 'ipv6.address']
    .map((key) => config[key] ?? '')
    .filter((address) => address !== '' && address !== 'none');
  const own = parseNetwork(network['ipv6.address'] ?? '');
  const isStateless = !/^(true|1|yes|on)$/i.test(network['ipv6.dhcp.stateful'] ?? '');
  const givesItself = own?.prefix === 64 && isStateless && hwaddr !== '';
  return [
    ...statics.map((address) => lease(address, 'static')),
    ...(givesItself ? [lease(ipText(eui64Address(own, hwaddr)), 'dynamic')] : []),
  ];
}

function gateways({ name, config }: NetworkRecord): readonly ShownLease[] {
  return ['ipv4.address', 'ipv6.address']
    .map((key) => (config[key] ?? '').split('/')[0] ?? '')
    .filter((address) => address !== '' && address !== 'none')
    .map((address) => ({ hostname: `${name}.gw`, hwaddr: '', address, type: 'gateway', location: '' }));
}
