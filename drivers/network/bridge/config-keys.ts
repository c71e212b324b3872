// Every key of a bridge network and what its value may be (lxd-engine-contract section 3.3).
import { AppError } from '#src/lib/errors.ts';
import {
  address,
  anyAddress,
  anything,
  boolean,
  type Check,
  domain,
  hwaddr,
  integer,
  interfaceName,
  leaseTime,
  listOf,
  mtu,
  oneOf,
  ownAddress,
  range,
  subnet,
} from '../common/checks.ts';
import { badValue, isTrue, listItems, validateKeys } from '../common/validate.ts';
import type { NetworkConfig } from '../driver.ts';

const externalInterface: Check = (value) => {
  const complaint = interfaceName(value);
  return complaint === undefined ? undefined : `Invalid interface name "${value}": ${complaint}`;
};

const DEFAULT_ACTIONS = oneOf('allow', 'drop', 'reject');

const KEYS: Readonly<Record<string, Check>> = {
  'bridge.driver': oneOf('native', 'openvswitch'),
  'bridge.external_interfaces': listOf(externalInterface, { item: false }),
  'bridge.hwaddr': hwaddr,
  'bridge.mode': oneOf('standard', 'fan'),
  'bridge.mtu': mtu(1280, 16_384),
  'dns.domain': domain,
  'dns.mode': oneOf('dynamic', 'managed', 'none'),
  'dns.search': listOf(domain),
  'dns.zone.forward': anything,
  'dns.zone.reverse.ipv4': anything,
  'dns.zone.reverse.ipv6': anything,
  'fan.overlay_subnet': anything,
  'fan.type': oneOf('vxlan', 'ipip'),
  'fan.underlay_subnet': anything,
  'ipv4.address': ownAddress(4),
  'ipv4.dhcp': boolean,
  'ipv4.dhcp.expiry': leaseTime,
  'ipv4.dhcp.gateway': address(4),
  'ipv4.dhcp.ranges': listOf(range(4)),
  'ipv4.firewall': boolean,
  'ipv4.nat': boolean,
  'ipv4.nat.address': address(4),
  'ipv4.nat.order': oneOf('before', 'after'),
  'ipv4.routes': listOf(subnet(4)),
  'ipv4.routing': boolean,
  'ipv6.address': ownAddress(6),
  'ipv6.dhcp': boolean,
  'ipv6.dhcp.expiry': leaseTime,
  'ipv6.dhcp.ranges': listOf(range(6)),
  'ipv6.dhcp.stateful': boolean,
  'ipv6.firewall': boolean,
  'ipv6.nat': boolean,
  'ipv6.nat.address': address(6),
  'ipv6.nat.order': oneOf('before', 'after'),
  'ipv6.routes': listOf(subnet(6)),
  'ipv6.routing': boolean,
  'raw.dnsmasq': anything,
  'security.acls': anything,
  'security.acls.default.egress.action': DEFAULT_ACTIONS,
  'security.acls.default.egress.logged': boolean,
  'security.acls.default.ingress.action': DEFAULT_ACTIONS,
  'security.acls.default.ingress.logged': boolean,
};

const TUNNEL_KEYS: Readonly<Record<string, Check>> = {
  group: anyAddress,
  id: integer(0, 0xff_ff_ff),
  interface: interfaceName,
  local: anyAddress,
  port: integer(0, 65_535),
  protocol: oneOf('gre', 'vxlan'),
  remote: anyAddress,
  ttl: integer(0, 255),
};

const TUNNEL = /^tunnel\.([^.]+)\.(.+)$/;

/** AppError 'invalid'; 'unsupported' for what a bridge could have and ours cannot. */
export function validateBridge(network: string, config: NetworkConfig): void {
  validateKeys(network, config, { keys: KEYS, other: tunnelCheck });
  for (const tunnel of tunnelNames(config)) {
    const link = tunnelLink(network, tunnel);
    const complaint = interfaceName(link);
    if (complaint === undefined) continue;
    throw new AppError('invalid', `Network name too long for tunnel interface: ${link}`);
  }
  refuseMissingParts(network, config);
}

function tunnelCheck(key: string): Check | undefined {
  const field = TUNNEL.exec(key)?.[2] ?? '';
  return Object.hasOwn(TUNNEL_KEYS, field) ? TUNNEL_KEYS[field] : undefined;
}

export function tunnelNames(config: NetworkConfig): readonly string[] {
  const keys = Object.entries(config).filter(([, value]) => value !== '');
  return [...new Set(keys.flatMap(([key]) => TUNNEL.exec(key)?.[1] ?? []))].sort();
}

export function tunnelLink(network: string, tunnel: string): string {
  return `${network}-${tunnel}`;
}

/** There are no fans, ACLs and zones here: whatever names one names something absent. */
function refuseMissingParts(network: string, config: NetworkConfig): void {
  const fan = Object.keys(config).some((key) => key.startsWith('fan.') && config[key] !== '');
  if (config['bridge.mode'] === 'fan')
    throw new AppError('unsupported', 'Fan networks are not supported by this server');
  if (fan) throw new AppError('invalid', "FAN configuration may only be set when in 'fan' mode");
  const [acl] = listItems(config['security.acls']);
  if (acl !== undefined) throw new AppError('invalid', `Network ACL "${acl}" does not exist`);
  for (const key of ['dns.zone.forward', 'dns.zone.reverse.ipv4', 'dns.zone.reverse.ipv6']) {
    const [zone] = listItems(config[key]);
    if (zone !== undefined) throw badValue(network, key, `Network zone "${zone}" doesn't exist`);
  }
}

/** The bridge's own address of that family with its prefix; undefined: none. */
export function addressOf(config: NetworkConfig, family: 4 | 6): string | undefined {
  const value = config[`ipv${family}.address`] ?? '';
  return value === '' || value === 'none' || value === 'auto' ? undefined : value;
}

/** Whether a switch that is on by default is on. */
export function isOn(config: NetworkConfig, key: string): boolean {
  return isTrue(config[key], true);
}

export const DEFAULT_MTU = 1500;

/** Tunnels need room for their headers. */
export function mtuOf(config: NetworkConfig): number {
  const value = config['bridge.mtu'] ?? '';
  if (value !== '') return Number(value);
  return tunnelNames(config).length > 0 ? 1400 : DEFAULT_MTU;
}
