// Proxies in NAT mode: rules of the kernel's packet filter, in the table and under the names that LXD uses
// (lxd-engine-contract section 6).
import { createHash } from 'node:crypto';
import { isIPv6 } from 'node:net';
import type { PortAddress } from '#src/host/forwarding/messages.ts';
import { AppError } from '#src/lib/errors.ts';
import { textOf } from '../common/options.ts';
import type { DeviceOwner } from '../driver.ts';
import { isWildcard } from './options.ts';

const CHAINS = {
  prert: 'type nat hook prerouting priority -100',
  out: 'type nat hook output priority -100',
  pstrt: 'type nat hook postrouting priority 100',
};

/** For `nft -f -`: replaces what is there of the device, all or nothing. `connect` has one of the instance's own addresses. */
export function natRules(label: string, listen: PortAddress, connect: PortAddress): string {
  const dnat = dnatRules(listen, connect);
  const lines = Object.entries(CHAINS).flatMap(([name, hook]) => {
    const chain = `inet lxd ${name}.${label}`;
    const rules = name === 'pstrt' ? [hairpin(connect)] : dnat;
    return [
      `add chain ${chain} { ${hook}; policy accept; }`,
      `flush chain ${chain}`,
      ...rules.map((rule) => `add rule ${chain} ${rule}`),
    ];
  });
  return ['add table inet lxd', ...lines, ''].join('\n');
}

/** For `nft -f -`: nothing of the device is left. Not an error when nothing was there. */
export function natRemoval(label: string): string {
  const lines = Object.entries(CHAINS).flatMap(([name, hook]) => {
    const chain = `inet lxd ${name}.${label}`;
    return [`add chain ${chain} { ${hook}; policy accept; }`, `flush chain ${chain}`, `delete chain ${chain}`];
  });
  return ['add table inet lxd', ...lines, ''].join('\n');
}

function dnatRules(listen: PortAddress, connect: PortAddress): readonly string[] {
  const family = isIPv6(listen.address) ? 'ip6' : 'ip';
  const to = isIPv6(connect.address) ? `[${connect.address}]` : connect.address;
  const match = (ports: readonly number[]) =>
    `${family} daddr ${listen.address} ${listen.kind} dport ${portsText(ports)}`;
  const isSame = listen.ports.length > 1 && listen.ports.join() === connect.ports.join();
  if (isSame) return [`${match(listen.ports)} dnat ${family} to ${connect.address}`];
  if (connect.ports.length === 1) return [`${match(listen.ports)} dnat ${family} to ${to}:${connect.ports[0]}`];
  return listen.ports.map((port, index) => `${match([port])} dnat ${family} to ${to}:${connect.ports[index]}`);
}

/** The instance that reaches itself by the address of the host. */
function hairpin({ kind, address, ports }: PortAddress): string {
  const family = isIPv6(address) ? 'ip6' : 'ip';
  return `${family} saddr ${address} ${family} daddr ${address} ${kind} dport ${portsText(ports)} masquerade`;
}

/** As LXD writes them, and nft shows them: 80, 80-90, or a set of both. */
function portsText(ports: readonly number[]): string {
  const ranges: { first: number; last: number }[] = [];
  for (const port of ports.toSorted((one, other) => one - other)) {
    const range = ranges.at(-1);
    if (range && port <= range.last + 1) range.last = port;
    else ranges.push({ first: port, last: port });
  }
  const texts = ranges.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`));
  return texts.length === 1 ? texts.join('') : `{ ${texts.join(', ')} }`;
}

/** INSTANCE.DEVICE, as far as names of chains allow it. */
export function natLabel({ hostName }: Pick<DeviceOwner, 'hostName'>, device: string): string {
  if (/^[A-Za-z0-9._/-]+$/.test(device)) return `${hostName}.${device}`;
  const digest = createHash('sha256').update(device).digest('hex').slice(0, 12);
  return `${hostName}.${device.replace(/[^A-Za-z0-9._/-]/g, '_')}.${digest}`;
}

/**
 * The address of the instance to which packets go: one that a nic of it has for sure, or they would be somebody else's. AppError
 * with LXD's text when there is none.
 */
export function natTarget({ devices }: Pick<DeviceOwner, 'devices'>, connect: PortAddress): PortAddress {
  const option = isIPv6(connect.address) ? 'ipv6.address' : 'ipv4.address';
  const addresses = Object.values(devices)
    .filter((config) => textOf(config, 'type') === 'nic')
    .filter((config) => textOf(config, 'nictype') === 'bridged' || textOf(config, 'network') !== '')
    .map((config) => textOf(config, option))
    .filter((address) => address !== '' && address !== 'none');
  const found = addresses.find((address) => isWildcard(connect.address) || address === connect.address);
  if (found === undefined) {
    throw new AppError('invalid', 'Proxy connect IP cannot be used with any of the instance NICs static IPs');
  }
  return { ...connect, address: found };
}
