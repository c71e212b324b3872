// The tar stream of an archive: decompressed by a program that has no power, and counted on its way.
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from '../command-error.ts';
import type { Host } from '../host.ts';
import { type ArchiveFormat, DECOMPRESSORS } from './formats.ts';
import type { Sandbox } from './sandbox.ts';

const BLOCK = 512;
/** Headers, padding and end of a tar, over the bytes of its files. */
const OVERHEAD_PER_ENTRY = 8 * 1024;

export interface TarSource {
  readonly path: string;
  readonly format: Exclude<ArchiveFormat, 'squashfs'>;
}

export interface TarStreamLimits {
  readonly maxBytes: number;
  readonly maxEntries: number;
}

/** Passes a stream on, and stops a bomb; knows at the end whether the archive was whole. */
export class TarStreamCheck {
  readonly #maxBytes: number;
  #bytes = 0;
  #tail: Buffer = Buffer.alloc(0);

  constructor({ maxBytes, maxEntries }: TarStreamLimits) {
    this.#maxBytes = maxBytes + maxEntries * OVERHEAD_PER_ENTRY;
  }

  async *pass(source: AsyncIterable<unknown>): AsyncGenerator<Buffer> {
    for await (const piece of source) {
      const chunk = piece as Buffer;
      this.#bytes += chunk.length;
      if (this.#bytes > this.#maxBytes)
        throw new AppError('invalid', `the archive unpacks to more than ${this.#maxBytes} bytes`);
      this.#tail = chunk.length >= BLOCK ? chunk.subarray(-BLOCK) : Buffer.concat([this.#tail, chunk]).subarray(-BLOCK);
      yield chunk;
    }
  }

  /** A tar ends with blocks of zeros. GNU tar would take one that was cut between two members for complete. */
  assertWhole(): void {
    if (this.#bytes < BLOCK || this.#tail.some((byte) => byte !== 0))
      throw new AppError('invalid', 'the archive is truncated');
  }
}

/** Writes the tar stream of `source` into `sink`. Rejects with AppError 'invalid' when it is damaged, cut off or too large. */
export async function feedTar(
  host: Host,
  source: TarSource,
  to: { readonly sandbox: Sandbox; readonly sink: NodeJS.WritableStream; readonly check: TarStreamCheck },
): Promise<void> {
  const { sandbox, sink, check } = to;
  await withTarStream(host, source, {
    sandbox,
    read: (stream) => pipeline(stream, (chunks) => check.pass(chunks), sink),
  });
  check.assertWhole();
}

/** Opens the tar stream for `read`; what `read` leaves unread is not looked at. */
export async function withTarStream(
  host: Host,
  { path, format }: TarSource,
  { sandbox, read }: { readonly sandbox: Sandbox; readonly read: (stream: Readable) => Promise<void> },
): Promise<void> {
  if (format === 'tar') {
    await read(createReadStream(path));
    return;
  }
  const options = { ...sandbox.options, cwd: '/', inputFile: path };
  const decompressor = host.start(sandbox.command(DECOMPRESSORS[format]), options);
  try {
    await read(Readable.from(decompressor.stdout, { objectMode: false }));
  } finally {
    await decompressor.done.catch(() => {}); // looked at below; in any case it is gone before we go on
  }
  await decompressor.done.catch((error: unknown) => {
    if (!(error instanceof CommandError) || error.exitCode === null) throw error;
    throw new AppError('invalid', `the archive is damaged: ${error.stderr.trim()}`, { cause: error });
  });
}
