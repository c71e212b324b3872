// The members of a tar one after the other, each as a stream: for archives that are too large to be unpacked.
import { Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '../host.ts';
import { detectFormat } from './formats.ts';
import { Sandbox } from './sandbox.ts';
import { withTarStream } from './tar-stream.ts';

export const TRUNCATED = 'the archive is truncated';
const BLOCK = 512;
const MAX_ATTRIBUTES_BYTES = 2 ** 20;
const PIECE = 64 * 1024;
const FILE_TYPES = new Set(['0', '\0', '7']);

/** A regular file; what is not read of it is passed over. */
export interface TarMember {
  readonly name: string;
  readonly size: number;
  readonly content: Readable;
}

interface Header {
  readonly name: string;
  readonly type: string;
  readonly size: number;
}

/** Takes bytes of a stream, and no more; closes the stream. */
class Reader implements AsyncDisposable {
  readonly #source: AsyncIterator<Buffer>;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** At least one byte, at most so many. */
  async some(most: number): Promise<Buffer> {
    while (this.#buffer.length === 0) {
      const next = await this.#source.next();
      if (next.done === true) throw new AppError('invalid', TRUNCATED);
      this.#buffer = next.value;
    }
    const piece = this.#buffer.subarray(0, most);
    this.#buffer = this.#buffer.subarray(piece.length);
    return piece;
  }

  async take(length: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let left = length; left > 0; ) {
      const piece = await this.some(left);
      pieces.push(piece);
      left -= piece.length;
    }
    return Buffer.concat(pieces);
  }

  async skip(length: number): Promise<void> {
    for (let left = length; left > 0; ) left -= (await this.some(left)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source.return?.();
  }
}

/** One member's bytes. Whoever reads them may read ahead: the archive goes on when that is over. */
class Content {
  readonly #reader: Reader;
  #left: number;
  #turn: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  constructor(reader: Reader, size: number) {
    this.#reader = reader;
    this.#left = size;
  }

  async *pieces(): AsyncGenerator<Buffer> {
    for (;;) {
      const turn = this.#turn.then(() => this.#next());
      this.#turn = turn.catch(() => undefined);
      const piece = await turn;
      if (piece === undefined) return;
      yield piece;
    }
  }

  async #next(): Promise<Buffer | undefined> {
    if (this.#isClosed || this.#left === 0) return undefined;
    const piece = await this.#reader.some(Math.min(this.#left, PIECE));
    this.#left -= piece.length;
    return piece;
  }

  /** Passes over what was not read. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#turn;
    await this.#reader.skip(this.#left);
    this.#left = 0;
  }
}

/** Runs `use` with the members, in their order; each is to be read before the next is asked for. AppError 'invalid' for what is no tar. */
export async function withTarMembers(
  host: Host,
  { path, signal }: { readonly path: string; readonly signal: AbortSignal },
  use: (members: AsyncGenerator<TarMember>) => Promise<void>,
): Promise<void> {
  const format = await detectFormat(path);
  if (format === 'squashfs') throw new AppError('unsupported', 'The archive is a squashfs file, which has no order');
  const stop = new AbortController();
  using sandbox = await Sandbox.nowhere(host, { fileBytes: 0, signal: AbortSignal.any([signal, stop.signal]) });
  let isUsed = false;
  const read = async (stream: Readable): Promise<void> => {
    try {
      await use(tarMembersOf(stream));
      isUsed = true;
    } finally {
      stop.abort(); // the rest does not matter
    }
  };
  await withTarStream(host, { path, format }, { sandbox, read }).catch((error: unknown) => {
    if (!isUsed) throw error; // else it was stopped by us
  });
  signal.throwIfAborted();
}

/** Of the stream of a tar. */
export async function* tarMembersOf(source: AsyncIterable<unknown>): AsyncGenerator<TarMember> {
  await using reader = new Reader(source as AsyncIterable<Buffer>);
  for (;;) {
    const header = await nextHeader(reader);
    if (!header) return;
    const { name, size, type } = header;
    const content = new Content(reader, size);
    if (FILE_TYPES.has(type)) yield { name, size, content: Readable.from(content.pieces(), { objectMode: false }) };
    await content.close();
    await reader.skip(padding(size));
  }
}

const padding = (size: number): number => (BLOCK - (size % BLOCK)) % BLOCK;

/** With what the attributes before it say of it: long names, large sizes. */
async function nextHeader(reader: Reader): Promise<Header | undefined> {
  const told: { name?: string; size?: number } = {};
  for (;;) {
    const header = headerOf(await reader.take(BLOCK));
    if (!header) return undefined;
    if (!'xgLKV'.includes(header.type)) return withAttributes(header, told);
    if (header.size > MAX_ATTRIBUTES_BYTES) throw new AppError('invalid', 'the archive has a header that is too long');
    const data = await reader.take(header.size);
    await reader.skip(padding(header.size));
    if (header.type === 'x') Object.assign(told, paxAttributes(data));
    if (header.type === 'L') told.name = data.toString().replace(/\0.*$/su, '');
  }
}

function withAttributes(header: Header, told: { readonly name?: string; readonly size?: number }): Header {
  const { name, size } = { ...header, ...told };
  return { ...header, size, name: name.replace(/^(?:\.?\/)+/u, '') };
}

function headerOf(block: Buffer): Header | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  const size = numberOf(block.subarray(124, 136));
  if (checksumOf(block) !== numberOf(block.subarray(148, 156)) || !Number.isSafeInteger(size) || size < 0) {
    throw new AppError('invalid', 'the archive has a damaged header');
  }
  const isUstar = block.toString('latin1', 257, 262) === 'ustar';
  const prefix = isUstar && block.toString('latin1', 262, 263) === '\0' ? textOf(block.subarray(345, 500)) : '';
  const name = textOf(block.subarray(0, 100));
  return { name: prefix === '' ? name : `${prefix}/${name}`, type: block.toString('latin1', 156, 157), size };
}

function checksumOf(block: Buffer): number {
  return block.reduce((sum, byte, index) => sum + (index >= 148 && index < 156 ? 0x20 : byte), 0);
}

function textOf(field: Buffer): string {
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? field.length : end);
}

/** Octal digits, or from 8 GiB on the number itself, as GNU tar and Go write it. */
function numberOf(field: Buffer): number {
  if (field[0] === 0x80) return Number(BigInt(`0x${field.toString('hex', 1)}`));
  return Number.parseInt(field.toString('latin1').replaceAll(/[\0 ]/gu, '') || '0', 8);
}

function paxAttributes(data: Buffer): { readonly name?: string; readonly size?: number } {
  const told: { name?: string; size?: number } = {};
  for (const [key, value] of paxRecords(data)) {
    if (key === 'path') told.name = value;
    if (key === 'size') told.size = sizeOf(value);
  }
  return told;
}

/** Each: its length in bytes, a blank, key=value, a line feed. */
function* paxRecords(data: Buffer): Generator<readonly [string, string]> {
  for (let at = 0; at < data.length; ) {
    const blank = data.indexOf(0x20, at);
    const length = blank < 0 ? Number.NaN : Number(data.toString('latin1', at, blank));
    if (!Number.isSafeInteger(length) || length <= blank - at || at + length > data.length) {
      throw new AppError('invalid', 'the archive has a damaged header');
    }
    const [, key = '', value = ''] = /^([^=]*)=(.*)\n$/su.exec(data.toString('utf8', blank + 1, at + length)) ?? [];
    yield [key, value];
    at += length;
  }
}

function sizeOf(value: string): number {
  const size = /^\d+$/u.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(size)) throw new AppError('invalid', 'the archive has a damaged header');
  return size;
}
