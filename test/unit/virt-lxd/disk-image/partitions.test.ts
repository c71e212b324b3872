import { describe, expect, it } from 'vitest';
import { readPartitions } from '#src/host/disk-content/partitions.ts';
import { gpt, LINUX_DATA, mbr, type MbrPartition, ROOT_X86_64, SECTOR } from '#test/fakes/disk-tables.ts';
import { MemoryDisk } from './memory-disk.ts';

const DISK = 64 * 1024 * 1024;
const LINUX = 0x83;
const EXTENDED = 0x05;

const disk = (...pieces: readonly (readonly [number, Buffer])[]): MemoryDisk => new MemoryDisk(DISK, pieces);
const at = (sector: number, table: readonly MbrPartition[]): readonly [number, Buffer] => [sector * SECTOR, mbr(table)];

describe('partitions are found', () => {
  it('in a GPT, with type and name', () => {
    const table = gpt([
      { type: LINUX_DATA, first: 2048, last: 4095 },
      { type: ROOT_X86_64, first: 4096, last: 8191, name: 'cloudimg-rootfs' },
    ]);

    expect(readPartitions(disk([0, table]))).toEqual([
      { start: 2048 * SECTOR, sizeBytes: 2048 * SECTOR, type: LINUX_DATA, name: '' },
      { start: 4096 * SECTOR, sizeBytes: 4096 * SECTOR, type: ROOT_X86_64, name: 'cloudimg-rootfs' },
    ]);
  });

  it('in an MBR, the logical ones as well', () => {
    const found = readPartitions(
      disk(
        at(0, [
          { type: LINUX, first: 2048, count: 1000 },
          { type: EXTENDED, first: 4096, count: 20_000 },
        ]),
        at(4096, [
          { type: LINUX, first: 10, count: 100 },
          { type: EXTENDED, first: 200, count: 300 },
        ]),
        at(4296, [{ type: 0x82, first: 10, count: 50 }]),
      ),
    );

    expect(found).toEqual([
      { start: 2048 * SECTOR, sizeBytes: 1000 * SECTOR, type: '83', name: '' },
      { start: 4106 * SECTOR, sizeBytes: 100 * SECTOR, type: '83', name: '' },
      { start: 4306 * SECTOR, sizeBytes: 50 * SECTOR, type: '82', name: '' },
    ]);
  });

  it.each([
    ['an empty disk', disk()],
    ['a boot sector without partitions', disk(at(0, []))],
    ['a disk of one sector', new MemoryDisk(SECTOR, [])],
  ])('not on %s', (_what, empty) => {
    expect(readPartitions(empty)).toBeUndefined();
  });
});

describe('a table is refused', () => {
  const one = { type: LINUX_DATA, first: 2048, last: 4095 };
  const last = 2n ** 63n;

  it.each([
    ['without the GPT that the MBR promises', disk(at(0, [{ type: 0xee, first: 1, count: 1000 }])), 'missing'],
    ['with a wrong checksum', disk([0, gpt([one])], [SECTOR + 40, Buffer.from([1])]), 'checksum of the GPT'],
    [
      'with changed entries',
      disk([0, gpt([one])], [2 * SECTOR + 8, Buffer.from([0xff])]),
      'checksum of the partitions',
    ],
    ['with a header of no size', disk([0, gpt([one], (head) => head.writeUInt32LE(0, 12))]), 'header of 0 bytes'],
    [
      'with a huge header',
      disk([0, gpt([one], (head) => head.writeUInt32LE(0xffff_ffff, 12))]),
      'header of 4294967295',
    ],
    [
      'with entries for ever',
      disk([0, gpt([one], (head) => head.writeUInt32LE(0xffff_ffff, 80))]),
      '4294967295 entries',
    ],
    ['with entries of one byte', disk([0, gpt([one], (head) => head.writeUInt32LE(1, 84))]), 'of 1 bytes'],
    [
      'with entries beyond the end',
      disk([0, gpt([one], (head) => head.writeBigUInt64LE(2n ** 40n, 72))]),
      'beyond its end',
    ],
    ['with entries beyond all numbers', disk([0, gpt([one], (head) => head.writeBigUInt64LE(last, 72))]), 'impossible'],
    ['with a partition beyond the end', disk([0, gpt([{ ...one, last: 10_000_000 }])]), 'beyond the end of the disk'],
    ['with a partition that ends first', disk([0, gpt([{ ...one, last: 2000 }])]), 'ends before it begins'],
    ['with partitions on each other', disk([0, gpt([one, { ...one, first: 4000, last: 5000 }])]), 'overlap'],
    [
      'of MBR, beyond the end',
      disk(at(0, [{ type: LINUX, first: 1, count: 0xffff_ffff }])),
      'beyond the end of the disk',
    ],
    ['of MBR, without sectors', disk(at(0, [{ type: LINUX, first: 1, count: 0 }])), 'of 0 bytes'],
    [
      'with logical partitions in a circle',
      disk(
        at(0, [{ type: EXTENDED, first: 4096, count: 20_000 }]),
        at(4096, [
          { type: LINUX, first: 10, count: 1 },
          { type: EXTENDED, first: 0, count: 1 },
        ]),
      ),
      'chain of logical partitions is damaged',
    ],
    ['with a chain into nowhere', disk(at(0, [{ type: EXTENDED, first: 5000, count: 20_000 }])), 'chain of logical'],
  ] as const)('%s', (_what, hostile, reason) => {
    expect(() => readPartitions(hostile)).toThrow(
      expect.objectContaining({ kind: 'invalid', message: expect.stringContaining(reason) as string }) as Error,
    );
  });
});
