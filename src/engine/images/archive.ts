// Image files by their content: what packs them, and their metadata.yaml, read without trusting anything in them.
import { open } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import { readMembers as readTarMembers } from '#src/host/unpack/read-member.ts';
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
/** All templates of an image. */
const MAX_MEMBERS_BYTES = 16 << 20;
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
  const name = 'metadata.yaml';
  const text = (await readMembers(host, archive, { members: new Set([name]), signal })).get(name) ?? '';
  if (text === '') throw new AppError('invalid', 'metadata.yaml of the image is empty');
  return text;
}

/** Small files of a tarball, in one go; nothing of the archive is written anywhere, and no program reads it as root. */
export async function readMembers(
  host: Host,
  archive: string,
  { members, signal }: { readonly members: ReadonlySet<string>; readonly signal: AbortSignal },
): Promise<ReadonlyMap<string, string>> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(READ_LIMIT_MS)]);
  const [first = ''] = members;
  const limits = { maxBytes: MAX_MEMBER_BYTES, maxTotalBytes: MAX_MEMBERS_BYTES, signal: limit };
  const found = await readTarMembers(host, archive, { names: members, ...limits }).catch((error: unknown) => {
    signal.throwIfAborted();
    throw new AppError('invalid', `Could not read ${first} in the image: ${messageOf(error)}`, { cause: error });
  });
  const missing = [...members].find((name) => !found.has(name));
  if (missing === undefined) return found;
  throw new AppError('invalid', `Could not read ${missing} in the image: there is no such file`);
}
