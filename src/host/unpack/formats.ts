// Tells what a file is by its first bytes; names and content types are only claims.
import { open } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import type { Argv } from '../host.ts';

export type ArchiveFormat = 'tar' | 'gzip' | 'bzip2' | 'xz' | 'lzma' | 'zstd' | 'squashfs';

const TAR_MAGIC_AT = 257;
const HEAD_BYTES = 512;

const MAGIC: readonly (readonly [ArchiveFormat, number, string])[] = [
  ['gzip', 0, '1f8b'],
  ['bzip2', 0, '425a68'],
  ['xz', 0, 'fd377a585a00'],
  ['lzma', 0, '5d0000'],
  ['zstd', 0, '28b52ffd'],
  ['squashfs', 0, '68737173'],
  ['tar', TAR_MAGIC_AT, '7573746172'],
];

/** xz -9 needs 65 MiB; a file may ask for 4 GiB. (zstd refuses windows of more than 128 MiB by itself.) */
const XZ_MEMORY = '--memlimit-decompress=256MiB';

/** What reads the compressed stream on its standard input and writes the tar stream. */
export const DECOMPRESSORS: Readonly<Record<Exclude<ArchiveFormat, 'tar' | 'squashfs'>, Argv>> = {
  gzip: ['gzip', '-dc'],
  bzip2: ['bzip2', '-dc'],
  xz: ['xz', '-dc', XZ_MEMORY],
  lzma: ['xz', '-dc', '--format=lzma', XZ_MEMORY],
  zstd: ['zstd', '-dcq'],
};

export function formatOf(head: Uint8Array): ArchiveFormat | undefined {
  const bytes = Buffer.from(head);
  return MAGIC.find(([, at, magic]) => bytes.toString('hex', at, at + magic.length / 2) === magic)?.[0];
}

/** AppError 'invalid' when it is nothing that we unpack. */
export async function detectFormat(path: string): Promise<ArchiveFormat> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    const format = formatOf(buffer.subarray(0, bytesRead));
    if (format) return format;
  } finally {
    await file.close();
  }
  throw new AppError(
    'invalid',
    'not an archive that can be unpacked: neither a tar (plain or compressed) nor a squashfs file',
  );
}
