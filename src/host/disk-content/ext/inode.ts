// An inode of ext2, ext3 and ext4 as it lies on the disk.
import { countable, unfit } from '../disk.ts';

export type FileKind = 'file' | 'directory' | 'symlink' | 'fifo' | 'device' | 'socket';

export interface Inode {
  readonly number: number;
  readonly kind: FileKind;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly modified: number;
  readonly links: number;
  readonly hasExtents: boolean;
  readonly isInline: boolean;
  /** The 60 bytes that tell where the content is, or are the content. */
  readonly map: Buffer;
  /** Block of extended attributes; 0: none. */
  readonly attributesBlock: number;
  /** Extended attributes in the inode itself, after their magic; empty: none. */
  readonly ownAttributes: Buffer;
}

const KINDS: Readonly<Record<number, FileKind>> = {
  0x1: 'fifo',
  0x2: 'device',
  0x4: 'directory',
  0x6: 'device',
  0x8: 'file',
  0xa: 'symlink',
  0xc: 'socket',
};
const HAS_EXTENTS = 0x8_0000;
const IS_INLINE = 0x1000_0000;
const IS_UNREADABLE = 0x4 | 0x800;
const ATTRIBUTES_MAGIC = 0xea02_0000;
const SMALL_INODE = 128;

/** AppError 'invalid' for one that is free, or cannot be read. */
export function parseInode(number: number, raw: Buffer): Inode {
  const mode = raw.readUInt16LE(0);
  const kind = KINDS[mode >> 12];
  const links = raw.readUInt16LE(26);
  if (kind === undefined || links === 0) throw unfit(`the ext file system is damaged: inode ${number} is no file`);
  const flags = raw.readUInt32LE(32);
  if ((flags & IS_UNREADABLE) !== 0) throw unfit('the ext file system has compressed or encrypted files');
  const size = BigInt(raw.readUInt32LE(4)) | (BigInt(raw.readUInt32LE(108)) << 32n);
  return {
    number,
    kind,
    mode: mode & 0o7777,
    uid: raw.readUInt16LE(2) + raw.readUInt16LE(120) * 65_536,
    gid: raw.readUInt16LE(24) + raw.readUInt16LE(122) * 65_536,
    sizeBytes: countable(size, 'size of a file'),
    modified: raw.readInt32LE(16) + laterEpochs(raw),
    links,
    hasExtents: (flags & HAS_EXTENTS) !== 0,
    isInline: (flags & IS_INLINE) !== 0,
    map: raw.subarray(40, 100),
    attributesBlock: raw.readUInt32LE(104) + raw.readUInt16LE(118) * 2 ** 32,
    ownAttributes: ownAttributes(raw),
  };
}

function extraBytes(raw: Buffer): number {
  return raw.length > SMALL_INODE ? raw.readUInt16LE(128) : 0;
}

/** Two more bits for the seconds, after 2038. */
function laterEpochs(raw: Buffer): number {
  return extraBytes(raw) >= 12 && raw.length >= 140 ? (raw.readUInt32LE(136) & 3) * 2 ** 32 : 0;
}

function ownAttributes(raw: Buffer): Buffer {
  const at = SMALL_INODE + extraBytes(raw);
  if (at === SMALL_INODE || at % 4 !== 0 || at + 4 > raw.length) return raw.subarray(raw.length);
  return raw.readUInt32LE(at) === ATTRIBUTES_MAGIC ? raw.subarray(at + 4) : raw.subarray(raw.length);
}
