// Access lists as ext keeps them, written as acl(5) writes them, with numbers for users and groups.
import { unfit } from '../disk.ts';

const VERSION = 1;
const TAGS: Readonly<Record<number, string>> = {
  0x01: 'user',
  0x02: 'user',
  0x04: 'group',
  0x08: 'group',
  0x10: 'mask',
  0x20: 'other',
};
const PERMISSIONS = ['---', '--x', '-w-', '-wx', 'r--', 'r-x', 'rw-', 'rwx'] as const;
const WITH_ID = new Set([0x02, 0x08]);

/** AppError 'invalid' for a damaged list. */
export function accessListText(value: Buffer): string {
  try {
    if (value.readUInt32LE(0) !== VERSION) throw damaged();
    const lines: string[] = [];
    for (let at = 4; at < value.length; at += entryBytes(value, at)) lines.push(entryText(value, at));
    return lines.join(',');
  } catch (error) {
    throw error instanceof RangeError ? damaged() : error;
  }
}

function entryBytes(value: Buffer, at: number): number {
  return WITH_ID.has(value.readUInt16LE(at)) ? 8 : 4;
}

function entryText(value: Buffer, at: number): string {
  const [tag, bits] = [value.readUInt16LE(at), value.readUInt16LE(at + 2)];
  const name = TAGS[tag];
  const permissions = PERMISSIONS[bits];
  if (name === undefined || permissions === undefined) throw damaged();
  const id = WITH_ID.has(tag) ? value.readUInt32LE(at + 4) : '';
  return `${name}:${id}:${permissions}`;
}

function damaged(): Error {
  return unfit('the ext file system is damaged: an access list');
}
