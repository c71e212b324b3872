// The header of a qcow2 image (QEMU, docs/interop/qcow2.txt), and what of it is refused: everything that leads out of the file.
import { countable, type Disk, unfit } from '#src/host/disk-content/disk.ts';

const MAGIC = 0x51_46_49_fb;
const SMALLEST_HEADER = 72;
const HEADER_V3 = 104;
const MAX_L1_BYTES = 32 * 1024 * 1024;

export type Compression = 'zlib' | 'zstd';

export interface Qcow2Header {
  readonly clusterBits: number;
  /** Virtual size in bytes. */
  readonly sizeBytes: number;
  readonly l1Offset: number;
  readonly l1Entries: number;
  readonly hasZeroFlag: boolean;
  readonly compression: Compression;
}

/** Incompatible features by bit: null is one that changes nothing for who only reads. */
const FEATURES: readonly (string | null)[] = [
  null, // dirty: the reference counts, which we do not look at
  'is marked as corrupt',
  'keeps its data in another file',
  null, // the kind of compression, which the header tells
  'has extended L2 entries',
];

const EXTENSIONS: ReadonlyMap<number, string> = new Map([
  [0xe2_79_2a_ca, 'has a backing file'],
  [0x44_41_54_41, 'keeps its data in another file'],
  [0x05_37_be_77, 'is encrypted'],
]);

/** AppError 'invalid' for what is damaged or not taken, the reason in words. */
export function readQcow2Header(file: Disk): Qcow2Header {
  const head = file.read(0, Math.min(file.sizeBytes, HEADER_V3 + 8));
  const version = versionOf(head);
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw unfit(`the qcow2 image has clusters of 2^${clusterBits} bytes`);
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0) throw refused('has a backing file');
  if (head.readUInt32BE(32) !== 0) throw refused('is encrypted');
  const more = version === 3 ? readThird(head) : { bytes: SMALLEST_HEADER, compression: 'zlib' as const };
  refuseExtensions(file, more.bytes, 2 ** clusterBits);
  const table = tableOf(head, clusterBits);
  return { clusterBits, ...table, hasZeroFlag: version === 3, compression: more.compression };
}

function versionOf(head: Buffer): 2 | 3 {
  if (head.length < SMALLEST_HEADER || head.readUInt32BE(0) !== MAGIC) throw unfit('the image is no qcow2');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw unfit(`the qcow2 image is of version ${version}; 2 and 3 are taken`);
  if (version === 3 && head.length < HEADER_V3) throw unfit('the qcow2 image is truncated');
  return version;
}

/** What version 3 has more. */
function readThird(head: Buffer): { readonly bytes: number; readonly compression: Compression } {
  refuseFeatures(head.readBigUInt64BE(72));
  const bytes = head.readUInt32BE(100);
  if (bytes < HEADER_V3 || bytes % 8 !== 0) throw unfit('the qcow2 header is damaged');
  return { bytes, compression: bytes > HEADER_V3 ? compressionOf(head) : 'zlib' };
}

function tableOf(
  head: Buffer,
  clusterBits: number,
): { readonly sizeBytes: number; readonly l1Offset: number; readonly l1Entries: number } {
  const sizeBytes = countable(head.readBigUInt64BE(24), 'size of the qcow2 image');
  const l1Offset = countable(head.readBigUInt64BE(40), 'place of the qcow2 tables');
  const l1Entries = head.readUInt32BE(36);
  const needed = Math.ceil(sizeBytes / 2 ** (2 * clusterBits - 3));
  if (l1Entries < needed || l1Entries * 8 > MAX_L1_BYTES)
    throw unfit(`the qcow2 image has ${l1Entries} tables for ${sizeBytes} bytes`);
  return { sizeBytes, l1Offset, l1Entries: needed };
}

function compressionOf(head: Buffer): Compression {
  const type = head[HEADER_V3];
  if (type === 0 || type === undefined) return 'zlib';
  if (type === 1) return 'zstd';
  throw unfit(`the qcow2 image is compressed in an unknown way (${type})`);
}

function refuseFeatures(bits: bigint): void {
  for (let bit = 0; bit < 64; bit++) {
    if (((bits >> BigInt(bit)) & 1n) === 0n) continue;
    const feature = FEATURES[bit];
    if (feature === null) continue;
    throw refused(feature ?? `needs an unknown feature (bit ${bit})`);
  }
}

/** They lie between the header and the end of the first cluster. */
function refuseExtensions(file: Disk, start: number, clusterBytes: number): void {
  const end = Math.min(clusterBytes, file.sizeBytes);
  for (let at = start; at + 8 <= end; ) {
    const extension = file.read(at, 8);
    const type = extension.readUInt32BE(0);
    if (type === 0) return;
    const what = EXTENSIONS.get(type);
    if (what !== undefined) throw refused(what);
    at += 8 + Math.ceil(extension.readUInt32BE(4) / 8) * 8;
    if (at > end) throw unfit('the qcow2 header is damaged: an extension is longer than its cluster');
  }
}

function refused(what: string): Error {
  return unfit(`the qcow2 image ${what}: not taken`);
}
