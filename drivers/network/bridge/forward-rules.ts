// nftables rules of the addresses that are forwarded into a network.
import { parseIp, parseNetwork, subnetText } from '#src/lib/ip.ts';
import type { ForwardPort, ManagedNetwork, NetworkConfig, NetworkForward } from '../driver.ts';
import { addressOf } from './config-keys.ts';
import { type PortRange, portRanges } from '../common/ports.ts';

export interface ForwardRules {
  /** For what arrives, and for what the host itself sends. */
  readonly arriving: readonly string[];
  /** For members of the bridge that reach each other over a forwarded address. */
  readonly hairpin: readonly string[];
}

export function forwardRules({ config, forwards }: Pick<ManagedNetwork, 'config' | 'forwards'>): ForwardRules {
  return {
    // Ports first: the default target takes the rest.
    arriving: forwards.flatMap((forward) => [
      ...forward.ports.flatMap((port) => portRules(forward, port)),
      ...restRules(forward),
    ]),
    hairpin: forwards.flatMap((forward) => hairpinRules(config, forward)),
  };
}

const isIpv6 = (address: string): boolean => parseIp(address)?.family === 6;

function ipWord(address: string): string {
  return isIpv6(address) ? 'ip6' : 'ip';
}

function portRules({ listenAddress }: NetworkForward, port: ForwardPort): readonly string[] {
  const ip = ipWord(listenAddress);
  const listen = portRanges(port.listenPort);
  const target = portRanges(port.targetPort);
  const destination = isIpv6(port.targetAddress) ? `[${port.targetAddress}]` : port.targetAddress;
  return pairs(listen, target).map(({ from, to }) => {
    const match = `${ip} daddr ${listenAddress} ${port.protocol} dport ${rangeText(from)}`;
    return to === undefined
      ? `${match} dnat ${ip} to ${port.targetAddress}`
      : `${match} dnat ${ip} to ${destination}:${rangeText(to)}`;
  });
}

interface Pair {
  readonly from: PortRange;
  /** undefined: the same port. */
  readonly to: PortRange | undefined;
}

/** One target port takes all; else each listening port has its own. */
function pairs(listen: readonly PortRange[], target: readonly PortRange[]): readonly Pair[] {
  if (target.length === 0) return listen.map((from) => ({ from, to: undefined }));
  const [only] = target;
  if (target.length === 1 && only && only.first === only.last) return listen.map((from) => ({ from, to: only }));
  const each = target.flatMap(singly);
  return listen.flatMap(singly).map((from, index) => ({ from, to: each[index] }));
}

function singly({ first, last }: PortRange): readonly PortRange[] {
  return Array.from({ length: last - first + 1 }, (_, index) => ({ first: first + index, last: first + index }));
}

function rangeText({ first, last }: PortRange): string {
  return first === last ? String(first) : `${first}-${last}`;
}

function restRules({ listenAddress, config }: NetworkForward): readonly string[] {
  const target = config['target_address'] ?? '';
  if (target === '') return [];
  const ip = ipWord(listenAddress);
  return [`${ip} daddr ${listenAddress} dnat ${ip} to ${target}`];
}

/** Answers among members of the bridge would not come back through us: their senders must be ours. */
function hairpinRules(network: NetworkConfig, { config, ports }: NetworkForward): readonly string[] {
  const targets = new Set([...ports.map(({ targetAddress }) => targetAddress), config['target_address'] ?? '']);
  targets.delete('');
  return [...targets].flatMap((target) => {
    const ip = ipWord(target);
    const own = parseNetwork(addressOf(network, isIpv6(target) ? 6 : 4) ?? '');
    return own ? [`${ip} saddr ${subnetText(own)} ${ip} daddr ${target} ct status dnat masquerade`] : [];
  });
}
