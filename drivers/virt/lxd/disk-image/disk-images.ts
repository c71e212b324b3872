// Disk images as root file systems: kept on this machine while a process without rights reads them.
//
// Neither the kernel nor a program in C looks into them: what reads partition tables, qcow2 and ext is our own, in a language
// that keeps to its memory, and in a process that has the file, a pipe, no network, no rights and nothing to write to.
import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import type { Argv, Host, RunningCommand } from '#src/host/host.ts';
import { CommandError } from '#src/host/command-error.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { DiskFormat, ReaderReport } from './reader.ts';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
/** The same extension as this file. */
const READER = join(ROOT, `bin/disk-image-reader${extname(fileURLToPath(import.meta.url))}`);
const MAX_CPU_SECONDS = 3600;
const MAX_HEAP_MIB = 512;
const QCOW2_SIZE_OFFSET = 24;

/** It becomes nobody by itself, when its code is loaded: until then it needs these two capabilities. */
const POWERLESS = 'setpriv --bounding-set -all,+setuid,+setgid --inh-caps -all --no-new-privs --';
const BOUNDED = `prlimit --fsize=0 --core=0 --nofile=64:64 --cpu=${MAX_CPU_SECONDS} --`;

export interface DiskImagesContext {
  readonly host: Host;
  readonly log: Log;
  /** Holds images while they are read and nothing else; made when it is needed. */
  readonly folder: string;
  /** Largest virtual size in bytes. */
  readonly maxDiskBytes: number;
}

export interface OpenDisk {
  readonly content: Readable;
  /** Of the disk as a virtual machine has it; what the image says of itself. */
  readonly diskBytes: number;
}

export class DiskImages {
  readonly #context: DiskImagesContext;

  constructor(context: DiskImagesContext) {
    this.#context = context;
  }

  /** Of processes that were killed; to be called before the first image of this one. */
  async removeLeftovers(): Promise<void> {
    await this.#context.host.removeTree(this.#context.folder);
  }

  /**
   * The root file system in the disk image `source`, as a tar stream (zstd); the caller reads or destroys it. Rejects, or it
   * fails, with AppError: 'invalid' (no image of that format, damaged, too large, no root file system that is read),
   * 'unavailable' (no room on this machine; cut off by `signal`). Nothing stays in the folder.
   */
  async open(source: Readable, format: DiskFormat, signal: AbortSignal): Promise<OpenDisk> {
    const { host, folder, maxDiskBytes } = this.#context;
    const file = join(folder, randomUUID());
    await host.makeDirectory(folder, { mode: 0o700 });
    const argv: Argv = [...confinedNode(), READER, format, String(maxDiskBytes)];
    const gone = new AbortController();
    let reader: RunningCommand;
    let diskBytes: number;
    try {
      await store(source, file, signal);
      diskBytes = await virtualSize(file, format);
      reader = host.start(argv, {
        inputFile: file,
        signal: AbortSignal.any([signal, gone.signal]),
        timeoutMs: Number.POSITIVE_INFINITY,
      });
    } finally {
      // The reader has it open, and when it ends the room is free again.
      await unlink(file).catch((error: unknown) => {
        if (!isCode(error, 'ENOENT')) throw error;
      });
    }
    const chunks = this.#output(reader, signal);
    const content = Readable.from(await begun(chunks), { objectMode: false });
    content.on('close', () => gone.abort(new AppError('unavailable', 'nobody reads the image any more')));
    return { content, diskBytes };
  }

  /** Ends only when the reader says that it was everything. */
  async *#output(reader: RunningCommand, signal: AbortSignal): AsyncGenerator<Buffer> {
    for await (const chunk of reader.stdout) yield chunk as Buffer;
    const { stderr } = await reader.done.catch((error: unknown) => {
      signal.throwIfAborted();
      throw reasonOf(error);
    });
    const report = JSON.parse(stderr) as ReaderReport;
    this.#context.log.info('disk image read', { ...report });
  }
}

function confinedNode(): Argv {
  // Who is not root may make a network namespace only within one of users.
  const apart = process.getuid?.() === 0 ? '--net --ipc --' : '--user --net --ipc --';
  const permissions = ['--permission', `--allow-fs-read=${ROOT}`];
  const heap = `--max-old-space-size=${MAX_HEAP_MIB}`;
  const confinement = `${apart} ${POWERLESS} ${BOUNDED}`.split(' ');
  return ['unshare', ...confinement, process.execPath, ...permissions, heap];
}

/** AppError 'unavailable' when there is no room. */
async function store(source: Readable, file: string, signal: AbortSignal): Promise<void> {
  try {
    await pipeline(source, createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal });
  } catch (error) {
    signal.throwIfAborted();
    if (!isCode(error, 'ENOSPC') && !isCode(error, 'EDQUOT')) throw error;
    throw new AppError('unavailable', `no room on this machine for the disk image (${file})`, { cause: error });
  }
}

/** One number of the file: nothing else of it is looked at in this process. */
async function virtualSize(file: string, format: DiskFormat): Promise<number> {
  await using handle = await open(file, 'r');
  if (format === 'raw') return (await handle.stat()).size;
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(8), 0, 8, QCOW2_SIZE_OFFSET);
  // the reader says what is wrong with such an image
  return bytesRead < 8 ? 0 : Number(buffer.readBigUInt64BE());
}

/** Waits for the first bytes, so that most refusals come before anything is sent to the engine. */
async function begun(chunks: AsyncGenerator<Buffer>): Promise<AsyncGenerator<Buffer>> {
  const first = await chunks.next();
  return (async function* all(): AsyncGenerator<Buffer> {
    if (first.done !== true) yield first.value;
    yield* chunks;
  })();
}

/** What the reader said, if it could. */
function reasonOf(error: unknown): Error {
  const said = error instanceof CommandError ? /^\{.*\}$/m.exec(error.stderr)?.[0] : undefined;
  if (said === undefined) return asError(error);
  const { unfit, failure } = JSON.parse(said) as { readonly unfit?: string; readonly failure?: string };
  if (unfit !== undefined) return new AppError('invalid', unfit, { cause: error });
  return new AppError('internal', `the disk image cannot be read: ${failure ?? said}`, { cause: error });
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
