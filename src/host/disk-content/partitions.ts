// Partition tables, GPT and MBR: bounded, and taken only when all of the table makes sense.
import { crc32 } from 'node:zlib';
import { countable, type Disk, unfit } from './disk.ts';

export interface Partition {
  /** Bytes. */
  readonly start: number;
  readonly sizeBytes: number;
  /** GUID in lower case, or the MBR's type as two hex digits. */
  readonly type: string;
  /** Of GPT; else ''. */
  readonly name: string;
}

const SECTOR = 512;
const MAX_ENTRIES = 1024;
const MAX_LOGICAL = 128;
const GPT_ENTRY_BYTES = 128;
const NO_TYPE = '00000000-0000-0000-0000-000000000000';
const EXTENDED = new Set([0x05, 0x0f, 0x85]);
const PROTECTIVE = 0xee;

/** Undefined when the disk has no table: a file system may fill it whole. AppError 'invalid' for a damaged table. */
export function readPartitions(disk: Disk): readonly Partition[] | undefined {
  if (disk.sizeBytes < 2 * SECTOR) return undefined;
  const mbr = disk.read(0, SECTOR);
  if (!isTable(mbr)) return undefined;
  const entries = entriesOf(mbr);
  // A boot sector without entries is that of a file system.
  if (entries.some(({ flag }) => flag !== 0 && flag !== 0x80) || entries.every(({ type }) => type === 0))
    return undefined;
  const partitions = entries.some(({ type }) => type === PROTECTIVE) ? readGpt(disk) : readMbr(disk, entries);
  return checked(disk, partitions);
}

function checked(disk: Disk, partitions: readonly Partition[]): readonly Partition[] {
  const sorted = partitions.toSorted((left, right) => left.start - right.start);
  let end = 0;
  for (const { start, sizeBytes } of sorted) {
    if (sizeBytes <= 0 || start + sizeBytes > disk.sizeBytes)
      throw unfit(`a partition at ${start} of ${sizeBytes} bytes is beyond the end of the disk at ${disk.sizeBytes}`);
    if (start < end) throw unfit('partitions of the image overlap');
    end = start + sizeBytes;
  }
  return partitions;
}

interface MbrEntry {
  readonly flag: number;
  readonly type: number;
  /** Sectors. */
  readonly first: number;
  readonly count: number;
}

function isTable(sector: Buffer): boolean {
  return sector.readUInt16LE(510) === 0xaa55;
}

function entriesOf(sector: Buffer): readonly MbrEntry[] {
  return [446, 462, 478, 494].map((at) => ({
    flag: sector.readUInt8(at),
    type: sector.readUInt8(at + 4),
    first: sector.readUInt32LE(at + 8),
    count: sector.readUInt32LE(at + 12),
  }));
}

function partitionOf({ type, first, count }: MbrEntry): Partition {
  return { start: first * SECTOR, sizeBytes: count * SECTOR, type: type.toString(16).padStart(2, '0'), name: '' };
}

function readMbr(disk: Disk, entries: readonly MbrEntry[]): readonly Partition[] {
  return entries
    .filter(({ type }) => type !== 0)
    .flatMap((entry) => (EXTENDED.has(entry.type) ? readLogical(disk, entry) : [partitionOf(entry)]));
}

/** A chain of tables, each with one partition and the place of the next table, which lies further on. */
function readLogical(disk: Disk, extended: MbrEntry): readonly Partition[] {
  const found: Partition[] = [];
  for (let at = extended.first; ; ) {
    if (found.length >= MAX_LOGICAL) throw unfit(`the image has more than ${MAX_LOGICAL} logical partitions`);
    const table = disk.read(at * SECTOR, SECTOR);
    if (!isTable(table)) throw unfit('the chain of logical partitions is damaged');
    const [logical, next] = entriesOf(table);
    if (logical && logical.type !== 0) found.push(partitionOf({ ...logical, first: at + logical.first }));
    if (!next || next.type === 0) return found;
    const following = extended.first + next.first;
    if (!EXTENDED.has(next.type) || following <= at) throw unfit('the chain of logical partitions is damaged');
    at = following;
  }
}

function readGpt(disk: Disk): readonly Partition[] {
  const header = disk.read(SECTOR, SECTOR);
  if (header.toString('latin1', 0, 8) !== 'EFI PART') throw unfit('the GPT of the image is missing or damaged');
  const headerBytes = header.readUInt32LE(12);
  if (headerBytes < 92 || headerBytes > SECTOR) throw unfit(`the GPT has a header of ${headerBytes} bytes`);
  const summed = Buffer.from(header.subarray(0, headerBytes));
  summed.fill(0, 16, 20);
  if (crc32(summed) !== header.readUInt32LE(16)) throw unfit('the checksum of the GPT is wrong');
  const [count, size] = [header.readUInt32LE(80), header.readUInt32LE(84)];
  if (count > MAX_ENTRIES || size < GPT_ENTRY_BYTES || size > 4096 || size % 8 !== 0)
    throw unfit(`the GPT has ${count} entries of ${size} bytes`);
  const table = disk.read(countable(header.readBigUInt64LE(72) * BigInt(SECTOR), 'place of the GPT'), count * size);
  if (crc32(table) !== header.readUInt32LE(88)) throw unfit('the checksum of the partitions in the GPT is wrong');
  return Array.from({ length: count }, (_, index) => table.subarray(index * size, (index + 1) * size))
    .filter((entry) => guid(entry) !== NO_TYPE)
    .map(gptPartition);
}

function gptPartition(entry: Buffer): Partition {
  const [first, last] = [entry.readBigUInt64LE(32), entry.readBigUInt64LE(40)];
  if (last < first) throw unfit('a partition of the GPT ends before it begins');
  return {
    start: countable(first * BigInt(SECTOR), 'start of a partition'),
    sizeBytes: countable((last - first + 1n) * BigInt(SECTOR), 'size of a partition'),
    type: guid(entry),
    name: entry.toString('utf16le', 56, GPT_ENTRY_BYTES).replace(/\0.*$/s, ''),
  };
}

/** The first three parts are little-endian. */
function guid(entry: Buffer): string {
  const part = (...order: number[]): string => order.map((at) => entry.toString('hex', at, at + 1)).join('');
  const rest = entry.toString('hex', 10, 16);
  return `${part(3, 2, 1, 0)}-${part(5, 4)}-${part(7, 6)}-${entry.toString('hex', 8, 10)}-${rest}`;
}
