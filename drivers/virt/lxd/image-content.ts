// What an image really is, told by its content and never by what somebody declared.
import { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import type { Host } from '#src/host/host.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import { tarNames } from '#src/lib/tar.ts';
import type { DiskFormat } from './disk-image/reader.ts';

export type ImageKind = 'unified' | 'rootfs' | DiskFormat;

export interface InspectedImage {
  /** unified: LXD's tarball with metadata; rootfs: the root file system alone, a tarball or squashfs; else a disk with one. */
  readonly kind: ImageKind;
  /** File name ending: tar.xz, squashfs, qcow2 … */
  readonly extension: string;
  /** The whole content, the inspected head included. */
  readonly content: Readable;
}

/** A bzip2 block, the largest unit that has to be complete, is at most 900 kB. */
const HEAD_BYTES = 1024 * 1024;
const UNPACKED_HEAD_BYTES = 64 * 1024;

type Unpack = (head: Buffer, host: Host, signal: AbortSignal) => Promise<Buffer>;

interface Signature {
  readonly at: number;
  readonly bytes: Buffer;
}

const signature = (at: number, bytes: string): Signature => ({ at, bytes: Buffer.from(bytes, 'latin1') });

const COMPRESSIONS: readonly (Signature & { readonly extension: string; readonly unpack: Unpack })[] = [
  { ...signature(0, '\x1f\x8b'), extension: 'tar.gz', unpack: (head) => unpackWith(createGunzip(), head) },
  { ...signature(0, '(\xb5/\xfd'), extension: 'tar.zst', unpack: (head) => unpackWith(createZstdDecompress(), head) },
  { ...signature(0, '\xfd7zXZ\0'), extension: 'tar.xz', unpack: unpackByCommand('xz') },
  { ...signature(0, 'BZh'), extension: 'tar.bz2', unpack: unpackByCommand('bzip2') },
];

const SQUASHFS = signature(0, 'hsqs');

/** Well-known things that are not containers: the reason says what the image is. */
const FOREIGN: readonly (Signature & { readonly what: string })[] = [
  { ...signature(0, 'KDMV'), what: 'a VMDK disk image' },
  { ...signature(0, 'vhdxfile'), what: 'a VHDX disk image' },
  { ...signature(0, 'conectix'), what: 'a VHD disk image' },
  { ...signature(0, '\x7fELF'), what: 'an ELF executable' },
  { ...signature(0, 'PK\x03\x04'), what: 'a ZIP archive' },
  { ...signature(0x8001, 'CD001'), what: 'an ISO 9660 image' },
];

/** Disks that are read for their root file system: with a partition table, or without one. */
const DISKS: readonly (Signature & { readonly kind: DiskFormat })[] = [
  { ...signature(0, 'QFI\xfb'), kind: 'qcow2' },
  { ...signature(0x438, '\x53\xef'), kind: 'raw' },
  { ...signature(510, '\x55\xaa'), kind: 'raw' },
];

function has(head: Buffer, { at, bytes }: Signature): boolean {
  return head.subarray(at, at + bytes.length).equals(bytes);
}

/**
 * Reads the head of `source` and tells what it is. AppError 'invalid' when it is nothing that a container can boot from;
 * `source` is destroyed then, as it is when the returned content is.
 */
export async function inspectImage(source: Readable, host: Host, signal: AbortSignal): Promise<InspectedImage> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  try {
    const head = await readHead(chunks);
    return { ...(await recognise(head, host, signal)), content: wholeContent(head, chunks, source) };
  } catch (error) {
    source.destroy();
    throw error;
  }
}

async function readHead(chunks: AsyncIterator<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let length = 0; length < HEAD_BYTES; ) {
    const next = await chunks.next();
    if (next.done === true) break;
    parts.push(next.value);
    length += next.value.length;
  }
  return Buffer.concat(parts);
}

function wholeContent(head: Buffer, rest: AsyncIterator<Buffer>, source: Readable): Readable {
  const content = Readable.from(joined(head, rest), { objectMode: false });
  content.on('close', () => source.destroy());
  return content;
}

async function* joined(head: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield head;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

async function recognise(head: Buffer, host: Host, signal: AbortSignal): Promise<Omit<InspectedImage, 'content'>> {
  if (head.length === 0) throw unacceptable('the image is empty');
  if (has(head, SQUASHFS)) return { kind: 'rootfs', extension: 'squashfs' };
  const compression = COMPRESSIONS.find((candidate) => has(head, candidate));
  const plain = compression ? await compression.unpack(head, host, signal) : head;
  const names = tarNames(plain.subarray(0, UNPACKED_HEAD_BYTES));
  if (names === undefined) return diskOf(head, compression?.extension);
  if (names.length === 0) throw unacceptable('the image is an archive without files');
  return { kind: isUnified(names) ? 'unified' : 'rootfs', extension: compression?.extension ?? 'tar' };
}

/** metadata.yaml comes first in LXD's own tarballs; some tools write the folder rootfs/ before it. */
function isUnified(names: readonly string[]): boolean {
  return names.includes('metadata.yaml') || names.find((name) => name !== '' && name !== '.') === 'rootfs';
}

/** Only what is nothing else is a disk: its first sector is free for anything. */
function diskOf(head: Buffer, compression: string | undefined): Omit<InspectedImage, 'content'> {
  const isForeign = FOREIGN.some((candidate) => has(head, candidate));
  const disk = compression === undefined && !isForeign ? DISKS.find((candidate) => has(head, candidate)) : undefined;
  if (!disk) throw unacceptable(describe(head, compression));
  return { kind: disk.kind, extension: disk.kind };
}

function describe(head: Buffer, extension: string | undefined): string {
  if (extension !== undefined) return `the image is compressed (${extension.slice(4)}) but holds no tar archive`;
  const what = FOREIGN.find((candidate) => has(head, candidate))?.what ?? 'of an unknown format';
  return `the image is ${what}; containers boot from root file systems as tar (plain, gz, xz, zst, bz2), squashfs or LXD tarballs, and from qcow2 and raw disks`;
}

function unacceptable(reason: string): AppError {
  return new AppError('invalid', reason);
}

/** As much as the cut-off head gives; its sudden end is expected. */
async function unpackWith(stream: NodeJS.ReadWriteStream & { destroy(): void }, head: Buffer): Promise<Buffer> {
  stream.end(head);
  return collectHead(stream).finally(() => stream.destroy());
}

async function collectHead(stream: NodeJS.ReadableStream): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of stream) {
      parts.push(Buffer.from(chunk as Buffer));
      length += chunk.length;
      if (length >= UNPACKED_HEAD_BYTES) break;
    }
  } catch {
    // What was unpacked before the cut is what is wanted; a really damaged head gives no archive.
  }
  return Buffer.concat(parts);
}

function unpackByCommand(command: 'xz' | 'bzip2'): Unpack {
  return async (head, host, signal) => {
    const enough = new AbortController();
    const running = host.start([command, '-dc'], {
      signal: AbortSignal.any([signal, enough.signal]),
      timeoutMs: 30_000,
    });
    running.stdin.end(head);
    const plain = await collectHead(running.stdout);
    enough.abort();
    // It ended by our abort or complaining about the cut-off input; only that it never ran says something.
    const failure = await running.done.then(() => undefined, asError);
    signal.throwIfAborted();
    if (failure && isNotInstalled(failure)) {
      throw new AppError('unavailable', `${command} is needed to look at this image`, { cause: failure });
    }
    return plain;
  };
}

function isNotInstalled({ cause }: Error): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
}
