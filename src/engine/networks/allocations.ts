// Addresses for nics whose filters must know one, and that name none: chosen as LXD chooses, and kept as long as the nic and the network
// allow it.
import {
  contains,
  eui64Address,
  firstOf,
  inRange,
  type IpAddress,
  type IpFamily,
  type IpNetwork,
  type IpRange,
  ipText,
  lastOf,
  parseIp,
  parseNetwork,
  parseRange,
} from '#src/lib/ip.ts';
import type { NetworkLease } from '#drivers/network/driver.ts';
import type { ConfigMap } from '../types.ts';

export interface AllocationRequest {
  /** Of the network. */
  readonly config: ConfigMap;
  readonly family: IpFamily;
  readonly hwaddr: string;
  /** What DHCP calls the instance. */
  readonly hostname: string;
  /** Empty: none. */
  readonly previous: string;
  /** Of other nics on the network. */
  readonly fixed: ReadonlySet<string>;
  readonly leases: readonly NetworkLease[];
}

/** More than that are not looked at: a network has fewer instances. */
const MAX_TRIES = 1n << 20n;
const isFalse = (value: string | undefined): boolean => /^(false|0|no|off)$/iu.test(value ?? '');
const isTrue = (value: string | undefined): boolean => /^(true|1|yes|on)$/iu.test(value ?? '');

/** Whether the network gives out addresses: only then one can be chosen for a nic. */
export function allocates(config: ConfigMap, family: IpFamily): boolean {
  return parseNetwork(config[`ipv${family}.address`] ?? '') !== undefined && !isFalse(config[`ipv${family}.dhcp`]);
}

/** Undefined: all are taken. */
export function allocate(request: AllocationRequest): string | undefined {
  const { config, family, hwaddr, hostname, previous, fixed, leases } = request;
  const own = parseNetwork(config[`ipv${family}.address`] ?? '');
  if (!own || !allocates(config, family)) return undefined;
  const ranges = (config[`ipv${family}.dhcp.ranges`] ?? '').split(',').flatMap((text) => parseRange(text) ?? []);
  const isOwn = (lease: NetworkLease): boolean =>
    family === 4 ? lease.hwaddr === hwaddr : lease.hostname === hostname;
  const taken = new Set([...fixed, ipText(own.address), ...leases.flatMap((one) => (isOwn(one) ? [] : [one.address]))]);
  const fits = (text: string): boolean => {
    const address = parseIp(text);
    return address !== undefined && !taken.has(text) && serves(own, ranges, address);
  };
  const leased = leases.filter(isOwn).map(({ address }) => address);
  const itself = family === 6 && own.prefix === 64 && givesItself(config) ? [ipText(eui64Address(own, hwaddr))] : [];
  return [previous, ...(family === 4 ? leased : []), ...itself].find(fits) ?? firstFree(own, ranges, taken);
}

function serves(own: IpNetwork, ranges: readonly IpRange[], address: IpAddress): boolean {
  return contains(own, address) && (ranges.length === 0 || ranges.some((range) => inRange(range, address)));
}

/** Instances make their IPv6 address of their MAC address, or it is the one of that form that DHCP gives out. */
function givesItself(config: ConfigMap): boolean {
  return !isTrue(config['ipv6.dhcp.stateful']) || (config['ipv6.dhcp.ranges'] ?? '') === '';
}

function firstFree(own: IpNetwork, ranges: readonly IpRange[], taken: ReadonlySet<string>): string | undefined {
  const { family } = own.address;
  const last = lastOf(own).value - (family === 4 ? 1n : 0n);
  const whole = { first: { family, value: firstOf(own).value + 1n }, last: { family, value: last } };
  for (const range of ranges.length > 0 ? ranges : [whole]) {
    const end = range.last.value < range.first.value + MAX_TRIES ? range.last.value : range.first.value + MAX_TRIES;
    for (let { value } = range.first; value <= end; value++) {
      const address = { family, value };
      const text = ipText(address);
      if (!taken.has(text) && contains(own, address)) return text;
    }
  }
  return undefined;
}
