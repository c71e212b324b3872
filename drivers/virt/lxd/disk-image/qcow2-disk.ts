// A qcow2 image as the disk that it stands for, read in place: what is not allocated costs nothing, so that no sparse bomb unpacks.
import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { type Disk, Recent, requireRange, unfit } from '#src/host/disk-content/disk.ts';
import { type Qcow2Header, readQcow2Header } from './qcow2-header.ts';
import { zstdFrame } from './zstd-frame.ts';

const OFFSET_BITS = 0x00_ff_ff_ff_ff_ff_fe_00n;
const COMPRESSED = 1n << 62n;
const ZERO = 1n;
const SECTOR = 512;
/** Of up to 2 MiB each. */
const TABLES_KEPT = 16;
const CLUSTERS_KEPT = 8;

export class Qcow2Disk implements Disk {
  readonly sizeBytes: number;
  readonly #file: Disk;
  readonly #header: Qcow2Header;
  readonly #clusterBytes: number;
  readonly #l1: Buffer;
  readonly #tables = new Recent<Buffer>(TABLES_KEPT);
  readonly #unpacked = new Recent<Buffer>(CLUSTERS_KEPT);

  /** AppError 'invalid' for an image that is damaged, or leads out of the file. */
  constructor(file: Disk) {
    this.#file = file;
    this.#header = readQcow2Header(file);
    this.sizeBytes = this.#header.sizeBytes;
    this.#clusterBytes = 2 ** this.#header.clusterBits;
    this.#l1 = file.read(this.#header.l1Offset, this.#header.l1Entries * 8);
  }

  read(at: number, length: number): Buffer {
    requireRange(this, at, length);
    const parts: Buffer[] = [];
    for (let done = 0; done < length; ) {
      const within = (at + done) % this.#clusterBytes;
      const count = Math.min(this.#clusterBytes - within, length - done);
      parts.push(this.#readCluster(Math.floor((at + done) / this.#clusterBytes), within, count));
      done += count;
    }
    return parts.length === 1 && parts[0] ? parts[0] : Buffer.concat(parts, length);
  }

  #readCluster(cluster: number, within: number, count: number): Buffer {
    const entry = this.#entryOf(cluster);
    if ((entry & COMPRESSED) !== 0n) {
      const whole = this.#unpacked.get(cluster, () => this.#unpack(entry));
      return whole.subarray(within, within + count);
    }
    const offset = Number(entry & OFFSET_BITS);
    if (offset === 0 || (this.#header.hasZeroFlag && (entry & ZERO) !== 0n)) return Buffer.alloc(count);
    return this.#file.read(offset + within, count);
  }

  /** 0n where nothing is allocated. */
  #entryOf(cluster: number): bigint {
    const perTable = this.#clusterBytes / 8;
    const index = Math.floor(cluster / perTable);
    const offset = Number(this.#l1.readBigUInt64BE(index * 8) & OFFSET_BITS);
    if (offset === 0) return 0n;
    const table = this.#tables.get(index, () => this.#file.read(offset, this.#clusterBytes));
    return table.readBigUInt64BE((cluster % perTable) * 8);
  }

  #unpack(entry: bigint): Buffer {
    const offsetBits = BigInt(62 - (this.#header.clusterBits - 8));
    const offset = Number(entry & ((1n << offsetBits) - 1n));
    const sectors = Number((entry & (COMPRESSED - 1n)) >> offsetBits) + 1;
    // The last sector may be counted in full though the file ends within it.
    const end = Math.min((Math.floor(offset / SECTOR) + sectors) * SECTOR, this.#file.sizeBytes);
    const packed = this.#file.read(offset, Math.max(0, end - offset));
    const cluster = this.#decompress(packed);
    if (cluster.length !== this.#clusterBytes) throw unfit('a compressed cluster of the qcow2 image is damaged');
    return cluster;
  }

  #decompress(packed: Buffer): Buffer {
    const maxOutputLength = this.#clusterBytes;
    try {
      // What follows within the last sector belongs to another cluster: the end of the input is not the end of the stream.
      return this.#header.compression === 'zstd'
        ? zstdDecompressSync(zstdFrame(packed), { maxOutputLength })
        : inflateRawSync(packed, { maxOutputLength, finishFlush: constants.Z_SYNC_FLUSH });
    } catch (cause) {
      throw unfit('a compressed cluster of the qcow2 image is damaged', { cause });
    }
  }
}
