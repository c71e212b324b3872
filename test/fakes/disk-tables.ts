// Partition tables as bytes, for disk images made by tests.
import { crc32 } from 'node:zlib';

export const SECTOR = 512;
export const ROOT_X86_64 = '4f68bce3-e8cd-4db1-96e7-fbcaf984b709';
export const LINUX_DATA = '0fc63daf-8483-4772-8e79-3d69d8477de4';

/** Sectors. */
export interface GptPartition {
  readonly type: string;
  readonly first: number;
  readonly last: number;
  readonly name?: string;
}

export interface MbrPartition {
  readonly type: number;
  readonly first: number;
  readonly count: number;
}

function guidBytes(guid: string): Buffer {
  const [a = '', b = '', c = '', ...rest] = guid.split('-');
  const swapped = [a, b, c].map((part) => Buffer.from(part, 'hex').reverse());
  return Buffer.concat([...swapped, Buffer.from(rest.join(''), 'hex')]);
}

export function mbr(partitions: readonly MbrPartition[]): Buffer {
  const sector = Buffer.alloc(SECTOR);
  for (const [index, { type, first, count }] of partitions.entries()) {
    const at = 446 + index * 16;
    sector.writeUInt8(type, at + 4);
    sector.writeUInt32LE(first, at + 8);
    sector.writeUInt32LE(count, at + 12);
  }
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

/** Protective MBR, header and entries: the first 34 sectors. `damage` gets the header before its checksum is made. */
export function gpt(partitions: readonly GptPartition[], damage: (header: Buffer) => void = () => {}): Buffer {
  const entries = Buffer.alloc(128 * 128);
  for (const [index, { type, first, last, name = '' }] of partitions.entries()) {
    const at = index * 128;
    guidBytes(type).copy(entries, at);
    entries.fill(index + 1, at + 16, at + 32);
    entries.writeBigUInt64LE(BigInt(first), at + 32);
    entries.writeBigUInt64LE(BigInt(last), at + 40);
    entries.write(name, at + 56, 72, 'utf16le');
  }
  const header = Buffer.alloc(SECTOR);
  header.write('EFI PART', 0, 'latin1');
  header.writeUInt32LE(0x1_0000, 8);
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(1n, 24);
  header.writeBigUInt64LE(2n, 72);
  header.writeUInt32LE(128, 80);
  header.writeUInt32LE(128, 84);
  header.writeUInt32LE(crc32(entries), 88);
  damage(header);
  const headerBytes = Math.min(header.readUInt32LE(12), SECTOR);
  header.writeUInt32LE(crc32(header.subarray(0, headerBytes)), 16);
  return Buffer.concat([mbr([{ type: 0xee, first: 1, count: 0xffff_ffff }]), header, entries]);
}
