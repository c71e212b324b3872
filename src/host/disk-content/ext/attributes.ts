// Extended attributes of ext: beside the inode, in a block of their own, or both.
import { unfit } from '../disk.ts';
import type { Inode } from './inode.ts';
import type { Volume } from './volume.ts';

export interface Attribute {
  readonly name: string;
  /** As it lies on the disk: access lists are in a format of ext's own. */
  readonly value: Buffer;
}

const PREFIXES: Readonly<Record<number, string>> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  4: 'trusted.',
  6: 'security.',
  7: 'system.',
};
const MAGIC = 0xea02_0000;
const HEADER_BYTES = 32;
const ENTRY_BYTES = 16;

/** AppError 'invalid' for damaged ones. */
export function attributesOf(volume: Volume, { ownAttributes, attributesBlock }: Inode): readonly Attribute[] {
  const own = ownAttributes.length >= 4 ? parse(ownAttributes, 0) : [];
  if (attributesBlock === 0) return own;
  const block = volume.readBlock(attributesBlock);
  if (block.readUInt32LE(0) !== MAGIC) throw damaged();
  return [...own, ...parse(block, HEADER_BYTES)];
}

/** Places of values count from the begin of `area`. */
function parse(area: Buffer, start: number): readonly Attribute[] {
  const found: Attribute[] = [];
  for (let at = start; at + 4 <= area.length && area.readUInt32LE(at) !== 0; ) {
    const nameBytes = area.readUInt8(at);
    const end = at + ENTRY_BYTES + nameBytes;
    if (end > area.length) throw damaged();
    const prefix = PREFIXES[area.readUInt8(at + 1)];
    const [valueAt, valueBytes] = [area.readUInt16LE(at + 2), area.readUInt32LE(at + 8)];
    if (area.readUInt32LE(at + 4) !== 0 || valueAt + valueBytes > area.length) throw damaged();
    const name = area.toString('latin1', at + ENTRY_BYTES, end);
    if (prefix !== undefined)
      found.push({ name: `${prefix}${name}`, value: area.subarray(valueAt, valueAt + valueBytes) });
    at += ENTRY_BYTES + Math.ceil(nameBytes / 4) * 4;
  }
  return found;
}

function damaged(): Error {
  return unfit('the ext file system is damaged: extended attributes');
}
