// The network information of an instance as Nova caches it (nova-compute-contract section 3.6).
//
// nova-api answers `addresses` of a server from this cache. Keys that the model has not are moved into `meta`, as Nova does.
import { isIP } from 'node:net';
import { AppError } from '#src/lib/errors.ts';

export type Meta = Readonly<Record<string, unknown>>;
type Dict = Readonly<Record<string, unknown>>;

export interface Ip {
  readonly address: string | null;
  /** `gateway`, `dns`, `floating` or `fixed`. */
  readonly type: string | null;
  readonly version: number | null;
  readonly meta: Meta;
}

export interface FixedIp extends Ip {
  readonly floatingIps: readonly Ip[];
}

export interface Route {
  readonly cidr: string | null;
  readonly gateway: Ip | null;
  readonly interface: string | null;
  readonly meta: Meta;
}

export interface Subnet {
  readonly cidr: string | null;
  readonly dns: readonly Ip[];
  readonly gateway: Ip | null;
  readonly ips: readonly FixedIp[];
  readonly routes: readonly Route[];
  readonly version: number | null;
  /** `dhcp_server`, `enable_dhcp`, `ipv6_address_mode`. */
  readonly meta: Meta;
}

export interface Network {
  readonly id: string | null;
  readonly bridge: string | null;
  /** The network's name. */
  readonly label: string | null;
  readonly subnets: readonly Subnet[];
  /** `injected`, `tenant_id`, `mtu`, `physical_network`, `tunneled`. */
  readonly meta: Meta;
}

export interface Vif {
  /** The Neutron port. */
  readonly id: string;
  readonly address: string | null;
  readonly network: Network | null;
  readonly type: string | null;
  /** `binding:vif_details`. */
  readonly details: Dict;
  readonly devname: string | null;
  readonly ovsInterfaceId: string | null;
  readonly qbhParams: unknown;
  readonly qbgParams: unknown;
  readonly active: boolean;
  readonly vnicType: string;
  /** `binding:profile`. */
  readonly profile: Dict | null;
  /** The user made the port: unbind it, do not delete it. */
  readonly preserveOnDelete: boolean;
  readonly delegateCreate: boolean;
  readonly meta: Meta;
}

/** Longest name of a device that Nova makes up; the kernel would take one more. */
const NAME_LENGTH = 14;

/** The device name of a port: `tap` and the start of its id. */
export function deviceNameOf(portId: string): string {
  return `tap${portId}`.slice(0, NAME_LENGTH);
}

/** `brq` and the start of the network's id, what Nova calls the bridge of a linuxbridge network. */
export function bridgeNameOf(networkId: string): string {
  return `brq${networkId}`.slice(0, NAME_LENGTH);
}

export function fixedIpsOf(vif: Vif): readonly FixedIp[] {
  return vif.network?.subnets.flatMap((subnet) => subnet.ips) ?? [];
}

/** `InstanceInfoCache.network_info`: null is an empty cache. */
export function parseNetworkInfo(text: string | null): readonly Vif[] {
  if (text === null || text === '') return [];
  return listOf(parsed(text)).map(vifFrom);
}

export function serializeNetworkInfo(vifs: readonly Vif[]): string {
  return JSON.stringify(vifs.map(vifToWire));
}

/** `VIFMigrateData.source_vif`. */
export function parseVif(text: string): Vif {
  return vifFrom(parsed(text));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new AppError('invalid', 'the network information is not JSON', { cause: error });
  }
}

function vifFrom(raw: unknown): Vif {
  const { id, address, network, type, details, devname, ovs_interfaceid, ...more } = dictOf(raw);
  const { qbh_params, qbg_params, active, vnic_type, profile, preserve_on_delete, delegate_create, ...rest } = more;
  if (typeof id !== 'string') throw new AppError('invalid', 'a network interface without id');
  return {
    id,
    address: stringOr(address),
    network: isEmpty(network) ? null : networkFrom(network),
    type: stringOr(type),
    details: isEmpty(details) ? {} : dictOf(details),
    devname: stringOr(devname),
    ovsInterfaceId: stringOr(ovs_interfaceid),
    qbhParams: qbh_params ?? null,
    qbgParams: qbg_params ?? null,
    active: active === true,
    vnicType: stringOr(vnic_type) ?? 'normal',
    profile: profile === null || profile === undefined ? null : dictOf(profile),
    preserveOnDelete: preserve_on_delete === true,
    delegateCreate: delegate_create === true,
    meta: metaFrom(rest),
  };
}

/** As the attach_interface call returns it; keys in Nova's order. */
export function vifToWire(vif: Vif): Dict {
  return {
    id: vif.id,
    address: vif.address,
    network: vif.network === null ? null : networkToWire(vif.network),
    type: vif.type,
    details: vif.details,
    devname: vif.devname,
    ovs_interfaceid: vif.ovsInterfaceId,
    qbh_params: vif.qbhParams,
    qbg_params: vif.qbgParams,
    active: vif.active,
    vnic_type: vif.vnicType,
    profile: vif.profile,
    preserve_on_delete: vif.preserveOnDelete,
    delegate_create: vif.delegateCreate,
    meta: vif.meta,
  };
}

function networkFrom(raw: unknown): Network {
  const { id, bridge, label, subnets, ...rest } = dictOf(raw);
  return {
    id: stringOr(id),
    bridge: stringOr(bridge),
    label: stringOr(label),
    subnets: listOf(subnets).map(subnetFrom),
    meta: metaFrom(rest),
  };
}

function networkToWire({ id, bridge, label, subnets, meta }: Network): Dict {
  return { id, bridge, label, subnets: subnets.map(subnetToWire), meta };
}

function subnetFrom(raw: unknown): Subnet {
  const { cidr, dns, gateway, ips, routes, version, ...rest } = dictOf(raw);
  return {
    cidr: stringOr(cidr),
    dns: listOf(dns).map(ipFrom),
    gateway: isEmpty(gateway) ? null : ipFrom(gateway),
    ips: listOf(ips).map(fixedIpFrom),
    routes: listOf(routes).map(routeFrom),
    version: versionOf(version, cidr),
    meta: metaFrom(rest),
  };
}

function subnetToWire({ cidr, dns, gateway, ips, routes, version, meta }: Subnet): Dict {
  return {
    cidr,
    dns: dns.map(ipToWire),
    gateway: gateway === null ? null : ipToWire(gateway),
    ips: ips.map(fixedIpToWire),
    routes: routes.map(routeToWire),
    version,
    meta,
  };
}

function routeFrom(raw: unknown): Route {
  const { cidr, gateway, interface: device, ...rest } = dictOf(raw);
  return {
    cidr: stringOr(cidr),
    gateway: isEmpty(gateway) ? null : ipFrom(gateway),
    interface: stringOr(device),
    meta: metaFrom(rest),
  };
}

function routeToWire(route: Route): Dict {
  const gateway = route.gateway === null ? null : ipToWire(route.gateway);
  return { cidr: route.cidr, gateway, interface: route.interface, meta: route.meta };
}

function ipFrom(raw: unknown): Ip {
  const { address, type, version, ...rest } = dictOf(raw);
  return {
    address: stringOr(address),
    type: stringOr(type),
    version: versionOf(version, address),
    meta: metaFrom(rest),
  };
}

function ipToWire({ address, type, version, meta }: Ip): Dict {
  return { address, type, version, meta };
}

function fixedIpFrom(raw: unknown): FixedIp {
  const { floating_ips, ...rest } = dictOf(raw);
  const ip = ipFrom(rest);
  return { ...ip, type: ip.type ?? 'fixed', floatingIps: listOf(floating_ips).map(ipFrom) };
}

/** Also an entry of `fixed_ips` in legacy notifications. */
export function fixedIpToWire(ip: FixedIp): Dict {
  return { ...ipToWire(ip), floating_ips: ip.floatingIps.map(ipToWire) };
}

function metaFrom({ meta, ...unknownKeys }: Dict): Meta {
  return { ...(isEmpty(meta) ? {} : dictOf(meta)), ...unknownKeys };
}

function versionOf(version: unknown, address: unknown): number | null {
  if (typeof version === 'number') return version;
  return typeof address === 'string' ? isIP(address.split('/')[0] ?? '') || null : null;
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0);
}

function stringOr(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function listOf(value: unknown): readonly unknown[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) throw new AppError('invalid', 'the network information has no list where one belongs');
  return value;
}

function dictOf(value: unknown): Dict {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Dict;
  throw new AppError('invalid', 'the network information has no dict where one belongs');
}
