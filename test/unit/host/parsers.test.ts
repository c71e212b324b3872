// What the host modules read: mount tables, listings of archives, magic bytes, the words of zfs.
import { describe, expect, it } from 'vitest';
import { kindOf } from '#src/lib/errors.ts';
import { parseMountInfo } from '#src/host/mount-info.ts';
import { formatOf } from '#src/host/unpack/formats.ts';
import { ListingCounter } from '#src/host/unpack/listing.ts';
import { TarStreamCheck } from '#src/host/unpack/tar-stream.ts';
import { Zfs } from '#src/host/zfs.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const signal = () => AbortSignal.timeout(10_000);

describe('the mount table', () => {
  it('is read with its escapes and optional fields', () => {
    const table = [
      '36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue',
      '40 36 0:33 / /plain rw - overlay overlay ro,lowerdir=/a - b',
      '',
    ].join('\n');

    expect(parseMountInfo(table)).toEqual([
      { id: '36', device: '98:0', target: '/mnt 2', type: 'ext3', source: '/dev/root', isReadonly: false },
      { id: '40', device: '0:33', target: '/plain', type: 'overlay', source: 'overlay', isReadonly: true },
    ]);
  });
});

describe('listings', () => {
  const limits = { maxBytes: 1000, maxEntries: 3 };

  it('adds up files, and no devices or links', () => {
    const counter = new ListingCounter(limits);

    counter.add('drwxr-xr-x 0/0   4096 2026-01-01 00:00 ./\n-rw-r--r-- 0/0    ');
    counter.add('900 2026-01-01 00:00 ./a\ncrw-r--r-- 0/0   1,  3 2026-01-01 00:00 null\n');

    expect([counter.entries, counter.bytes]).toEqual([3, 900]);
  });

  it('stops at bytes and at entries', () => {
    expect(() => new ListingCounter(limits).add('-rw-r--r-- 0/0 1001 2026-01-01 00:00 a\n')).toThrow('bytes');
    expect(() => new ListingCounter(limits).add('x\nx\nx\nx\n')).toThrow('entries');
  });
});

describe('magic bytes', () => {
  it.each([
    ['1f8b08', 'gzip'],
    ['fd377a585a0000', 'xz'],
    ['28b52ffd', 'zstd'],
    ['425a6839', 'bzip2'],
    ['68737173', 'squashfs'],
    ['514649fb', undefined],
    ['', undefined],
  ])('%s is %s', (bytes, format) => {
    expect(formatOf(Buffer.from(bytes, 'hex'))).toBe(format);
  });
});

describe('a tar stream', () => {
  async function pass(chunks: readonly Buffer[], check: TarStreamCheck): Promise<void> {
    async function* source(): AsyncGenerator<Buffer> {
      yield* chunks;
    }
    for await (const _chunk of check.pass(source()));
    check.assertWhole();
  }
  const limits = { maxBytes: 1000, maxEntries: 1 };

  it('is whole when it ends with zeros, however it is cut', async () => {
    await pass([Buffer.alloc(600, 1), Buffer.alloc(300), Buffer.alloc(300)], new TarStreamCheck(limits));
  });

  it('is truncated when it does not', async () => {
    await expect(pass([Buffer.alloc(600), Buffer.alloc(10, 1)], new TarStreamCheck(limits))).rejects.toThrow(
      'truncated',
    );
    await expect(pass([], new TarStreamCheck(limits))).rejects.toThrow('truncated');
  });

  it('is stopped when it is too long', async () => {
    await expect(pass([Buffer.alloc(20_000)], new TarStreamCheck(limits))).rejects.toThrow('more than');
  });
});

describe('zfs', () => {
  it.each([
    ["cannot open 'p/x': dataset does not exist", 'not_found'],
    ["cannot create 'p/x': dataset already exists", 'conflict'],
    ["cannot set property for 'p': invalid property 'x'", 'invalid'],
    ['internal error: out of memory', 'internal'],
  ])('says what went wrong: %s', async (stderr, kind) => {
    const zfs = new Zfs(new FakeHost().fail(/^zfs/, stderr));

    expect(await zfs.create('p/x', {}, signal()).catch(kindOf)).toBe(kind);
  });

  it('tries again while a dataset is busy', async () => {
    let tries = 0;
    const host = new FakeHost().on(/^zfs destroy/, () =>
      ++tries < 3 ? { exitCode: 1, stderr: "cannot destroy 'p/x': dataset is busy" } : '',
    );

    await new Zfs(host).destroy('p/x', signal());

    expect(tries).toBe(3);
  });

  it('says in words that somebody is still in a dataset', async () => {
    const zfs = new Zfs(new FakeHost().fail(/^zfs/, "cannot create 'p/x': dataset is busy\n"));

    const created = zfs.create('p/x', {}, signal());

    await expect(created).rejects.toThrow("cannot create 'p/x': some process still has files of it open");
  });

  it('does not try again when it is told to stop', async () => {
    const stop = new AbortController();
    const host = new FakeHost().on(/^zfs destroy/, () => {
      stop.abort();
      return { exitCode: 1, stderr: 'dataset is busy' };
    });

    await expect(new Zfs(host).destroy('p/x', stop.signal)).rejects.toThrow();

    expect(host.calls).toEqual(['zfs destroy -r p/x']);
  });
});
