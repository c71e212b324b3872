// IP addresses and networks as numbers: read, written (RFC 5952), compared.
import { isIPv4, isIPv6 } from 'node:net';

export type IpFamily = 4 | 6;

export interface IpAddress {
  readonly family: IpFamily;
  readonly value: bigint;
}

/** An address with the length of its network's prefix. */
export interface IpNetwork {
  readonly address: IpAddress;
  readonly prefix: number;
}

export interface IpRange {
  readonly first: IpAddress;
  readonly last: IpAddress;
}

export const bitsOf = (family: IpFamily): number => (family === 4 ? 32 : 128);

/** Big-endian. */
export function bytesValue(bytes: Uint8Array): bigint {
  return bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

export function ipBytes({ family, value }: IpAddress): Buffer {
  return Buffer.from(value.toString(16).padStart(bitsOf(family) / 4, '0'), 'hex');
}

export function parseIp(text: string): IpAddress | undefined {
  if (isIPv4(text)) return { family: 4, value: bytesValue(Uint8Array.from(text.split('.').map(Number))) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  return { family: 6, value: ipv6Value(text) };
}

function ipv6Value(text: string): bigint {
  const dotted = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  const pair = (high: string | undefined, low: string | undefined) => (Number(high) * 256 + Number(low)).toString(16);
  const plain = dotted
    ? `${text.slice(0, dotted.index)}${pair(dotted[1], dotted[2])}:${pair(dotted[3], dotted[4])}`
    : text;
  const [head = '', tail] = plain.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right];
  return groups.reduce((value, group) => (value << 16n) | BigInt(Number.parseInt(group, 16)), 0n);
}

/** The longest run of zero groups of an IPv6 address is shortened. */
export function ipText(address: IpAddress): string {
  const bytes = ipBytes(address);
  if (address.family === 4) return [...bytes].join('.');
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  const plain = groups.join(':');
  const runs = [...plain.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].map(([run]) => run);
  const longest = runs.sort((left, right) => right.split('0').length - left.split('0').length)[0];
  if (longest === undefined) return plain;
  return plain
    .replace(longest, ':')
    .replace(/^:(?!:)/, '::')
    .replace(/([^:]):$/, '$1::');
}

/** "10.0.0.1/24"; undefined when it is none. */
export function parseNetwork(text: string): IpNetwork | undefined {
  const [, ip = '', length = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  const address = parseIp(ip);
  const prefix = Number(length);
  return address === undefined || prefix > bitsOf(address.family) ? undefined : { address, prefix };
}

export function networkText({ address, prefix }: IpNetwork): string {
  return `${ipText(address)}/${prefix}`;
}

function hostMask({ address, prefix }: IpNetwork): bigint {
  return (1n << BigInt(bitsOf(address.family) - prefix)) - 1n;
}

export function firstOf(network: IpNetwork): IpAddress {
  const { family, value } = network.address;
  return { family, value: value & ~hostMask(network) };
}

export function lastOf(network: IpNetwork): IpAddress {
  const { family, value } = network.address;
  return { family, value: value | hostMask(network) };
}

/** The network itself: its first address with its prefix. */
export function subnetText(network: IpNetwork): string {
  return networkText({ address: firstOf(network), prefix: network.prefix });
}

export function contains(network: IpNetwork, address: IpAddress): boolean {
  return network.address.family === address.family && firstOf(network).value === (address.value & ~hostMask(network));
}

export function overlap(left: IpNetwork, right: IpNetwork): boolean {
  const wider = left.prefix <= right.prefix ? left : right;
  return contains(wider, (wider === left ? right : left).address);
}

/** "FIRST-LAST" of one family, in order; undefined when it is none. */
export function parseRange(text: string): IpRange | undefined {
  const [one = '', other, ...rest] = text.split('-');
  const first = parseIp(one.trim());
  const last = parseIp((other ?? one).trim());
  if (rest.length > 0 || !first || !last || first.family !== last.family || first.value > last.value) return undefined;
  return { first, last };
}

export function inRange({ first, last }: IpRange, { family, value }: IpAddress): boolean {
  return family === first.family && value >= first.value && value <= last.value;
}

/** The address that a host with this MAC address gives itself in a /64 (SLAAC without privacy extensions). */
export function eui64Address(network: IpNetwork, hwaddr: string): IpAddress {
  const bytes = hwaddr.split(':').map((part) => Number.parseInt(part, 16));
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = bytes;
  const identifier = bytesValue(Uint8Array.from([a ^ 2, b, c, 0xff, 0xfe, d, e, f]));
  return { family: 6, value: (firstOf(network).value & ~((1n << 64n) - 1n)) | identifier };
}
