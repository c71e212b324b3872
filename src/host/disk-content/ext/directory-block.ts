// The entries in a block of a directory. An index (htree) looks like blocks without entries.
import { unfit } from '../disk.ts';

export interface DirectoryEntry {
  readonly name: string;
  readonly inode: number;
}

const HEADER_BYTES = 8;
const LARGEST_BLOCK = 65_536;

/** Without "." and "..". AppError 'invalid' for a damaged block, and for names that no file can have. */
export function entriesOf(block: Buffer): readonly DirectoryEntry[] {
  const found: DirectoryEntry[] = [];
  for (let at = 0; at + HEADER_BYTES <= block.length; ) {
    const inode = block.readUInt32LE(at);
    const recordBytes = recordLength(block, at);
    const nameBytes = block.readUInt8(at + 6);
    if (HEADER_BYTES + nameBytes > recordBytes) throw damaged();
    const name = block.toString('latin1', at + HEADER_BYTES, at + HEADER_BYTES + nameBytes);
    if (inode !== 0 && name !== '.' && name !== '..') found.push({ name: checkedName(name), inode });
    at += recordBytes;
  }
  return found;
}

function recordLength(block: Buffer, at: number): number {
  const length = block.readUInt16LE(at + 4);
  // 64 KiB do not fit in the field.
  const isWhole = block.length === LARGEST_BLOCK && (length === LARGEST_BLOCK - 1 || length === 0);
  const bytes = isWhole ? block.length : length;
  if (bytes < HEADER_BYTES || bytes % 4 !== 0 || at + bytes > block.length) throw damaged();
  return bytes;
}

function checkedName(name: string): string {
  if (name === '' || /[/\0]/.test(name)) throw unfit('the ext file system is damaged: a name that no file can have');
  return name;
}

function damaged(): Error {
  return unfit('the ext file system is damaged: a directory');
}
