// The superblock of ext2, ext3 and ext4 (Linux, Documentation/filesystems/ext4), and which features we read.
import { type Disk, unfit } from '../disk.ts';

export interface Superblock {
  readonly inodes: number;
  readonly blocks: number;
  readonly blockBytes: number;
  readonly firstDataBlock: number;
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  readonly label: string;
}

const AT = 1024;
const MAGIC = 0xef53;
const MAX_INODES = 2 ** 26;

/** Incompatible features by bit; absent: read by us. */
const REFUSED: Readonly<Record<number, string>> = {
  0: 'is compressed',
  2: 'was not unmounted cleanly: its journal has to be replayed (e2fsck)',
  3: 'is a journal and no file system',
  4: 'has the feature meta_bg',
  10: 'has the feature ea_inode',
  12: 'has the feature dirdata',
  16: 'is encrypted',
};
/** filetype, extents, 64bit, mmp, flex_bg, csum_seed, large_dir, inline_data, casefold. */
const READ = new Set([1, 6, 7, 8, 9, 13, 14, 15, 17]);
const IS_64BIT = 0x80;

/** AppError 'invalid' when it is damaged, or has what we do not read. */
export function readSuperblock(disk: Disk): Superblock {
  const block = disk.read(AT, 1024);
  if (block.readUInt16LE(56) !== MAGIC) throw unfit('the file system is no ext2, ext3 or ext4');
  const features = block.readUInt32LE(96);
  refuseFeatures(features);
  const isDynamic = block.readUInt32LE(76) > 0;
  const is64Bit = (features & IS_64BIT) !== 0;
  const found: Superblock = {
    inodes: block.readUInt32LE(0),
    blocks: block.readUInt32LE(4) + (is64Bit ? block.readUInt32LE(336) * 2 ** 32 : 0),
    blockBytes: 2 ** (10 + Math.min(block.readUInt32LE(24), 100)),
    firstDataBlock: block.readUInt32LE(20),
    blocksPerGroup: block.readUInt32LE(32),
    inodesPerGroup: block.readUInt32LE(40),
    inodeBytes: isDynamic ? block.readUInt16LE(88) : 128,
    descriptorBytes: is64Bit ? block.readUInt16LE(254) : 32,
    label: block.toString('latin1', 120, 136).replace(/\0.*$/s, ''),
  };
  check(found, disk);
  return found;
}

function refuseFeatures(features: number): void {
  for (let bit = 0; bit < 32; bit++) {
    if (((features >>> bit) & 1) === 0 || READ.has(bit)) continue;
    throw unfit(`the ext file system ${REFUSED[bit] ?? `has an unknown feature (bit ${bit})`}`);
  }
}

function check(block: Superblock, disk: Disk): void {
  if (!isSized(block, disk) || !hasSoundInodes(block))
    throw unfit('the superblock of the ext file system is damaged, or larger than its partition');
}

function isPower(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}

function isSized({ blocks, blockBytes, firstDataBlock, blocksPerGroup }: Superblock, disk: Disk): boolean {
  const fits = blockBytes <= 65_536 && blocks * blockBytes <= disk.sizeBytes;
  return fits && firstDataBlock <= 1 && blocksPerGroup > 0 && blocksPerGroup <= blockBytes * 8;
}

function hasSoundInodes(block: Superblock): boolean {
  const { inodes, inodesPerGroup, inodeBytes, descriptorBytes, blockBytes } = block;
  const groups = Math.ceil((block.blocks - block.firstDataBlock) / block.blocksPerGroup);
  const isCounted = inodes > 10 && inodes <= MAX_INODES && inodes <= groups * inodesPerGroup;
  const sizes = [
    [inodeBytes, 128, blockBytes],
    [descriptorBytes, 32, 1024],
  ] as const;
  return isCounted && sizes.every(([size, least, most]) => size >= least && size <= most && isPower(size));
}
