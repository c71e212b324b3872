// From Neutron's view of ports to the VIFs of Nova's network cache (sections 3.6 and 8.3, allocate 8).
import { isIP } from 'node:net';
import type { RequestContext } from '#src/nova/context.ts';
import {
  bridgeNameOf,
  deviceNameOf,
  type FixedIp,
  type Ip,
  type Meta,
  type Network,
  type Route,
  type Subnet,
  type Vif,
} from '#src/nova/network-model.ts';
import type { Neutron, NeutronNetwork, NeutronPort, NeutronSubnet } from '#src/openstack/types.ts';
import { serviceCredentials } from './credentials.ts';

type Attributes = Readonly<Record<string, unknown>>;

/** What a VIF is made of beside its port; read for all ports at once. */
export interface Surroundings {
  readonly networks: ReadonlyMap<string, NeutronNetwork>;
  readonly subnets: ReadonlyMap<string, NeutronSubnet>;
  readonly dhcpPorts: readonly NeutronPort[];
  readonly floatingIps: readonly Attributes[];
}

export interface VifOptions {
  /** [neutron] ovs_bridge. */
  readonly ovsBridge: string;
  /** Ports that Nova did not make. */
  readonly preserved: ReadonlySet<string>;
}

/** Four requests at most, side by side, however many ports there are. `floating`: the ports that may have floating IPs, by default all. */
export async function readSurroundings(
  neutron: Neutron,
  context: RequestContext,
  { ports, floating = ports.map(({ id }) => id) }: { ports: readonly NeutronPort[]; floating?: readonly string[] },
  signal: AbortSignal,
): Promise<Surroundings> {
  const credentials = serviceCredentials(context);
  const networkIds = unique(ports.map((port) => port.network_id));
  const subnetIds = unique(ports.flatMap((port) => fixedIps(port).map(({ subnetId }) => subnetId)));
  const withAddress = ports
    .filter((port) => fixedIps(port).length > 0 && floating.includes(port.id))
    .map(({ id }) => id);
  const [networks, subnets, dhcpPorts, floatingIps] = await Promise.all([
    networkIds.length > 0 ? neutron.listNetworks(credentials, { id: networkIds }, signal) : [],
    subnetIds.length > 0 ? neutron.listSubnets(credentials, { id: subnetIds }, signal) : [],
    subnetIds.length > 0
      ? neutron.listPorts(credentials, { network_id: networkIds, device_owner: 'network:dhcp' }, signal)
      : [],
    withAddress.length > 0 ? neutron.listFloatingIps(credentials, { port_id: withAddress }, signal) : [],
  ]);
  return {
    networks: new Map(networks.map((network) => [network.id, network])),
    subnets: new Map(subnets.map((subnet) => [subnet.id, subnet])),
    dhcpPorts,
    floatingIps,
  };
}

export function buildVif(port: NeutronPort, around: Surroundings, options: VifOptions): Vif {
  const type = text(port['binding:vif_type']);
  const isOvs = type === 'ovs' || type === 'agilio_ovs';
  return {
    id: port.id,
    address: text(port['mac_address']),
    network: buildNetwork(port, around, options),
    type,
    details: dictOf(port['binding:vif_details']),
    devname: deviceNameOf(port.id),
    ovsInterfaceId: isOvs ? port.id : null,
    qbhParams: null,
    qbgParams: null,
    active: port['admin_state_up'] === false || port['status'] === 'ACTIVE',
    vnicType: text(port['binding:vnic_type']) ?? 'normal',
    profile: dictOf(port['binding:profile']),
    preserveOnDelete: options.preserved.has(port.id),
    delegateCreate: true,
    meta: {},
  };
}

function buildNetwork(port: NeutronPort, around: Surroundings, { ovsBridge }: VifOptions): Network {
  const network = around.networks.get(port.network_id);
  const { physicalNetwork, isTunneled } = providerOf(network);
  const type = text(port['binding:vif_type']);
  return {
    id: port.network_id,
    bridge: bridgeOf(port, ovsBridge),
    label: network?.name ?? null,
    subnets: buildSubnets(port, around),
    meta: {
      injected: false,
      tenant_id: text(network?.['tenant_id'] ?? port['tenant_id']),
      mtu: typeof network?.['mtu'] === 'number' ? network['mtu'] : null,
      physical_network: physicalNetwork,
      tunneled: isTunneled,
      ...(type === 'bridge' && { should_create_bridge: true }),
    },
  };
}

function bridgeOf(port: NeutronPort, ovsBridge: string): string | null {
  const named = text(dictOf(port['binding:vif_details'])['bridge_name']);
  switch (port['binding:vif_type']) {
    case 'ovs':
    case 'agilio_ovs':
      return (named ?? ovsBridge).slice(0, 14);
    case 'bridge':
      return named?.slice(0, 14) ?? bridgeNameOf(port.network_id);
    default:
      return null;
  }
}

const TUNNELS: ReadonlySet<unknown> = new Set(['vxlan', 'gre', 'geneve']);

/** Of a network of several segments the first one with a physical network counts. */
function providerOf(network: NeutronNetwork | undefined): { physicalNetwork: string | null; isTunneled: boolean } {
  const segments = network?.['segments'];
  for (const segment of Array.isArray(segments) ? segments : []) {
    const physicalNetwork = text(dictOf(segment)['provider:physical_network']);
    if (physicalNetwork !== null) return { physicalNetwork, isTunneled: false };
  }
  return {
    physicalNetwork: text(network?.['provider:physical_network']),
    isTunneled: TUNNELS.has(network?.['provider:network_type']),
  };
}

function buildSubnets(port: NeutronPort, around: Surroundings): readonly Subnet[] {
  const addresses = fixedIps(port);
  return unique(addresses.map(({ subnetId }) => subnetId)).flatMap((id) => {
    const subnet = around.subnets.get(id);
    if (subnet === undefined) return [];
    const ips = addresses
      .filter(({ subnetId }) => subnetId === id)
      .map(({ address }) => buildFixedIp(address, port.id, around.floatingIps));
    return [buildSubnet(subnet, ips, around.dhcpPorts)];
  });
}

function buildSubnet(subnet: NeutronSubnet, ips: readonly FixedIp[], dhcpPorts: readonly NeutronPort[]): Subnet {
  const cidr = text(subnet['cidr']);
  const gateway = text(subnet['gateway_ip']);
  const dhcpServer = dhcpServerOf(subnet, dhcpPorts) ?? (subnet['enable_dhcp'] === true ? gateway : null);
  const mode = text(subnet['ipv6_address_mode']);
  const meta: Meta = {
    ...(mode !== null && { ipv6_address_mode: mode }),
    ...(dhcpServer !== null && { dhcp_server: dhcpServer }),
  };
  return {
    cidr,
    dns: strings(subnet['dns_nameservers']).map((address) => buildIp(address, 'dns')),
    gateway: buildIp(gateway, 'gateway'),
    ips,
    routes: dicts(subnet['host_routes']).map(buildRoute),
    version: versionOf(cidr?.split('/')[0] ?? null),
    meta,
  };
}

function dhcpServerOf(subnet: NeutronSubnet, dhcpPorts: readonly NeutronPort[]): string | null {
  const addresses = dhcpPorts.flatMap(fixedIps).filter(({ subnetId }) => subnetId === subnet.id);
  return addresses.at(-1)?.address ?? null;
}

function buildRoute(route: Attributes): Route {
  return {
    cidr: text(route['destination']),
    gateway: buildIp(text(route['nexthop']), 'gateway'),
    interface: null,
    meta: {},
  };
}

function buildFixedIp(address: string, portId: string, floatingIps: readonly Attributes[]): FixedIp {
  const floating = floatingIps
    .filter((ip) => ip['port_id'] === portId && ip['fixed_ip_address'] === address)
    .map((ip) => buildIp(text(ip['floating_ip_address']), 'floating'));
  return { ...buildIp(address, 'fixed'), floatingIps: floating };
}

function buildIp(address: string | null, type: string): Ip {
  return { address, type, version: versionOf(address), meta: {} };
}

export function fixedIps(port: NeutronPort): readonly { readonly address: string; readonly subnetId: string }[] {
  return dicts(port['fixed_ips']).flatMap(({ ip_address: address, subnet_id: subnetId }) =>
    typeof address === 'string' && typeof subnetId === 'string' ? [{ address, subnetId }] : [],
  );
}

function versionOf(address: string | null): number | null {
  return isIP(address ?? '') || null;
}

function unique(values: readonly string[]): readonly string[] {
  return [...new Set(values)];
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

function dicts(value: unknown): readonly Attributes[] {
  return Array.isArray(value) ? value.map(dictOf) : [];
}

function dictOf(value: unknown): Attributes {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Attributes) : {};
}
