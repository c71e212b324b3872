// Compression of images, as clients and the configuration name it: "gzip --rsyncable", "zstd -19", "squashfs", "none".
import type { Argv } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';

export type Compression =
  | { readonly kind: 'none' }
  /** A program that reads the tar and writes the compressed stream. */
  | { readonly kind: 'filter'; readonly argv: Argv }
  /** mksquashfs writes a file; these are its further options. */
  | { readonly kind: 'squashfs'; readonly options: readonly string[] };

/** Programs, and what they are always told: images have no time stamp of their own, and all processors help. */
const FILTERS: Readonly<Record<string, Argv>> = {
  gzip: ['gzip', '-c', '-n'],
  pigz: ['pigz', '-c', '-n'],
  bzip2: ['bzip2', '-c'],
  lzma: ['xz', '-c', '--format=lzma'],
  xz: ['xz', '-c', '-T0'],
  zstd: ['zstd', '-c', '-q', '-T0'],
};

/** None of them names a file. */
const FILTER_OPTION =
  /^(-[0-9]{1,2}e?|-e|-n|-q|-T[0-9]{1,3}|--(fast(=[0-9]+)?|best|extreme|rsyncable|ultra|adapt|no-name|(threads|long|block-size|memlimit-compress)=[0-9]+[KMG]?i?B?|long|check=[a-z0-9]+))$/u;
const SQUASHFS_OPTION = /^(-comp|-b|-Xcompression-level|-Xdict-size|-Xbcj|-no-fragments|[a-z0-9,%]+)$/u;

/** AppError 'invalid' for what is unknown; nothing of the text is ever seen by a shell. */
export function parseCompression(text: string): Compression {
  const [name = '', ...options] = text.trim().split(/\s+/u);
  if (name === 'none' && options.length === 0) return { kind: 'none' };
  if (name === 'squashfs') {
    checkOptions(text, options, SQUASHFS_OPTION);
    return { kind: 'squashfs', options: options.includes('-comp') ? options : ['-comp', 'xz', ...options] };
  }
  const filter = Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined;
  if (!filter) throw new AppError('invalid', `Invalid compression algorithm "${text}"`);
  checkOptions(text, options, FILTER_OPTION);
  return { kind: 'filter', argv: [...filter, ...options] };
}

function checkOptions(text: string, options: readonly string[], allowed: RegExp): void {
  const bad = options.find((option) => !allowed.test(option));
  if (bad !== undefined) throw new AppError('invalid', `Invalid compression algorithm "${text}": option "${bad}"`);
}
