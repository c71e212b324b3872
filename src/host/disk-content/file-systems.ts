// What a partition holds, told by its content: for the choice of the root and for the reason of a refusal.
import type { Disk } from './disk.ts';

export type FileSystem =
  | 'ext'
  | 'fat'
  | 'swap'
  | 'xfs'
  | 'btrfs'
  | 'LUKS'
  | 'LVM'
  | 'squashfs'
  | 'f2fs'
  | 'NTFS'
  | 'unknown';

const SIGNATURES: readonly (readonly [FileSystem, number, string])[] = [
  ['xfs', 0, 'XFSB'],
  ['LUKS', 0, 'LUKS\xba\xbe'],
  ['squashfs', 0, 'hsqs'],
  ['LVM', 512, 'LABELONE'],
  ['NTFS', 3, 'NTFS    '],
  ['fat', 0x36, 'FAT'],
  ['fat', 0x52, 'FAT32'],
  ['ext', 0x438, '\x53\xef'],
  ['f2fs', 0x400, '\x10\x20\xf5\xf2'],
  ['swap', 4086, 'SWAPSPACE2'],
  ['btrfs', 0x1_0040, '_BHRfS_M'],
];

export function fileSystemOf(part: Disk): FileSystem {
  const found = SIGNATURES.find(([, at, bytes]) => {
    return at + bytes.length <= part.sizeBytes && part.read(at, bytes.length).toString('latin1') === bytes;
  });
  return found?.[0] ?? 'unknown';
}

/** Where the root of a Linux system may be, though we cannot read it. */
export const UNREADABLE_ROOTS: ReadonlySet<FileSystem> = new Set(['xfs', 'btrfs', 'LUKS', 'LVM', 'squashfs', 'f2fs']);
