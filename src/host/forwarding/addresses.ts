// Addresses of sockets: as the kernel has them, and as people read them.
import { isIPv6, SocketAddress } from 'node:net';
import { AF } from './calls.ts';

/** As sockaddr_in or sockaddr_in6. The address may be empty: the wildcard. */
export function portAddress(address: string, port: number): Buffer {
  return address === '' || isIPv6(address) ? v6(address === '' ? '::' : address, port) : v4(address, port);
}

function v4(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF.inet, 0);
  bytes.writeUInt16BE(port, 2);
  Buffer.from(address.split('.').map(Number)).copy(bytes, 4);
  return bytes;
}

function v6(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt16LE(AF.inet6, 0);
  bytes.writeUInt16BE(port, 2);
  for (const [index, group] of groupsOf(address).entries()) bytes.writeUInt16BE(group, 8 + index * 2);
  return bytes;
}

const GROUPS = 8;

/** The eight groups of an IPv6 address, which may end in an IPv4 one. */
function groupsOf(address: string): readonly number[] {
  const [head = '', tail] = address.split('::');
  const first = groups(head);
  if (tail === undefined) return first;
  const last = groups(tail);
  return [...first, ...Array.from({ length: GROUPS - first.length - last.length }, () => 0), ...last];
}

function groups(text: string): readonly number[] {
  return text.split(':').flatMap((group) => {
    if (group === '') return [];
    if (!group.includes('.')) return [Number.parseInt(group, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
    return [a * 256 + b, c * 256 + d];
  });
}

const MAX_PATH = 107;

/** As sockaddr_un. RangeError when the path is longer than the kernel takes. */
export function unixAddress(path: string, abstract: boolean): Buffer {
  const name = Buffer.from(abstract ? `\0${path}` : `${path}\0`);
  if (name.length > MAX_PATH + 1) throw new RangeError(`the path of a Unix socket is too long: ${path}`);
  const family = Buffer.alloc(2);
  family.writeUInt16LE(AF.unix);
  return Buffer.concat([family, name]);
}

export interface ReadablePort {
  readonly address: string;
  readonly port: number;
}

/** undefined: not an IP address. IPv4 in IPv6 is IPv4. */
export function readableAddress(bytes: Buffer): ReadablePort | undefined {
  const family = bytes.length < 2 ? 0 : bytes.readUInt16LE(0);
  if (family === AF.inet) return { address: bytes.subarray(4, 8).join('.'), port: bytes.readUInt16BE(2) };
  if (family !== AF.inet6) return undefined;
  const port = bytes.readUInt16BE(2);
  const mapped = bytes.subarray(8, 20).equals(Buffer.from('00000000000000000000ffff', 'hex'));
  if (mapped) return { address: bytes.subarray(20, 24).join('.'), port };
  const all = Array.from({ length: GROUPS }, (_, index) => bytes.readUInt16BE(8 + index * 2).toString(16)).join(':');
  return { address: new SocketAddress({ address: all, family: 'ipv6' }).address, port };
}

/** The line of the PROXY protocol, version 1, for a connection from `source` to `destination`. */
export function proxyHeader(source: Buffer, destination: Buffer): Buffer {
  const [from, to] = [readableAddress(source), readableAddress(destination)];
  if (!from || !to) return Buffer.from('PROXY UNKNOWN\r\n');
  const protocol = from.address.includes(':') ? 'TCP6' : 'TCP4';
  return Buffer.from(`PROXY ${protocol} ${from.address} ${to.address} ${from.port} ${to.port}\r\n`);
}
