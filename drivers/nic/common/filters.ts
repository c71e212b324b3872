// security.mac_filtering, security.ipv4_filtering and security.ipv6_filtering: what a container may not send into its bridge
// (lxd-engine-contract section 6). Names and rules are LXD's; neighbour advertisements are held to more than there.
import { AppError } from '#src/lib/errors.ts';
import { firstOf, ipBytes, ipText, type IpNetwork, networkText, parseNetwork } from '#src/lib/ip.ts';
import type { NicDevice } from '../driver.ts';
import { chainName, type FirewallChain } from './firewall.ts';
import { isOn, listOption } from './nic-options.ts';
import { hostEnd } from './veth.ts';

type NicConfig = NicDevice['config'];

export const FILTER_OPTIONS = ['security.mac_filtering', 'security.ipv4_filtering', 'security.ipv6_filtering'];
const HEX_DIGIT_BITS = 4;

/** A managed network has its own rules. On an unmanaged bridge nobody else knows the address: with a filter it has to be said, without one it says nothing. */
export function checkAddresses(config: NicConfig): void {
  if ((config['network'] ?? '') !== '') return;
  for (const [family, name] of [
    ['ipv4', 'IPv4'],
    ['ipv6', 'IPv6'],
  ] as const) {
    const address = config[`${family}.address`] ?? '';
    if (isOn(config[`security.${family}_filtering`])) {
      if (address === '') {
        const text = `${name} filtering requires a manually specified ${family}.address`;
        throw new AppError('invalid', `${text} when using an unmanaged parent bridge`);
      }
    } else if (address !== '') {
      const text = `Cannot use manually specified ${family}.address when using unmanaged parent bridge`;
      throw new AppError('invalid', text);
    }
  }
}

/** undefined: not filtered; []: nothing at all is allowed. */
function allowedNetworks(config: NicConfig, family: 4 | 6): readonly IpNetwork[] | undefined {
  if (!isOn(config[`security.ipv${family}_filtering`])) return undefined;
  const address = config[`ipv${family}.address`] ?? '';
  if (address === 'none') return [];
  const own = address === '' ? [] : [`${address}/${family === 4 ? 32 : 128}`];
  const routes = ['routes', 'routes.external'].flatMap((option) => listOption(config, `ipv${family}.${option}`));
  return [...own, ...routes].flatMap((text) => parseNetwork(text) ?? []);
}

/** What it sends to the host, and what it sends to others in the bridge; [] without filters. */
export function filterChains(nic: NicDevice): readonly FirewallChain[] {
  const { config } = nic;
  if (!FILTER_OPTIONS.some((option) => isOn(config[option]))) return [];
  const [four, six] = [allowedNetworks(config, 4), allowedNetworks(config, 6)];
  const chain = (kind: string, hook: string, toHost: boolean): FirewallChain => {
    const rules = [
      ...macRules(config['hwaddr'] ?? ''),
      ...(four ? ipv4Rules(four, toHost) : []),
      ...(six ? ipv6Rules(six, toHost) : []),
      ...((four?.length ?? 0) + (six?.length ?? 0) > 0 ? ['ether type != { arp, ip, ip6 } drop'] : []),
    ];
    return {
      family: 'bridge',
      name: chainName(kind, nic),
      hook: `type filter hook ${hook} priority -200; policy accept;`,
      rules: rules.map((rule) => `iifname "${hostEnd(nic)}" ${rule}`),
    };
  };
  return [chain('in', 'input', true), chain('fwd', 'forward', false)];
}

/** The address in the frame, and those that ARP and neighbour advertisements (at a fixed place, without other headers) speak of. */
function macRules(hwaddr: string): readonly string[] {
  const hex = `0x${hwaddr.replaceAll(':', '')}`;
  return [
    `ether saddr != ${hwaddr} drop`,
    `ether type arp arp saddr ether != ${hwaddr} drop`,
    'ether type ip6 ip6 nexthdr != 58 icmpv6 type 136 drop',
    `ether type ip6 icmpv6 type 136 @nh,528,48 != ${hex} drop`,
  ];
}

function ipv4Rules(networks: readonly IpNetwork[], toHost: boolean): readonly string[] {
  const dhcp = 'ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept';
  return [
    ...(toHost && networks.length > 0 ? [dhcp] : []),
    ...networks.flatMap((network) => [
      `ether type arp arp saddr ip ${nftNetwork(network)} accept`,
      `ether type ip ip saddr ${nftNetwork(network)} accept`,
    ]),
    'ether type arp drop',
    'ether type ip drop',
  ];
}

function ipv6Rules(networks: readonly IpNetwork[], toHost: boolean): readonly string[] {
  const asking = [
    'ether type ip6 ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp dport 547 accept',
    'ether type ip6 ip6 saddr fe80::/10 ip6 daddr ff02::2 icmpv6 type 133 accept',
  ];
  return [
    ...(toHost && networks.length > 0 ? asking : []),
    ...(networks.length > 0 ? ['ether type ip6 icmpv6 type 134 drop'] : []),
    ...networks.map((network) => `ether type ip6 icmpv6 type 136 ${targetIn(network)} accept`),
    // Else one of a foreign address would pass under its own source address.
    ...(networks.length > 0 ? ['ether type ip6 icmpv6 type { 136, 137 } drop'] : []),
    ...networks.map((network) => `ether type ip6 ip6 saddr ${nftNetwork(network)} accept`),
    'ether type ip6 drop',
  ];
}

/** Of an advertisement: as many bits of its target as the prefix has. */
function targetIn(network: IpNetwork): string {
  const { prefix } = network;
  if (prefix === 0) return '';
  const bits = BigInt(`0x${ipBytes(firstOf(network)).toString('hex')}`) >> BigInt(128 - prefix);
  const digits = Math.ceil(prefix / HEX_DIGIT_BITS);
  return `@nh,384,${prefix} 0x${bits.toString(16).padStart(digits, '0')}`;
}

/** nft writes a single address without its length. */
function nftNetwork(network: IpNetwork): string {
  const first = { ...network, address: firstOf(network) };
  return network.prefix === (network.address.family === 4 ? 32 : 128) ? ipText(first.address) : networkText(first);
}
