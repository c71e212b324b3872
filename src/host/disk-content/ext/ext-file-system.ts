// ext2, ext3 and ext4, read without the kernel: directories, contents, links, attributes. Names are bytes, as latin1.
import { type Disk, unfit } from '../disk.ts';
import { attributesOf, type Attribute } from './attributes.ts';
import { blockRuns } from './block-runs.ts';
import { type DirectoryEntry, entriesOf } from './directory-block.ts';
import type { Inode } from './inode.ts';
import { Volume } from './volume.ts';

const ROOT_INODE = 2;
const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024;
const MAX_LINK_BYTES = 4096;
const READ_BYTES = 1024 * 1024;
const INLINE_DATA = 'system.data';

export class ExtFileSystem {
  readonly #volume: Volume;

  /** AppError 'invalid' for one that is damaged, or has features that we do not read. */
  constructor(disk: Disk) {
    this.#volume = new Volume(disk);
  }

  get label(): string {
    return this.#volume.superblock.label;
  }

  get sizeBytes(): number {
    return this.#volume.superblock.blocks * this.#volume.superblock.blockBytes;
  }

  get inodes(): number {
    return this.#volume.superblock.inodes;
  }

  get root(): Inode {
    const inode = this.inode(ROOT_INODE);
    if (inode.kind !== 'directory') throw unfit('the ext file system is damaged: its root is no directory');
    return inode;
  }

  inode(number: number): Inode {
    return this.#volume.readInode(number);
  }

  attributes(inode: Inode): readonly Attribute[] {
    return attributesOf(this.#volume, inode).filter(({ name }) => name !== INLINE_DATA);
  }

  /** The bytes of a file, `sizeBytes` in all, holes as zeros. */
  *content(inode: Inode): Generator<Buffer> {
    if (inode.isInline) {
      yield this.#inlineContent(inode);
      return;
    }
    const { blockBytes } = this.#volume.superblock;
    let done = 0;
    for (const { first, count, at } of blockRuns(this.#volume, inode)) {
      yield* zeros(first * blockBytes - done);
      done = first * blockBytes;
      const step = Math.max(1, Math.floor(READ_BYTES / blockBytes));
      for (let block = 0; block < count; block += step) {
        const piece = this.#volume.readBlocks(at + block, Math.min(step, count - block));
        const wanted = Math.min(piece.length, inode.sizeBytes - done);
        yield piece.subarray(0, wanted);
        done += wanted;
      }
    }
    yield* zeros(inode.sizeBytes - done);
  }

  /** Without "." and "..". AppError 'invalid' for names that no file can have. */
  entries(directory: Inode): readonly DirectoryEntry[] {
    if (directory.sizeBytes > MAX_DIRECTORY_BYTES)
      throw unfit(`the image has a directory of ${directory.sizeBytes} bytes`);
    if (directory.isInline) {
      const content = this.#inlineContent(directory);
      // The first four bytes are the parent; what did not fit in the inode is a list of its own.
      return [...entriesOf(content.subarray(4, 60)), ...entriesOf(content.subarray(60))];
    }
    const { blockBytes } = this.#volume.superblock;
    const blocks = [...blockRuns(this.#volume, directory)].flatMap(({ at, count }) =>
      Array.from({ length: count }, (_, index) => entriesOf(this.#volume.readBlock(at + index))),
    );
    if (directory.sizeBytes % blockBytes !== 0) throw unfit('the ext file system is damaged: a directory');
    return blocks.flat();
  }

  linkTarget(link: Inode): string {
    if (link.sizeBytes === 0 || link.sizeBytes > MAX_LINK_BYTES) throw unfit('the image has a damaged symbolic link');
    const isInInode = !link.hasExtents && !link.isInline && link.sizeBytes < link.map.length;
    const target = isInInode ? link.map.subarray(0, link.sizeBytes) : Buffer.concat([...this.content(link)]);
    if (target.includes(0)) throw unfit('the image has a damaged symbolic link');
    return target.toString('latin1');
  }

  #inlineContent(inode: Inode): Buffer {
    const more = attributesOf(this.#volume, inode).find(({ name }) => name === INLINE_DATA)?.value;
    const content = Buffer.concat([inode.map, ...(more ? [more] : [])]);
    if (inode.sizeBytes > content.length) throw unfit('the ext file system is damaged: a file within its inode');
    return content.subarray(0, inode.sizeBytes);
  }
}

function* zeros(count: number): Generator<Buffer> {
  for (let left = count; left > 0; left -= READ_BYTES) yield Buffer.alloc(Math.min(left, READ_BYTES));
}
