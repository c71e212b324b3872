// Images that are small on the way and want to be everything when they are there: none may fill the disk or the memory of the host.
import { bzip2, gzipped, sizeFields, squashfs, xz, zstd } from './hostile-archives.ts';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Member, pax, tar } from '../host/tar-writer.ts';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { bareImage, directory, file, HostileLab, METADATA } from './hostile-support.ts';

const MEMORY_BYTES = 600 << 20;
const DEAF_MS = 5000;
const POOL_BYTES = 48 << 20;

/** An image whose second file is a hole, or claims to be. */
const claiming = (member: Partial<Member>) => bareImage([{ name: 'rootfs/big', ...member }]);
const zeros = (mib: number) => Buffer.alloc(mib << 20);
const dense = (mib: number) => bareImage([file('rootfs/zeros', zeros(mib))]);

/** Each fails, and says why. */
const BOMBS: Readonly<Record<string, () => Buffer | Promise<Buffer>>> = {
  'a file of a terabyte': () => claiming({ sizeField: sizeFields.base256(2n ** 40n) }),
  'a file of 2^63 bytes': () => claiming({ sizeField: sizeFields.base256(2n ** 63n) }),
  'a file of 2^90 bytes': () => claiming({ sizeField: sizeFields.base256(2n ** 87n - 1n) }),
  'a file of less than nothing': () => claiming({ sizeField: sizeFields.negative }),
  'a size that is no number': () => claiming({ sizeField: Buffer.from('99999999999\0') }),
  'a size with a sign': () => claiming({ sizeField: Buffer.from('-0000000001\0') }),
  'a size by pax of 2^64': () => bareImage([pax({ size: '18446744073709551616' }), file('rootfs/a')]),
  'a size by pax that is negative': () => bareImage([pax({ size: '-1' }), file('rootfs/a')]),
  'a sparse file of 2^62 bytes': () =>
    bareImage([
      pax({
        'GNU.sparse.major': '1',
        'GNU.sparse.minor': '0',
        'GNU.sparse.name': 'rootfs/s',
        'GNU.sparse.realsize': String(2n ** 62n),
      }),
      file('rootfs/s', `1\n${2n ** 62n - 1n}\n1\n`.padEnd(512, '\0') + 'x'),
    ]),
  'a sparse file with a million holes': () =>
    bareImage([
      pax({
        'GNU.sparse.major': '1',
        'GNU.sparse.minor': '0',
        'GNU.sparse.name': 'rootfs/s',
        'GNU.sparse.realsize': '1',
      }),
      file('rootfs/s', `1000000\n${'0\n0\n'.repeat(500_000)}`),
    ]),
  'a sparse file that GNU tar wrote of 64 TB': () => sparse('64T'),
  'a long name of a gigabyte': () =>
    bareImage([
      { name: '././@LongLink', type: 'L', data: 'rootfs/x', sizeField: sizeFields.base256(2n ** 30n) },
      file('rootfs/a'),
    ]),
  'a pax header of a gigabyte': () =>
    bareImage([{ name: 'pax', type: 'x', data: 'x', sizeField: sizeFields.base256(2n ** 30n) }, file('rootfs/a')]),
  'zeros without end in gzip': () => gzipped(dense(64)),
  'zeros without end in bzip2': () => bzip2(dense(64)),
  'zeros without end in xz': () => xz(dense(64)),
  'zeros without end in zstd': () => zstd(dense(64)),
  'zeros without end in squashfs': () => squashfs(Buffer.alloc(64 << 20, 'x')),
  'gzip in gzip in gzip': () => gzipped(gzipped(gzipped(dense(64)))),
  'a dictionary of 1.5 gigabytes': () => xz(dense(1), '--lzma2=dict=1536MiB'),
  'a window of 2 gigabytes': () => zstd(dense(140), '--ultra', '--long=31'),
  'names longer than any path': () => bareImage([pax({ path: `rootfs/${'n'.repeat(100_000)}` }), file('x')]),
  'names longer than any name': () => bareImage([pax({ path: `rootfs/${'n'.repeat(300)}` }), file('x')]),
  'more files than there is room for': () =>
    gzipped(bareImage(Array.from({ length: 40_000 }, (_, at) => file(`rootfs/f${at}`, '')))),
  'metadata behind zeros without end': () =>
    gzipped(
      Buffer.concat([
        tar([file('rootfs/z', zeros(64))], { end: false }),
        tar([{ ...file('rootfs/y'), sizeField: sizeFields.base256(2n ** 45n) }]),
      ]),
    ),
};

/** Each is no reason to refuse an image. */
const CURIOUS: Readonly<Record<string, () => readonly Member[]>> = {
  'folders in folders, deeper than any path': () => [pax({ path: `rootfs/${'d/'.repeat(2040)}` }), directory('x/')],
  'a pax header of megabytes': () => [pax({ comment: 'x'.repeat(4 << 20) }), file('rootfs/a')],
  'a hundred thousand attributes': () => [
    pax(Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`SCHILY.xattr.user.a${at}`, 'x'.repeat(20)]))),
    file('rootfs/a'),
  ],
  'names of 255 bytes in each other': () => [
    pax({ path: `rootfs/${`${'n'.repeat(255)}/`.repeat(14)}` }),
    directory('x/'),
  ],
  'a hundred hard links': () => [
    file('rootfs/a'),
    ...Array.from({ length: 100 }, (_, at): Member => ({ name: `rootfs/l${at}`, type: '1', link: 'rootfs/a' })),
  ],
};

async function sparse(size: string): Promise<Buffer> {
  const script = `cd "$(mktemp -d)" && mkdir rootfs && printf '%s' "$1" >metadata.yaml && truncate -s ${size} rootfs/hole && tar -S -cf - metadata.yaml rootfs; rm -r "$PWD"`;
  const { stdout } = await run('bash', ['-c', script, 'bash', METADATA], { encoding: 'buffer', maxBuffer: 64 << 20 });
  return stdout;
}

const tools = ['lxc-start', 'busybox', 'tar', 'xz', 'zstd', 'bzip2', 'mksquashfs', 'unsquashfs'];
describeWith({ root: true, commands: tools }, 'an image with', () => {
  let lab: HostileLab;
  let freeBytes = 0;

  beforeAll(async () => {
    lab = await HostileLab.start();
    // All images are unpacked into a pool that 64 MiB do not fit into.
    await lab.useSmallPool(POOL_BYTES);
    freeBytes = await lab.freeBytes();
  });
  afterAll(() => lab[Symbol.asyncDispose]());

  it.each(Object.keys(BOMBS))('%s is refused and fills nothing', async (name) => {
    const bomb = await BOMBS[name]?.();
    const { result, deafMs } = await lab.deafnessDuring(lab.fate(bomb ?? Buffer.alloc(0)));

    expect(['import', 'create']).toContain(result.stage);
    expect(result.error.length).toBeLessThan(2000);
    expect(await lab.daemon.residentBytes()).toBeLessThan(MEMORY_BYTES);
    expect(deafMs).toBeLessThan(DEAF_MS);
    await lab.expectHarmless(result);
    expect(freeBytes - (await lab.freeBytes())).toBeLessThan(4 << 20);
  });

  it.each(Object.keys(CURIOUS))('%s is taken', async (name) => {
    const fate = await lab.fate(lab.image(CURIOUS[name]?.() ?? []));

    expect(fate).toEqual({ stage: 'started', error: '' });
    await lab.expectHarmless(fate);
  });
});
