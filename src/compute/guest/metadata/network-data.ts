// network_data.json, from Nova's network cache (appendix E.4).
import { firstOf, ipText, parseNetwork } from '#src/lib/ip.ts';
import type { Subnet, Vif } from '#src/nova/network-model.ts';

export interface NetworkLink {
  readonly id: string;
  readonly vif_id: string;
  readonly type: string;
  readonly mtu: number | null;
  readonly ethernet_mac_address: string | null;
}

export interface NetworkRoute {
  readonly network: string;
  readonly netmask: string;
  readonly gateway: string | null;
}

export interface DnsService {
  readonly type: 'dns';
  readonly address: string | null;
}

export interface NetworkEntry {
  readonly id: string;
  /** `ipv4`, `ipv6`, `ipv4_dhcp`, `ipv6_dhcp`, `ipv6_slaac`, `ipv6_dhcpv6-stateful`, `ipv6_dhcpv6-stateless`. */
  readonly type: string;
  readonly link: string;
  readonly network_id: string | null;
  readonly ip_address?: string | null;
  readonly netmask?: string;
  readonly routes?: readonly NetworkRoute[];
  readonly services?: readonly DnsService[];
}

export interface NetworkData {
  readonly links: readonly NetworkLink[];
  readonly networks: readonly NetworkEntry[];
  readonly services: readonly DnsService[];
}

const EXPOSED_TYPES: ReadonlySet<string | null> = new Set([
  'bridge',
  'dvs',
  'hw_veb',
  'hyperv',
  'ovs',
  'tap',
  'vhostuser',
  'vif',
]);
const VERSIONS = [4, 6] as const;
type Version = (typeof VERSIONS)[number];

/** null when the instance has no interface; of each interface the first subnet of either family counts, as in Nova. */
export function networkData(vifs: readonly Vif[]): NetworkData | null {
  if (vifs.length === 0) return null;
  const links: NetworkLink[] = [];
  const networks: NetworkEntry[] = [];
  const services: DnsService[] = [];
  for (const [index, vif] of withSubnets(vifs).entries()) {
    const subnets = VERSIONS.map((version) => ({ version, subnet: firstSubnet(vif, version) }));
    if (subnets.every(({ subnet }) => subnet === undefined)) continue;
    const link = linkOf(vif, index);
    links.push(link);
    for (const { version, subnet } of subnets) {
      if (subnet === undefined || subnet.ips.length === 0) continue;
      networks.push(
        entryOf(subnet, version, {
          id: `network${networks.length}`,
          link: link.id,
          network_id: vif.network?.id ?? null,
        }),
      );
      const known = new Set(services.map(({ address }) => address));
      services.push(...dnsOf(subnet).filter(({ address }) => !known.has(address)));
    }
  }
  return { links, networks, services };
}

function withSubnets(vifs: readonly Vif[]): readonly Vif[] {
  return vifs.filter(({ network }) => network !== null && network.subnets.length > 0);
}

function firstSubnet({ network }: Vif, version: Version): Subnet | undefined {
  return network?.subnets.find((subnet) => subnet.version === version);
}

function linkOf(vif: Vif, index: number): NetworkLink {
  const mtu = vif.network?.meta['mtu'];
  const isTold = vif.network?.subnets.some(({ meta }) => isSet(meta['dhcp_server'])) ?? false;
  return {
    id: vif.devname === null || vif.devname === '' ? `interface${index}` : vif.devname,
    vif_id: vif.id,
    type: EXPOSED_TYPES.has(vif.type) ? (vif.type ?? '') : 'phy',
    mtu: isTold || typeof mtu !== 'number' ? null : mtu,
    ethernet_mac_address: vif.address,
  };
}

function entryOf(
  subnet: Subnet,
  version: Version,
  identity: Pick<NetworkEntry, 'id' | 'link' | 'network_id'>,
): NetworkEntry {
  const mode = subnet.meta['ipv6_address_mode'];
  const hasMode = typeof mode === 'string' && mode !== '';
  const isDhcp = isSet(subnet.meta['dhcp_server']) || subnet.meta['enable_dhcp'] === true;
  if (!hasMode && isDhcp) return { ...identity, type: `ipv${version}_dhcp` };
  return {
    ...identity,
    type: hasMode ? `ipv${version}_${mode}` : `ipv${version}`,
    ip_address: subnet.ips[0]?.address ?? null,
    netmask: netmaskOf(subnet.cidr ?? '', version),
    routes: routesOf(subnet, version),
    services: dnsOf(subnet),
  };
}

function routesOf({ gateway, routes }: Subnet, version: Version): readonly NetworkRoute[] {
  const any = version === 4 ? '0.0.0.0' : '::';
  const standard =
    gateway === null || gateway.address === null ? [] : [{ network: any, netmask: any, gateway: gateway.address }];
  const others = routes.flatMap(({ cidr, gateway: via }) => {
    const network = parseNetwork(cidr ?? '');
    if (network === undefined) return [];
    return [
      {
        network: ipText(firstOf(network)),
        netmask: netmaskOf(cidr ?? '', network.address.family),
        gateway: via?.address ?? null,
      },
    ];
  });
  return [...standard, ...others];
}

function dnsOf({ dns }: Subnet): readonly DnsService[] {
  return dns.map(({ address }) => ({ type: 'dns', address }));
}

function netmaskOf(cidr: string, family: Version): string {
  const bits = family === 4 ? 32 : 128;
  const prefix = parseNetwork(cidr)?.prefix ?? bits;
  const all = (1n << BigInt(bits)) - 1n;
  return ipText({ family, value: all & ~((1n << BigInt(bits - prefix)) - 1n) });
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null;
}
