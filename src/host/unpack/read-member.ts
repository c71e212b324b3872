// Reads one small file of a tar without unpacking it: the metadata of an image that has just come in.
import { createReadStream } from 'node:fs';
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from '../command-error.ts';
import type { Argv, Host } from '../host.ts';
import { detectFormat } from './formats.ts';
import { Sandbox } from './sandbox.ts';
import { withTarStream } from './tar-stream.ts';

const BLOCK = 512;
const FILE_TYPES = new Set(['0', '\0']);

interface Header {
  readonly name: string;
  readonly type: string;
  readonly size: number;
}

/** Waits for so many bytes of a stream, and for no more; closes the stream. */
class Reader implements AsyncDisposable {
  readonly #source: AsyncIterator<Buffer>;
  #buffer: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  async take(length: number): Promise<Buffer> {
    const pieces = [this.#buffer];
    for (let have = this.#buffer.length; have < length; ) {
      const next = await this.#source.next();
      if (next.done === true) throw new AppError('invalid', 'the archive is truncated');
      pieces.push(next.value);
      have += next.value.length;
    }
    const all = Buffer.concat(pieces);
    this.#buffer = all.subarray(length);
    return all.subarray(0, length);
  }

  async skip(length: number): Promise<void> {
    for (let left = length; left > 0; left -= 64 * 1024) await this.take(Math.min(left, 64 * 1024));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source.return?.();
  }
}

function parseHeader(block: Buffer): Header | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  const name = block.toString('utf8', 0, 100).replace(/\0.*$/s, '');
  const size = sizeOf(block.subarray(124, 136));
  if (!Number.isSafeInteger(size) || size < 0) throw new AppError('invalid', 'the archive has a damaged header');
  return { name, type: block.toString('latin1', 156, 157), size };
}

/** Octal digits, or from 8 GiB on the number itself, as GNU tar writes it. */
function sizeOf(field: Buffer): number {
  if (field[0] === 0x80) return Number(BigInt(`0x${field.toString('hex', 1)}`));
  return Number.parseInt(field.toString('latin1'), 8);
}

interface MemberRequest {
  readonly name: string;
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

/** The contents; undefined when the archive has no such file. AppError 'invalid' when it is larger than `maxBytes`. */
export async function readMember(
  host: Host,
  path: string,
  { name, maxBytes, signal }: MemberRequest,
): Promise<string | undefined> {
  const format = await detectFormat(path);
  if (format === 'squashfs') return await readSquashfs(host, path, { name, maxBytes, signal });
  if (format === 'tar') return await find(createReadStream(path, { signal }), name, maxBytes); // no program takes part
  const stop = new AbortController();
  using sandbox = await Sandbox.nowhere(host, { fileBytes: 0, signal: AbortSignal.any([signal, stop.signal]) });
  const result = Promise.withResolvers<string | undefined>();
  result.promise.catch(() => {});
  const read = async (stream: AsyncIterable<unknown>): Promise<void> => {
    await find(stream, name, maxBytes).then(result.resolve, result.reject);
    stop.abort(); // the rest does not matter
  };
  // What ends the program that we stopped is no news; but it must be gone.
  await withTarStream(host, { path, format }, { sandbox, read }).catch(result.reject);
  signal.throwIfAborted();
  return await result.promise;
}

async function find(stream: AsyncIterable<unknown>, wanted: string, maxBytes: number): Promise<string | undefined> {
  await using reader = new Reader(stream as AsyncIterable<Buffer>);
  for (;;) {
    const header = parseHeader(await reader.take(BLOCK));
    if (!header) return undefined;
    const { name, type, size } = header;
    if (FILE_TYPES.has(type) && (name === wanted || name === `./${wanted}`)) {
      if (size > maxBytes) throw new AppError('invalid', `${wanted} has ${size} bytes`);
      return (await reader.take(size)).toString();
    }
    await reader.skip(Math.ceil(size / BLOCK) * BLOCK);
  }
}

async function readSquashfs(
  host: Host,
  path: string,
  { name, maxBytes, signal }: MemberRequest,
): Promise<string | undefined> {
  const stop = new AbortController();
  using sandbox = await Sandbox.nowhere(host, { fileBytes: 0, signal: AbortSignal.any([signal, stop.signal]) });
  // By name, so it must be readable to nobody: it is, when seen through nobody's map.
  using image = await host.mounts.openMapped(path, sandbox.ids, { readonly: true });
  const argv: Argv = ['unsquashfs', '-cat', '/proc/self/fd/0', name];
  const program = host.start(sandbox.command(argv), { ...sandbox.options, inputFile: image.path });
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of program.stdout) {
    pieces.push(piece as Buffer);
    bytes += piece.length;
    if (bytes > maxBytes) stop.abort(new AppError('invalid', `${name} has more than ${maxBytes} bytes`));
  }
  try {
    await program.done;
  } catch (error) {
    if (stop.signal.aborted) throw stop.signal.reason;
    if (error instanceof CommandError && error.stderr.includes('no matches for')) return undefined;
    throw error;
  }
  return Buffer.concat(pieces).toString();
}
