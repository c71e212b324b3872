// Static addresses of nics on a managed network: its DHCP must give them out, or a filter must know them.
import { AppError } from '#src/lib/errors.ts';
import { contains, parseIp, parseNetwork } from '#src/lib/ip.ts';
import type { NetworkRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { allocates } from './allocations.ts';

/** AppError 'invalid' with LXD's text. */
export function checkNicAddresses(network: NetworkRecord, device: ConfigMap): void {
  for (const family of [4, 6] as const) {
    const filters = isTrue(device[`security.ipv${family}_filtering`]);
    const key = `ipv${family}.address`;
    const value = device[key] ?? '';
    if (!filters && value !== '') checkServed(network, key, value);
    // For filters alone an address may be one that the network knows nothing of.
    const isForeign = filters && !allocates(network.config, family);
    if (!['', 'none'].includes(value) && !isForeign) checkInside(network, key, value);
  }
}

const isTrue = (value: string | undefined): boolean => /^(true|1|yes|on)$/i.test(value ?? '');
const isFalse = (value: string | undefined): boolean => /^(false|0|no|off)$/i.test(value ?? '');

function checkServed({ name, config }: NetworkRecord, key: string, value: string): void {
  if (key === 'ipv4.address' && isFalse(config['ipv4.dhcp'])) {
    const when = 'when DHCP is disabled (unless using security.ipv4_filtering)';
    throw new AppError('invalid', `Cannot specify "ipv4.address" ${when} on network "${name}"`);
  }
  if (key === 'ipv6.address' && (isFalse(config['ipv6.dhcp']) || !isTrue(config['ipv6.dhcp.stateful']))) {
    const when = 'when DHCP or "ipv6.dhcp.stateful" are disabled (unless using security.ipv6_filtering)';
    throw new AppError('invalid', `Cannot specify "ipv6.address" ${when} on network "${name}"`);
  }
  if (value !== 'none') return;
  throw new AppError('invalid', `Cannot have ${key} as none unless using security.${key.slice(0, 4)}_filtering`);
}

function checkInside({ name, config }: NetworkRecord, key: string, value: string): void {
  const own = parseNetwork(config[key] ?? '');
  const address = parseIp(value);
  if (!own || !address || !contains(own, address)) {
    throw new AppError('invalid', `Device IP address "${value}" not within network "${name}" subnet`);
  }
  if (own.address.value !== address.value) return;
  throw new AppError('invalid', `IP address "${value}" is assigned to parent managed network device "${name}"`);
}
