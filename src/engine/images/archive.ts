// Image files by their content: what packs them, and their metadata.yaml, read without trusting anything in them.
import { open } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import { readMember as readTarMember } from '#src/host/unpack/read-member.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';

interface Format {
  readonly name: string;
  /** Of the file name that an export proposes. */
  readonly extension: string;
  readonly offset: number;
  readonly magic: readonly number[];
}

const FORMATS: readonly Format[] = [
  { name: 'gzip', extension: '.tar.gz', offset: 0, magic: [0x1f, 0x8b] },
  { name: 'bzip2', extension: '.tar.bz2', offset: 0, magic: [0x42, 0x5a, 0x68] },
  { name: 'xz', extension: '.tar.xz', offset: 0, magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { name: 'lzma', extension: '.tar.lzma', offset: 0, magic: [0x5d, 0x00, 0x00] },
  { name: 'zstd', extension: '.tar.zst', offset: 0, magic: [0x28, 0xb5, 0x2f, 0xfd] },
  { name: 'squashfs', extension: '.squashfs', offset: 0, magic: [0x68, 0x73, 0x71, 0x73] },
  { name: 'tar', extension: '.tar', offset: 257, magic: [0x75, 0x73, 0x74, 0x61, 0x72] },
];
const HEAD_BYTES = 262;
const MAX_MEMBER_BYTES = 1 << 20;
const READ_LIMIT_MS = 10 * 60_000;

export interface ArchiveFormat {
  readonly name: string;
  readonly extension: string;
}

/** AppError 'invalid' with LXD's words for what is empty or unknown. */
export async function formatOf(path: string): Promise<ArchiveFormat> {
  await using file = await open(path, 'r');
  const head = Buffer.alloc(HEAD_BYTES);
  const { bytesRead } = await file.read(head, 0, HEAD_BYTES, 0);
  if (bytesRead === 0) throw new AppError('invalid', 'EOF');
  const format = FORMATS.find(({ offset, magic }) => {
    return (
      bytesRead >= offset + magic.length && head.subarray(offset, offset + magic.length).equals(Buffer.from(magic))
    );
  });
  if (!format) throw new AppError('invalid', 'Unsupported compression');
  return format;
}

/** The text of metadata.yaml in a tarball of any compression; decompressing stops where it is found. */
export async function readMetadataText(host: Host, archive: string, signal: AbortSignal): Promise<string> {
  const text = await readMember(host, archive, { member: 'metadata.yaml', signal });
  if (text === '') throw new AppError('invalid', 'metadata.yaml of the image is empty');
  return text;
}

export interface MemberRequest {
  /** Path in the archive, with or without "./" before it there. */
  readonly member: string;
  readonly signal: AbortSignal;
}

/** The content of one small file of a tarball; nothing of the archive is written anywhere, and no program reads it as root. */
export async function readMember(host: Host, archive: string, { member, signal }: MemberRequest): Promise<string> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(READ_LIMIT_MS)]);
  try {
    const text = await readTarMember(host, archive, { name: member, maxBytes: MAX_MEMBER_BYTES, signal: limit });
    if (text !== undefined) return text;
  } catch (error) {
    signal.throwIfAborted();
    throw new AppError('invalid', `Could not read ${member} in the image: ${messageOf(error)}`, { cause: error });
  }
  throw new AppError('invalid', `Could not read ${member} in the image: there is no such file`);
}
