// Packs an instance as a unified image: tar, compressor and hash side by side, nothing kept in between.
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Argv, Host, RunningCommand } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { Sandbox } from '#src/host/unpack/sandbox.ts';
import { AppError } from '#src/lib/errors.ts';
import { type TarFile, tarMembers } from '#src/lib/tar.ts';
import { borderOptions } from '../storage/tree-borders.ts';
import type { Compression } from './compression.ts';

export interface ImageContent {
  /** metadata.yaml and templates/. */
  readonly files: readonly TarFile[];
  readonly rootfsPath: string;
  /** Ids of the files there for those that they have inside; null: the same. */
  readonly owners: IdMapRange | null;
  /** Name of the root in the archive; "rootfs" by itself. */
  readonly rootName?: string;
  /** The tree may change while it is read. */
  readonly isLive?: boolean;
  /** Members that come first. */
  readonly before?: AsyncIterable<Buffer>;
}

export interface PackOptions {
  readonly compression: Compression;
  /** Bytes of the tar, as they go by. */
  readonly onBytes: (bytes: number) => void;
  /** A path for a file that is needed meanwhile; removed at the end. */
  readonly scratch: string;
  readonly signal: AbortSignal;
}

/** Of what can be compressed as it is made. */
export type StreamCompression = Exclude<Compression, { readonly kind: 'squashfs' }>;

/** Names begin with "./"; those of links' targets stay as they are, but hard links name members. */
const TAR: Argv = [
  'tar',
  '--create',
  '--file=-',
  '--format=posix',
  '--pax-option=delete=atime,delete=ctime',
  '--numeric-owner',
  '--acls',
  '--xattrs',
  '--xattrs-include=user.*',
  '--xattrs-include=security.capability',
  '--sparse',
  '--warning=no-file-ignored',
]; // prettier-ignore
/** Exit code 1: something changed, or went, while it was read. */
const LIVE: readonly string[] = ['--warning=no-file-changed', '--warning=no-file-removed'];
const SQUASH: Argv = ['mksquashfs', '-'];

/** The image as a stream. */
export async function* packImage(host: Host, content: ImageContent, options: PackOptions): AsyncGenerator<Buffer> {
  const { compression } = options;
  if (compression.kind === 'squashfs')
    return yield* squashed(host, content, { ...options, squash: compression.options });
  yield* compressed(host, tarStream(host, content, options), { ...options, compression });
}

/** An archive as it is, or through a program. */
export async function* compressed(
  host: Host,
  tar: AsyncGenerator<Buffer>,
  { compression, signal }: { readonly compression: StreamCompression; readonly signal: AbortSignal },
): AsyncGenerator<Buffer> {
  if (compression.kind === 'none') return yield* tar;
  yield* filtered(host, compression.argv, tar, signal);
}

/** The end of an archive that is written in blocks of the smallest size. */
const END_BYTES = 1024;

/** Members of an archive without its end: more follows. */
export async function* packMembers(
  host: Host,
  content: ImageContent,
  options: Pick<PackOptions, 'onBytes' | 'signal'>,
): AsyncGenerator<Buffer> {
  let held: Buffer = Buffer.alloc(0);
  for await (const chunk of tarStream(host, content, { ...options, isPart: true })) {
    const all = Buffer.concat([held, chunk]);
    const end = Math.max(0, all.length - END_BYTES);
    held = all.subarray(end);
    if (end > 0) yield all.subarray(0, end);
  }
}

interface TarOptions extends Pick<PackOptions, 'onBytes' | 'signal'> {
  /** Without the padding at the end. */
  readonly isPart?: boolean;
}

interface TarCommandOptions extends TarOptions {
  readonly borders: readonly string[];
}

function tarCommand(
  { rootName = 'rootfs', isLive = false }: ImageContent,
  { isPart = false, borders }: TarCommandOptions,
): Argv {
  const name = rootName.replaceAll(/[\\,&]/gu, String.raw`\$&`);
  const more = [...borders, ...(isLive ? LIVE : []), ...(isPart ? ['--blocking-factor=1'] : [])];
  return [...TAR, ...more, String.raw`--transform=flags=rhS;s,^\.,${name},`, '.'];
}

/** Programs that read the tree see its ids as they are inside: they run in a user namespace with the instance's map. */
async function* tarStream(host: Host, content: ImageContent, options: TarOptions): AsyncGenerator<Buffer> {
  const { files, rootfsPath, owners, isLive = false } = content;
  const end = new AbortController();
  const signal = AbortSignal.any([options.signal, end.signal]);
  using sandbox =
    owners === null
      ? undefined
      : await Sandbox.owning(host, { directory: rootfsPath, owners }, { fileBytes: 0, signal });
  const argv = tarCommand(content, { ...options, borders: await borderOptions(host, rootfsPath) });
  if (content.before) yield* content.before;
  const okExitCodes = isLive ? [0, 1] : [0];
  const run = { cwd: rootfsPath, signal, timeoutMs: Infinity, okExitCodes };
  const tar = host.start(sandbox?.command(argv) ?? argv, run);
  try {
    const head = tarMembers(files);
    options.onBytes(head.length);
    yield head;
    for await (const chunk of tar.stdout) {
      options.onBytes(chunk.length);
      yield chunk as Buffer;
    }
    await tar.done;
  } finally {
    await ended(tar, end);
  }
}

async function* filtered(
  host: Host,
  argv: Argv,
  tar: AsyncGenerator<Buffer>,
  outer: AbortSignal,
): AsyncGenerator<Buffer> {
  const end = new AbortController();
  const signal = AbortSignal.any([outer, end.signal]);
  const filter = host.start(argv, { signal, timeoutMs: Infinity });
  const feeding = feed(tar, filter, end);
  feeding.catch(() => undefined); // looked at when the output has ended
  try {
    for await (const chunk of filter.stdout) yield chunk as Buffer;
    await feeding;
    await filter.done;
  } finally {
    await ended(filter, end);
    await feeding.catch(() => undefined);
  }
}

/** A source that breaks off ends the program: half an input is no input. */
async function feed(source: AsyncGenerator<Buffer>, program: RunningCommand, end: AbortController): Promise<void> {
  try {
    await pipeline(Readable.from(source, { objectMode: false }), program.stdin);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // A program that ended by itself says why.
    if (code === 'EPIPE' || code === 'ERR_STREAM_PREMATURE_CLOSE') await program.done;
    end.abort(error);
    throw error;
  }
}

async function* squashed(
  host: Host,
  content: ImageContent,
  options: PackOptions & { readonly squash: readonly string[] },
): AsyncGenerator<Buffer> {
  const { scratch, squash, signal } = options;
  const argv: Argv = [...SQUASH, scratch, '-tar', '-noappend', '-no-progress', '-quiet', ...squash];
  try {
    for await (const _ of filtered(host, argv, tarStream(host, content, options), signal));
    yield* createReadStream(scratch) as AsyncIterable<Buffer>;
  } finally {
    await rm(scratch, { force: true });
  }
}

async function ended(program: RunningCommand, end: AbortController): Promise<void> {
  end.abort(new AppError('internal', 'its output was not wanted any more'));
  await program.done.catch(() => undefined);
}
