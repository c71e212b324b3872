// Blocks and inodes of an ext file system.
import { type Disk, Recent, unfit } from '../disk.ts';
import { type Inode, parseInode } from './inode.ts';
import { readSuperblock, type Superblock } from './superblock.ts';

const BLOCKS_KEPT = 64;

export class Volume {
  readonly superblock: Superblock;
  readonly #disk: Disk;
  readonly #recent = new Recent<Buffer>(BLOCKS_KEPT);
  /** Blocks of tables and directories that may still be read: a damaged file system could have us read the same ones for ever. */
  #budget: number;

  /** AppError 'invalid' for what is damaged or not read by us. */
  constructor(disk: Disk) {
    this.#disk = disk;
    this.superblock = readSuperblock(disk);
    this.#budget = 4 * (this.superblock.blocks + this.superblock.inodes) + 100_000;
  }

  /** One block of what describes files; counted. */
  readBlock(block: number): Buffer {
    this.#budget -= 1;
    if (this.#budget < 0) throw unfit('the ext file system is damaged: its tables lead in circles');
    return this.#recent.get(block, () => this.readBlocks(block, 1));
  }

  readBlocks(block: number, count: number): Buffer {
    const { blockBytes, blocks, firstDataBlock } = this.superblock;
    if (block < firstDataBlock || block + count > blocks)
      throw unfit(`the ext file system is damaged: it refers to block ${block} of ${blocks}`);
    return this.#disk.read(block * blockBytes, count * blockBytes);
  }

  readInode(number: number): Inode {
    const { inodes, inodesPerGroup, inodeBytes, blockBytes, descriptorBytes, firstDataBlock } = this.superblock;
    if (number < 1 || number > inodes)
      throw unfit(`the ext file system is damaged: it refers to inode ${number} of ${inodes}`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    const descriptorAt = group * descriptorBytes;
    const descriptors = this.readBlock(firstDataBlock + 1 + Math.floor(descriptorAt / blockBytes));
    const descriptor = descriptors.subarray(descriptorAt % blockBytes, (descriptorAt % blockBytes) + descriptorBytes);
    const high = descriptorBytes >= 64 ? descriptor.readUInt32LE(0x28) * 2 ** 32 : 0;
    const inodeAt = ((number - 1) % inodesPerGroup) * inodeBytes;
    const table = this.readBlock(descriptor.readUInt32LE(8) + high + Math.floor(inodeAt / blockBytes));
    return parseInode(number, table.subarray(inodeAt % blockBytes, (inodeAt % blockBytes) + inodeBytes));
  }
}
