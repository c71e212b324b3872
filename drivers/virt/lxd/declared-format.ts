// Glance's disk_format beside what an image really is.
import { AppError } from '#src/lib/errors.ts';
import type { ImageKind } from './image-content.ts';

/** Those that spawn() accepts. Tarballs and squashfs files are commonly declared raw, since Glance has no name for them. */
export const DISK_FORMATS = ['raw', 'qcow2', 'root-tar', 'squashfs'] as const;

/** Images of virtual machines, and parts of them (Amazon's kernels, ramdisks and machines). */
const FOREIGN = new Set(['aki', 'ami', 'ari', 'iso', 'ploop', 'vdi', 'vhd', 'vhdx', 'vmdk']);

/** AppError 'invalid' for formats that no container boots from. */
export function requireTaken(diskFormat: string): void {
  if (FOREIGN.has(diskFormat))
    throw new AppError('invalid', `images of disk format ${diskFormat} are not taken: ${DISK_FORMATS.join(', ')} are`);
}

/** AppError 'invalid' for a disk that is another than was declared: Glance did not check it as what it is (CVE-2024-32498 and its kin). */
export function requireDeclared(kind: ImageKind, diskFormat: string): void {
  const isQcow2 = kind === 'qcow2';
  if (isQcow2 !== (diskFormat === 'qcow2') || (kind === 'raw' && diskFormat !== 'raw')) {
    const found = isQcow2 || kind === 'raw' ? `a ${kind} disk` : 'an archive';
    throw new AppError('invalid', `the image is declared as ${diskFormat} and is ${found}`);
  }
}

/** The same bytes under another declaration are another image: what the cache holds was checked under one. */
export function declaredKey(cacheKey: string, diskFormat: string): string {
  return diskFormat === 'raw' || diskFormat === '' ? cacheKey : `${cacheKey} as ${diskFormat}`;
}
