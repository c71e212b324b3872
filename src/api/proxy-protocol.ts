// The PROXY protocol of load balancers, versions 1 and 2: which client a connection really comes from.
import type { Socket } from 'node:net';

const V1 = Buffer.from('PROXY ');
const V2 = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);
const V1_MAX = 107;
const V2_HEAD = 16;
const V2_MAX = 2048;
const IPV4 = 0x1;
const IPV6 = 0x2;

export interface ProxyHeader {
  /** Bytes that belong to it. */
  readonly length: number;
  /** `10.0.0.1:4711`; undefined: the proxy speaks for itself. */
  readonly address?: string;
}

/** 'more': not decided by these bytes; 'none': something else begins here; 'bad': it is one, and broken. */
export function parseProxyHeader(bytes: Buffer): ProxyHeader | 'more' | 'none' | 'bad' {
  if (startsLike(bytes, V1)) return parseText(bytes);
  if (startsLike(bytes, V2)) return parseBinary(bytes);
  return 'none';
}

function startsLike(bytes: Buffer, signature: Buffer): boolean {
  const length = Math.min(bytes.length, signature.length);
  return bytes.subarray(0, length).equals(signature.subarray(0, length));
}

function parseText(bytes: Buffer): ProxyHeader | 'more' | 'bad' {
  const end = bytes.indexOf('\r\n');
  if (end < 0) return bytes.length > V1_MAX ? 'bad' : 'more';
  if (end > V1_MAX) return 'bad';
  const line = bytes.toString('latin1', 0, end);
  const length = end + 2;
  if (line.startsWith('PROXY UNKNOWN')) return { length };
  const [, address, port] = /^PROXY TCP[46] ([0-9a-fA-F.:]+) [0-9a-fA-F.:]+ (\d+) \d+$/u.exec(line) ?? [];
  return address === undefined ? 'bad' : { length, address: `${address}:${port}` };
}

function parseBinary(bytes: Buffer): ProxyHeader | 'more' | 'bad' {
  if (bytes.length < V2_HEAD) return 'more';
  const [command = 0, family = 0] = bytes.subarray(V2.length, V2.length + 2);
  const size = bytes.readUInt16BE(V2.length + 2);
  const length = V2_HEAD + size;
  if (command >> 4 !== 2 || length > V2_MAX) return 'bad';
  if (bytes.length < length) return 'more';
  const address = (command & 0xf) === 0 ? undefined : addressIn(family >> 4, bytes.subarray(V2_HEAD, length));
  return { length, ...(address !== undefined && { address }) };
}

function addressIn(family: number, body: Buffer): string | undefined {
  if (family === IPV4 && body.length >= 12) return `${body.subarray(0, 4).join('.')}:${body.readUInt16BE(8)}`;
  if (family !== IPV6 || body.length < 36) return undefined;
  const groups = Array.from({ length: 8 }, (_, index) => body.readUInt16BE(2 * index).toString(16));
  return `${groups.join(':')}:${body.readUInt16BE(32)}`;
}

/** How long a trusted proxy may take to say for whom it speaks. */
const HEADER_MS = 5000;

/** Hands the connection to `take` when its header, if it has one, is read off it. */
export function readProxyHeader(socket: Socket, take: (address: string | undefined) => void): void {
  let seen = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), HEADER_MS).unref();
  const done = () => {
    clearTimeout(timer);
    socket.off('readable', read);
    socket.off('close', done);
  };
  const read = () => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    seen = Buffer.concat([seen, chunk]);
    const header = parseProxyHeader(seen);
    if (header === 'more') return;
    done();
    if (header === 'bad') {
      socket.destroy();
      return;
    }
    const rest = header === 'none' ? seen : seen.subarray(header.length);
    if (rest.length > 0) socket.unshift(rest);
    take(header === 'none' ? undefined : header.address);
  };
  socket.on('readable', read);
  socket.on('close', done);
  socket.on('error', () => socket.destroy());
}
