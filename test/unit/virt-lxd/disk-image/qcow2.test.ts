import { deflateRawSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { Qcow2Disk } from '#drivers/virt/lxd/disk-image/qcow2-disk.ts';
import { MemoryDisk } from './memory-disk.ts';

const CLUSTER = 65_536;
const L1 = 3 * CLUSTER;
const L2 = 4 * CLUSTER;
const DATA = 5 * CLUSTER;
const PACKED = 6 * CLUSTER;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const VIRTUAL = 10 * CLUSTER;

interface Changes {
  readonly header?: (head: Buffer) => void;
  readonly l1?: readonly bigint[];
  readonly l2?: readonly bigint[];
  readonly packed?: Buffer;
  readonly fileBytes?: number;
}

function table(entries: readonly bigint[], length = entries.length): Buffer {
  const buffer = Buffer.alloc(length * 8);
  for (const [index, entry] of entries.entries()) buffer.writeBigUInt64BE(entry, index * 8);
  return buffer;
}

/** Five clusters: data, nothing, zeros, compressed, nothing. */
function image({ header = () => {}, l1, l2, packed, fileBytes = 7 * CLUSTER }: Changes = {}): MemoryDisk {
  const head = Buffer.alloc(512);
  head.write('QFI\xfb', 0, 'latin1');
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(16, 20);
  head.writeBigUInt64BE(BigInt(VIRTUAL), 24);
  head.writeUInt32BE(1, 36);
  head.writeBigUInt64BE(BigInt(L1), 40);
  head.writeUInt32BE(4, 96);
  head.writeUInt32BE(112, 100);
  header(head);
  const content = packed ?? deflateRawSync(Buffer.alloc(CLUSTER, 'c'));
  const sectors = BigInt(Math.ceil(content.length / 512) - 1);
  const entries = [
    COPIED | BigInt(DATA),
    0n,
    COPIED | BigInt(DATA) | 1n,
    COMPRESSED | (sectors << 54n) | BigInt(PACKED),
  ] as const;
  return new MemoryDisk(fileBytes, [
    [0, head],
    [L1, table(l1 ?? [COPIED | BigInt(L2)])],
    [L2, table(l2 ?? entries, CLUSTER / 8)],
    [DATA, Buffer.alloc(CLUSTER, 'd')],
    [PACKED, content],
  ]);
}

describe('a qcow2 image reads as the disk that it stands for', () => {
  it.each([
    ['data', 0, 'd'],
    ['nothing', 1, '\0'],
    ['zeros', 2, '\0'],
    ['compressed data', 3, 'c'],
    ['nothing behind the table', 9, '\0'],
  ])('%s', (_what, cluster, byte) => {
    const disk = new Qcow2Disk(image());

    expect(disk.sizeBytes).toBe(VIRTUAL);
    expect(disk.read(cluster * CLUSTER + 10, 20).toString('latin1')).toBe(byte.repeat(20));
  });

  it('across clusters', () => {
    expect(new Qcow2Disk(image()).read(CLUSTER - 2, 4).toString('latin1')).toBe('dd\0\0');
  });

  it('compressed by zstd, with the begin of another cluster in the last sector', () => {
    const packed = Buffer.concat([zstdCompressSync(Buffer.alloc(CLUSTER, 'z')), Buffer.from('another')]);
    const header = (head: Buffer): void => {
      head.writeBigUInt64BE(8n, 72);
      head.writeUInt8(1, 104);
    };

    expect(new Qcow2Disk(image({ header, packed })).read(3 * CLUSTER, 3).toString()).toBe('zzz');
  });

  it('of version 2, where the flag for zeros means nothing', () => {
    const disk = new Qcow2Disk(image({ header: (head) => head.writeUInt32BE(2, 4) }));

    expect(disk.read(2 * CLUSTER, 3).toString()).toBe('ddd');
  });

  it('of an exabyte, at no cost', () => {
    const header = (head: Buffer): void => {
      head.writeBigUInt64BE(2n ** 45n, 24);
      head.writeUInt32BE(65_536, 36);
    };

    expect(new Qcow2Disk(image({ header, fileBytes: 20 * CLUSTER })).read(2 ** 45 - 4, 4)).toEqual(Buffer.alloc(4));
  });
});

describe('a qcow2 image is refused', () => {
  const extension = (type: number, length: number) => (head: Buffer) => {
    head.writeUInt32BE(type, 112);
    head.writeUInt32BE(length, 116);
  };
  const bit = (index: bigint) => (head: Buffer) => head.writeBigUInt64BE(1n << index, 72);

  it.each([
    ['of another format', (head: Buffer) => head.fill(0, 0, 4), 'no qcow2'],
    ['of version 1', (head: Buffer) => head.writeUInt32BE(1, 4), 'version 1'],
    ['with a backing file', (head: Buffer) => head.writeBigUInt64BE(400n, 8), 'has a backing file'],
    ['with the name of one', (head: Buffer) => head.writeUInt32BE(11, 16), 'has a backing file'],
    ['with the format of a backing file', extension(0xe2_79_2a_ca, 5), 'has a backing file'],
    ['with a data file', bit(2n), 'data in another file'],
    ['with the name of a data file', extension(0x44_41_54_41, 11), 'data in another file'],
    ['encrypted by AES', (head: Buffer) => head.writeUInt32BE(1, 32), 'encrypted'],
    ['encrypted by LUKS', (head: Buffer) => head.writeUInt32BE(2, 32), 'encrypted'],
    ['with an encryption header', extension(0x05_37_be_77, 16), 'encrypted'],
    ['that is corrupt', bit(1n), 'corrupt'],
    ['with extended entries', bit(4n), 'extended L2'],
    ['with features of a later day', bit(40n), 'unknown feature (bit 40)'],
    ['with an endless extension', extension(0x12_34_56_78, 0xffff_fff0), 'longer than its cluster'],
    ['with clusters of one byte', (head: Buffer) => head.writeUInt32BE(0, 20), 'clusters of 2^0'],
    ['with clusters of a gigabyte', (head: Buffer) => head.writeUInt32BE(30, 20), 'clusters of 2^30'],
    ['of an impossible size', (head: Buffer) => head.writeBigUInt64BE(2n ** 64n - 1n, 24), 'impossible'],
    ['with too few tables', (head: Buffer) => head.writeBigUInt64BE(2n ** 40n, 24), '1 tables'],
    ['with tables without end', (head: Buffer) => head.writeUInt32BE(0xffff_ffff, 36), '4294967295 tables'],
    ['with tables beyond the end', (head: Buffer) => head.writeBigUInt64BE(2n ** 40n, 40), 'beyond its end'],
    ['with tables beyond all numbers', (head: Buffer) => head.writeBigUInt64BE(2n ** 63n, 40), 'impossible'],
    ['with a short header', (head: Buffer) => head.writeUInt32BE(8, 100), 'damaged'],
    ['packed in an unknown way', (head: Buffer) => head.writeUInt8(9, 104), 'unknown way (9)'],
  ] as const)('%s', (_what, header, reason) => {
    expect(() => new Qcow2Disk(image({ header }))).toThrow(
      expect.objectContaining({ kind: 'invalid', message: expect.stringContaining(reason) as string }) as Error,
    );
  });

  it.each([
    ['cut off', { fileBytes: 100 }, 'truncated'],
    ['cut off in the first words', { fileBytes: 10 }, 'no qcow2'],
    ['with a table beyond the end', { l1: [2n ** 50n] }, 'beyond its end'],
    ['with data beyond the end', { l2: [2n ** 50n] }, 'beyond its end'],
    ['with packed data beyond the end', { l2: [COMPRESSED | (2n ** 50n)] }, 'beyond its end'],
    ['with packed garbage', { l2: [COMPRESSED | BigInt(DATA)] }, 'damaged'],
    ['with a bomb in a cluster', { packed: deflateRawSync(Buffer.alloc(100 * CLUSTER)) }, 'damaged'],
    ['with a cluster that unpacks to less', { packed: deflateRawSync(Buffer.alloc(10)) }, 'damaged'],
  ] as const)('%s', (_what, changes, reason) => {
    const read = (): Buffer => new Qcow2Disk(image(changes)).read(0, 4 * CLUSTER);

    expect(read).toThrow(
      expect.objectContaining({ kind: 'invalid', message: expect.stringContaining(reason) as string }) as Error,
    );
  });
});
