// What a forward may say, in LXD's words (recorded from LXD 5.0.2).
import { ports, portComplaint } from '#drivers/network/common/ports.ts';
import type { ForwardPort, NetworkForward } from '#drivers/network/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import { contains, type IpAddress, ipText, parseIp, parseNetwork } from '#src/lib/ip.ts';
import type { ConfigMap } from '../types.ts';

/** A port as a client writes it. */
export type WantedPort = Omit<ForwardPort, 'protocol'> & { readonly protocol: string };
export type WantedForward = Omit<NetworkForward, 'ports'> & { readonly ports: readonly WantedPort[] };

/** The forward with its addresses in their shortest form. AppError 'internal' with LXD's text. */
export function checkForward(network: ConfigMap, forward: WantedForward): NetworkForward {
  const listen = parseIp(forward.listenAddress);
  if (!listen) {
    const reason = `invalid CIDR address: ${forward.listenAddress}/32`;
    throw refusal(`Failed parsing address forward listen address "${forward.listenAddress}": ${reason}`);
  }
  const rest = checkConfig(network, forward.config, listen);
  const taken = new Set<string>();
  const checked = forward.ports.map((port, index) => checkPort(port, { network, listen, rest, index, taken }));
  return { ...forward, listenAddress: ipText(listen), ports: checked };
}

function refusal(text: string): AppError {
  return new AppError('internal', text);
}

/** The default target; undefined: there is none. */
function checkConfig(network: ConfigMap, config: ConfigMap, listen: IpAddress): IpAddress | undefined {
  for (const key of Object.keys(config)) {
    if (key !== 'target_address' && !key.startsWith('user.')) throw refusal(`Invalid option "${key}"`);
  }
  const text = config['target_address'] ?? '';
  if (text === '') return undefined;
  const target = parseIp(text);
  if (!target) throw refusal('Invalid default target address');
  if (target.family !== listen.family) {
    throw refusal('Cannot mix IP versions in listen address and default target address');
  }
  if (!isInside(network, target)) throw refusal('Default target address is not within the network subnet');
  return target;
}

function isInside(network: ConfigMap, address: IpAddress): boolean {
  const own = parseNetwork(network[`ipv${address.family}.address`] ?? '');
  return own !== undefined && contains(own, address);
}

interface PortPlace {
  readonly network: ConfigMap;
  readonly listen: IpAddress;
  /** Where all other ports go. */
  readonly rest: IpAddress | undefined;
  readonly index: number;
  /** Of the ports before: "tcp/80". */
  readonly taken: Set<string>;
}

function checkPort(port: WantedPort, place: PortPlace): ForwardPort {
  const where = `port specification ${place.index}`;
  const { protocol } = port;
  if (protocol !== 'tcp' && protocol !== 'udp') {
    throw refusal(`Invalid port protocol in ${where}, protocol must be one of: tcp, udp`);
  }
  const target = checkTarget(port, place);
  checkList(port.listenPort, `Invalid listen port in ${where}`);
  if (port.targetPort !== '') checkList(port.targetPort, `Invalid target port in ${where}`);
  const listened = ports(port.listenPort);
  for (const one of listened) {
    const key = `${protocol}/${one}`;
    if (place.taken.has(key)) throw refusal(`Duplicate listen port ${one} for protocol "${protocol}" in ${where}`);
    place.taken.add(key);
  }
  const targets = ports(port.targetPort).length;
  if (targets > 1 && targets !== listened.length) {
    throw refusal(`Mismatch of listen port(s) and target port(s) count in ${where}`);
  }
  return { ...port, protocol, targetAddress: ipText(target) };
}

function checkTarget({ targetAddress }: WantedPort, { network, listen, rest, index }: PortPlace): IpAddress {
  const target = parseIp(targetAddress);
  if (!target) throw refusal(`Invalid target address in port specification ${index}`);
  if (rest && ipText(rest) === ipText(target)) {
    throw refusal(`Target address is same as default target address in port specification ${index}`);
  }
  if (target.family !== listen.family) {
    throw refusal(`Cannot mix IP versions in listen address and port specification ${index} target address`);
  }
  if (!isInside(network, target)) {
    throw refusal(`Target address is not within the network subnet in port specification ${index}`);
  }
  return target;
}

function checkList(text: string, prefix: string): void {
  const complaint = portComplaint(text);
  if (complaint !== undefined) throw refusal(`${prefix}: ${complaint}`);
}
