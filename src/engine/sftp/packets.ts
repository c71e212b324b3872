// Bytes of SFTP version 3: what is in a packet, read with every length checked, and written.
import { AppError } from '#src/lib/errors.ts';

export const TYPE = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  lstat: 7,
  fstat: 8,
  setstat: 9,
  fsetstat: 10,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  rmdir: 15,
  realpath: 16,
  stat: 17,
  rename: 18,
  readlink: 19,
  symlink: 20,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
  extended: 200,
  extendedReply: 201,
} as const;

export const STATUS = {
  ok: 0,
  endOfFile: 1,
  noSuchFile: 2,
  permissionDenied: 3,
  failure: 4,
  badMessage: 5,
  unsupported: 8,
} as const;

/** Clients send 32 KiB of a file at once, OpenSSH's up to 256; nobody sends more. */
export const MAX_PACKET_BYTES = 256 * 1024 + 1024;
const HAS = { size: 1, owner: 2, mode: 4, times: 8, extended: 0x80000000 } as const;

/** Of a file, as the protocol has them; times in seconds. */
export interface WireAttributes {
  readonly size?: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** With the bits of the type. */
  readonly mode?: number;
  readonly times?: { readonly accessed: number; readonly modified: number };
}

/** Whole packets, without their length, out of a stream of bytes. AppError 'invalid' for one that is too long. */
export async function* packetsOf(stream: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  let chunks: Buffer[] = [];
  let length = 0;
  let wanted = 4;
  for await (const chunk of stream) {
    chunks.push(chunk);
    length += chunk.length;
    if (length < wanted) continue;
    let rest = Buffer.concat(chunks, length);
    for (;;) {
      wanted = rest.length < 4 ? 4 : 4 + rest.readUInt32BE(0);
      if (wanted > MAX_PACKET_BYTES + 4) throw new AppError('invalid', 'SFTP packet is too long');
      if (rest.length < wanted || wanted === 4) break;
      yield rest.subarray(4, wanted);
      rest = rest.subarray(wanted);
    }
    if (wanted === 4 && rest.length >= 4) throw new AppError('invalid', 'SFTP packet is empty');
    chunks = [rest];
    length = rest.length;
  }
}

/** Reads a packet from its start. AppError 'invalid' when it is shorter than it says. */
export class PacketReader {
  readonly #data: Buffer;
  #at = 0;

  constructor(data: Buffer) {
    this.#data = data;
  }

  byte(): number {
    return this.#take(1).readUInt8(0);
  }

  uint32(): number {
    return this.#take(4).readUInt32BE(0);
  }

  /** Of a place in a file; AppError 'invalid' for what no file has. */
  uint64(): number {
    const value = this.#take(8).readBigUInt64BE(0);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new AppError('invalid', 'SFTP: the offset is too large');
    return Number(value);
  }

  bytes(): Buffer {
    return this.#take(this.uint32());
  }

  text(): string {
    return this.bytes().toString('utf8');
  }

  attributes(): WireAttributes {
    const flags = this.uint32();
    const size = (flags & HAS.size) === 0 ? {} : { size: this.uint64() };
    const owner = (flags & HAS.owner) === 0 ? {} : { owner: { uid: this.uint32(), gid: this.uint32() } };
    const mode = (flags & HAS.mode) === 0 ? {} : { mode: this.uint32() };
    const times = (flags & HAS.times) === 0 ? {} : { times: { accessed: this.uint32(), modified: this.uint32() } };
    if ((flags & HAS.extended) !== 0) this.#skipExtended();
    return { ...size, ...owner, ...mode, ...times };
  }

  #skipExtended(): void {
    for (let left = this.uint32(); left > 0; left--) {
      this.bytes();
      this.bytes();
    }
  }

  #take(count: number): Buffer {
    const end = this.#at + count;
    if (end > this.#data.length) throw new AppError('invalid', 'SFTP packet is shorter than it says');
    const taken = this.#data.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

/** A packet with its length, of parts made by the functions below. */
export function packet(type: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat([Buffer.of(type), ...parts]);
  return Buffer.concat([uint32(body.length), body]);
}

export function uint32(value: number): Buffer {
  const buffer = Buffer.allocUnsafe(4);
  buffer.writeUInt32BE(value >>> 0, 0);
  return buffer;
}

export function uint64(value: number): Buffer {
  const buffer = Buffer.allocUnsafe(8);
  buffer.writeBigUInt64BE(BigInt(value), 0);
  return buffer;
}

export function bytes(value: Buffer | string): Buffer {
  const content = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([uint32(content.length), content]);
}

export function attributes({ size, owner, mode, times }: WireAttributes): Buffer {
  const flags =
    (size === undefined ? 0 : HAS.size) |
    (owner ? HAS.owner : 0) |
    (mode === undefined ? 0 : HAS.mode) |
    (times ? HAS.times : 0);
  return Buffer.concat([
    uint32(flags),
    ...(size === undefined ? [] : [uint64(size)]),
    ...(owner ? [uint32(owner.uid), uint32(owner.gid)] : []),
    ...(mode === undefined ? [] : [uint32(mode)]),
    ...(times ? [uint32(times.accessed), uint32(times.modified)] : []),
  ]);
}
