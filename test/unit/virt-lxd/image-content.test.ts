import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { inspectImage, type InspectedImage } from '#drivers/virt/lxd/image-content.ts';
import { writeTar } from '#src/lib/tar.ts';
import { AppError } from '#src/lib/errors.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const ROOT = writeTar([
  { name: './etc/hostname', content: 'x\n' },
  { name: './sbin/init', content: '#!' },
]);
const UNIFIED = writeTar([
  { name: 'metadata.yaml', content: 'architecture: x86_64\n' },
  { name: 'rootfs/sbin/init', content: '#!' },
]);
const signal = AbortSignal.timeout(30_000);

async function inspect(content: Buffer, host = new FakeHost()): Promise<InspectedImage> {
  return inspectImage(Readable.from([content]), host, signal);
}

function withBytes(at: number, bytes: string, length = 40_000): Buffer {
  const content = Buffer.alloc(length, 0x11);
  content.write(bytes, at, 'latin1');
  return content;
}

describe('an image is known by its content', () => {
  it.each([
    ['plain tar', ROOT, 'rootfs', 'tar'],
    ['gzip', gzipSync(ROOT), 'rootfs', 'tar.gz'],
    ['zstd', zstdCompressSync(ROOT), 'rootfs', 'tar.zst'],
    ['squashfs', withBytes(0, 'hsqs'), 'rootfs', 'squashfs'],
    ['LXD tarball', UNIFIED, 'unified', 'tar'],
    ['LXD tarball, gzip', gzipSync(UNIFIED), 'unified', 'tar.gz'],
    ['LXD tarball with rootfs first', writeTar([{ name: 'rootfs/', content: '' }]), 'unified', 'tar'],
    ['qcow2', withBytes(0, 'QFI\xfb'), 'qcow2', 'qcow2'],
    ['disk with a partition table', withBytes(510, '\x55\xaa'), 'raw', 'raw'],
    ['disk with a file system alone', withBytes(0x438, '\x53\xef'), 'raw', 'raw'],
  ] as const)('%s', async (_what, content, kind, extension) => {
    const image = await inspect(content);

    expect(image).toMatchObject({ kind, extension });
    expect(await buffer(image.content)).toEqual(content);
  });

  it('also with xz and bzip2, whose programs unpack the head', async () => {
    const host = new FakeHost().on(/^(xz|bzip2) -dc$/, () => ({ stdout: ROOT.toString('latin1') }));

    await expect(inspect(withBytes(0, '\xfd7zXZ\0'), host)).resolves.toMatchObject({ extension: 'tar.xz' });
    await expect(inspect(withBytes(0, 'BZh9'), host)).resolves.toMatchObject({ extension: 'tar.bz2' });
  });

  it('when the compressed head is cut in the middle of a large archive', async () => {
    const large = writeTar([
      { name: 'etc/hostname', content: '' },
      { name: 'big', content: Array.from({ length: 300_000 }, () => Math.random().toString(36)).join('') },
    ]);

    const image = await inspectImage(Readable.from(chunksOf(gzipSync(large))), new FakeHost(), signal);

    expect(image.kind).toBe('rootfs');
    expect((await buffer(image.content)).length).toBe(gzipSync(large).length);
  });
});

describe('what is no container image is refused with a reason', () => {
  it.each([
    ['nothing', Buffer.alloc(0), 'empty'],
    ['VMDK', withBytes(0, 'KDMV'), 'VMDK'],
    ['ISO', withBytes(0x8001, 'CD001'), 'ISO 9660'],
    [
      'ISO that is a disk as well',
      Buffer.concat([withBytes(510, '\x55\xaa', 0x8001), Buffer.from('CD001')]),
      'ISO 9660',
    ],
    ['gzip of a disk', gzipSync(withBytes(510, '\x55\xaa')), 'no tar archive'],
    ['garbage', withBytes(0, 'garbage'), 'unknown format'],
    ['a few bytes', Buffer.from('hi'), 'unknown format'],
    ['gzip of garbage', gzipSync(Buffer.alloc(4096, 1)), 'no tar archive'],
    ['damaged gzip', Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(100, 7)]), 'no tar archive'],
  ] as const)('%s', async (_what, content, reason) => {
    await expect(inspect(content)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(reason) as string,
    });
  });

  it('and its source is released', async () => {
    const source = Readable.from([withBytes(0, 'KDMV')]);

    await expect(inspectImage(source, new FakeHost(), signal)).rejects.toThrow('VMDK');

    expect(source.destroyed).toBe(true);
  });
});

it('passes a failure of the source on', async () => {
  const failure = new AppError('invalid', 'checksum mismatch');
  async function* source(): AsyncGenerator<Buffer> {
    yield ROOT;
    throw failure;
  }

  await expect(inspectImage(Readable.from(source()), new FakeHost(), signal)).rejects.toBe(failure);
});

it('releases the source with the content', async () => {
  const source = Readable.from(chunksOf(Buffer.concat([ROOT, Buffer.alloc(4_000_000)])));
  const { content } = await inspectImage(source, new FakeHost(), signal);

  content.destroy();
  await new Promise((resolve) => setImmediate(resolve));

  expect(source.destroyed).toBe(true);
});

function* chunksOf(content: Buffer): Generator<Buffer> {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
}
