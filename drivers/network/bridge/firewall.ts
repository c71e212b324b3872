// nftables rules of a bridge network, as text for nft(8): what LXD has in table `inet lxd`, in chains of the network's own.
import { parseNetwork, subnetText } from '#src/lib/ip.ts';
import { isTrue } from '../common/validate.ts';
import type { ManagedNetwork, NetworkConfig } from '../driver.ts';
import { addressOf, isOn } from './config-keys.ts';
import { forwardRules } from './forward-rules.ts';

const TABLE = 'inet lxd';

interface Chain {
  readonly name: string;
  readonly hook: string;
  readonly rules: readonly string[];
}

const HOOKS = {
  pstrt: 'type nat hook postrouting priority srcnat',
  fwd: 'type filter hook forward priority filter',
  in: 'type filter hook input priority filter',
  out: 'type filter hook output priority filter',
  fwdprert: 'type nat hook prerouting priority dstnat',
  fwdout: 'type nat hook output priority -100',
  fwdpstrt: 'type nat hook postrouting priority srcnat',
} as const;

type ChainName = keyof typeof HOOKS;

/** One transaction: afterwards the network's chains are these, whatever was there before. */
export function firewallScript(network: ManagedNetwork): string {
  const { name, config } = network;
  const forwards = forwardRules(network);
  return script(name, {
    pstrt: [...natRules(config, 4), ...natRules(config, 6)],
    fwd: [...routingRules(name, config, 4), ...routingRules(name, config, 6)],
    in: [...serviceRules(name, config, 'in'), ...serviceRules6(name, config, 'in')],
    out: [...serviceRules(name, config, 'out'), ...serviceRules6(name, config, 'out')],
    fwdprert: forwards.arriving,
    fwdout: forwards.arriving,
    fwdpstrt: forwards.hairpin,
  });
}

/** Afterwards the network has no chain. */
export function emptyFirewallScript(network: string): string {
  return script(network, {});
}

function script(network: string, rules: Partial<Record<ChainName, readonly string[]>>): string {
  const chains = Object.entries(HOOKS).map(([kind, hook]) => {
    return { name: `${kind}.${network}`, hook, rules: rules[kind as ChainName] ?? [] };
  });
  return [`add table ${TABLE}`, ...chains.flatMap(chainScript), ''].join('\n');
}

/** Added first, so that it can be emptied whether it was there or not. */
function chainScript({ name, hook, rules }: Chain): readonly string[] {
  const begin = [`add chain ${TABLE} ${name} { ${hook}; policy accept; }`, `flush chain ${TABLE} ${name}`];
  if (rules.length === 0) return [...begin, `delete chain ${TABLE} ${name}`];
  return [...begin, ...rules.map((rule) => `add rule ${TABLE} ${name} ${rule}`)];
}

function natRules(config: NetworkConfig, family: 4 | 6): readonly string[] {
  const own = parseNetwork(addressOf(config, family) ?? '');
  if (!own || !isTrue(config[`ipv${family}.nat`], false)) return [];
  const ip = family === 4 ? 'ip' : 'ip6';
  const subnet = subnetText(own);
  const address = config[`ipv${family}.nat.address`] ?? '';
  const action = address === '' ? 'masquerade' : `snat ${ip} to ${address}`;
  return [`${ip} saddr ${subnet} ${ip} daddr != ${subnet} ${action}`];
}

function hasFirewall(config: NetworkConfig, family: 4 | 6): boolean {
  return addressOf(config, family) !== undefined && isOn(config, `ipv${family}.firewall`);
}

function routingRules(name: string, config: NetworkConfig, family: 4 | 6): readonly string[] {
  if (!hasFirewall(config, family)) return [];
  const verdict = isOn(config, `ipv${family}.routing`) ? 'accept' : 'reject';
  const version = family === 4 ? 'ip version 4' : 'ip6 version 6';
  return [`${version} oifname "${name}" ${verdict}`, `${version} iifname "${name}" ${verdict}`];
}

const PROBLEMS = 'destination-unreachable, time-exceeded, parameter-problem';
const PROBLEMS6 = 'destination-unreachable, packet-too-big, time-exceeded, parameter-problem';
const NEIGHBOURS = 'nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report';

/** DNS and DHCP, that a strict firewall of the host does not keep from the bridge. */
function serviceRules(name: string, config: NetworkConfig, way: 'in' | 'out'): readonly string[] {
  if (!hasFirewall(config, 4) && !hasFirewall(config, 6)) return [];
  const at = way === 'in' ? `iifname "${name}"` : `oifname "${name}"`;
  const port = way === 'in' ? 'dport' : 'sport';
  const dns = [`${at} tcp ${port} 53 accept`, `${at} udp ${port} 53 accept`];
  if (!hasFirewall(config, 4)) return dns;
  const dhcp = isOn(config, 'ipv4.dhcp') ? [`${at} udp ${port} 67 accept`] : [];
  return [...dns, `${at} icmp type { ${PROBLEMS} } accept`, ...dhcp];
}

function serviceRules6(name: string, config: NetworkConfig, way: 'in' | 'out'): readonly string[] {
  if (!hasFirewall(config, 6)) return [];
  const at = way === 'in' ? `iifname "${name}"` : `oifname "${name}"`;
  const port = way === 'in' ? 'dport' : 'sport';
  const own = way === 'in' ? 'nd-router-solicit' : 'echo-request, nd-router-advert';
  const dhcp = isOn(config, 'ipv6.dhcp') ? [`${at} udp ${port} 547 accept`] : [];
  return [`${at} icmpv6 type { ${PROBLEMS6}, ${own}, ${NEIGHBOURS} } accept`, ...dhcp];
}
