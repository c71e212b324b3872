// Where the content of a file lies: extents of ext4, block maps of ext2 and ext3.
import { unfit } from '../disk.ts';
import type { Inode } from './inode.ts';
import type { Volume } from './volume.ts';

export interface Run {
  /** Blocks of the file. */
  readonly first: number;
  readonly count: number;
  /** Block of the file system. */
  readonly at: number;
}

const EXTENT_MAGIC = 0xf30a;
const MAX_DEPTH = 5;
const ENTRY_BYTES = 12;
/** Longer ones are allocated and not written: they read as zeros. */
const MAX_WRITTEN = 32_768;
const DIRECT = 12;

/** In the order of the file; what lies between them is a hole. AppError 'invalid' for a damaged map. */
export function* blockRuns(volume: Volume, inode: Inode): Generator<Run> {
  const { blockBytes } = volume.superblock;
  const blocks = Math.ceil(inode.sizeBytes / blockBytes);
  let next = 0;
  for (const run of inode.hasExtents ? extents(volume, inode.map) : mapped(volume, inode.map, blocks)) {
    if (run.first >= blocks) return; // allocated in advance
    if (run.first < next) throw damaged(inode, 'its extents are out of order');
    next = run.first + run.count;
    yield { ...run, count: Math.min(run.count, blocks - run.first) };
  }
}

function damaged({ number }: Inode, why: string): Error {
  return unfit(`the ext file system is damaged: inode ${number}: ${why}`);
}

function* extents(volume: Volume, node: Buffer, above = MAX_DEPTH + 1): Generator<Run> {
  const [entries, depth] = [node.readUInt16LE(2), node.readUInt16LE(6)];
  const isSound = node.readUInt16LE(0) === EXTENT_MAGIC && (entries + 1) * ENTRY_BYTES <= node.length && depth < above;
  if (!isSound) throw unfit('the ext file system is damaged: a tree of extents');
  for (let at = ENTRY_BYTES; at <= entries * ENTRY_BYTES; at += ENTRY_BYTES) {
    const first = node.readUInt32LE(at);
    if (depth > 0) {
      const child = node.readUInt32LE(at + 4) + node.readUInt16LE(at + 8) * 2 ** 32;
      yield* extents(volume, volume.readBlock(child), depth);
      continue;
    }
    const count = node.readUInt16LE(at + 4);
    if (count === 0) throw unfit('the ext file system is damaged: an extent of no blocks');
    if (count > MAX_WRITTEN) continue;
    yield { first, count, at: node.readUInt32LE(at + 8) + node.readUInt16LE(at + 6) * 2 ** 32 };
  }
}

function* mapped(volume: Volume, map: Buffer, blocks: number): Generator<Run> {
  const perBlock = volume.superblock.blockBytes / 4;
  for (let index = 0; index < DIRECT; index++) {
    const at = map.readUInt32LE(index * 4);
    if (at !== 0) yield { first: index, count: 1, at };
  }
  let first = DIRECT;
  for (const level of [1, 2, 3]) {
    if (first >= blocks) return;
    yield* indirect(volume, map.readUInt32LE((DIRECT + level - 1) * 4), { first, level, blocks });
    first += perBlock ** level;
  }
}

function* indirect(
  volume: Volume,
  table: number,
  { first, level, blocks }: { readonly first: number; readonly level: number; readonly blocks: number },
): Generator<Run> {
  if (table === 0) return;
  const entries = volume.readBlock(table);
  const span = (entries.length / 4) ** (level - 1);
  for (let index = 0; index < entries.length / 4; index++) {
    const at = entries.readUInt32LE(index * 4);
    const begin = first + index * span;
    if (begin >= blocks) return;
    if (at === 0) continue;
    if (level === 1) yield { first: begin, count: 1, at };
    else yield* indirect(volume, at, { first: begin, level: level - 1, blocks });
  }
}
