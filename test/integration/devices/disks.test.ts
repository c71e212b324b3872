// What disks of containers can be told: mount options, propagation, block devices, limits.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'losetup', 'mkfs.ext4'] }, 'disks', () => {
  let bench: DeviceBench;
  let work: string;
  let source: string;

  beforeAll(async () => {
    bench = await deviceBench();
    await bench.launch('dsk-c1');
    work = await mkdtemp(join(tmpdir(), 'dsk-'));
    await run('mount', ['-t', 'tmpfs', 'dsk', work]);
    await run('mount', ['--make-shared', work]);
    source = join(work, 'source');
    await mkdir(join(source, 'below'), { recursive: true });
    await mkdir(join(source, 'later'));
    await run('mount', ['-t', 'tmpfs', 'below', join(source, 'below')]);
    await writeFile(join(source, 'below', 'hello'), 'hi\n');
  });
  afterEach(async () => {
    const names = (await bench.lxc('config', 'device', 'list', 'dsk-c1')).split('\n').filter(Boolean);
    for (const name of names) await bench.lxc('config', 'device', 'remove', 'dsk-c1', name).catch(() => undefined);
    await run('umount', [join(source, 'later')]).catch(() => undefined);
  });
  afterAll(async () => {
    await bench[Symbol.asyncDispose]();
    await run('umount', ['-R', '-l', work]);
    await rm(work, { recursive: true, force: true });
  });

  const add = (name: string, ...options: string[]) =>
    bench.lxc('config', 'device', 'add', 'dsk-c1', name, 'disk', ...options);
  const mountOf = async (path: string) =>
    (await bench.mountinfo('dsk-c1')).split('\n').find((line) => line.split(' ')[4] === path) ?? '';
  const cat = (path: string) => bench.inside('dsk-c1', 'cat', path).catch(() => 'none');

  it('raw.mount.options are flags of the mount, and what a bind mount has not is refused', async () => {
    await add('d', `source=${source}`, 'path=/mnt/d', 'raw.mount.options=ro,nosuid,nodev,noexec,noatime');

    expect((await mountOf('/mnt/d')).split(' ')[5]?.split(',').toSorted()).toEqual(
      ['noatime', 'nodev', 'noexec', 'nosuid', 'ro'].toSorted(),
    );
    await expect(add('e', `source=${source}`, 'path=/mnt/e', 'raw.mount.options=ro,commit=5')).rejects.toThrow(
      'Mount option "commit=5" is not supported for the source',
    );
  });

  it('a block device is mounted, with options of its file system', async () => {
    const file = join(work, 'disk.img');
    await run('truncate', ['-s', '16M', file]);
    await run('mkfs.ext4', ['-q', '-O', '^has_journal', file]);
    const device = (await run('losetup', ['-f', '--show', file])).stdout.trim();
    try {
      await add('b', `source=${device}`, 'path=/mnt/b', 'raw.mount.options=noatime,max_batch_time=20000');

      const line = await mountOf('/mnt/b');
      expect(line).toContain('noatime');
      expect(line).toContain('max_batch_time=20000');
      await bench.lxc('config', 'device', 'remove', 'dsk-c1', 'b');
      expect(await mountOf('/mnt/b')).toBe('');
    } finally {
      await run('losetup', ['-d', device]);
    }
  });

  it('recursive shows what is mounted below, and what is mounted there later unless it is private', async () => {
    const later = () => run('mount', ['-t', 'tmpfs', 'later', join(source, 'later')]);
    await add('flat', `source=${source}`, 'path=/mnt/flat');
    await add('deep', `source=${source}`, 'path=/mnt/deep', 'recursive=true');
    await add('alone', `source=${source}`, 'path=/mnt/alone', 'recursive=true', 'propagation=rprivate');

    expect(await cat('/mnt/flat/below/hello')).toBe('none');
    expect(await cat('/mnt/deep/below/hello')).toBe('hi\n');
    await later();
    await writeFile(join(source, 'later', 'late'), 'late\n');
    expect(await cat('/mnt/deep/later/late')).toBe('late\n');
    expect(await cat('/mnt/alone/later/late')).toBe('none');

    await run('umount', [join(source, 'later')]);
    await bench.lxc('restart', '-f', 'dsk-c1');
    await bench.daemon.ready('dsk-c1', 2);
    await later();
    await writeFile(join(source, 'later', 'late'), 'late\n');
    expect(await cat('/mnt/deep/later/late')).toBe('late\n');
    expect(await cat('/mnt/alone/later/late')).toBe('none');
  });

  it('limits hold for disks of the host and for volumes of a pool, and change in place', async () => {
    const throttle = (kind: string) =>
      readFile(`/sys/fs/cgroup/blkio/lxc.payload.dsk-c1/blkio.throttle.${kind}_device`, 'utf8');
    await bench.lxc('storage', 'volume', 'create', 'default', 'vol');
    await add('v', 'pool=default', 'source=vol', 'path=/mnt/v', 'limits.read=10MB', 'limits.write=30iops');

    expect(await throttle('read_bps')).toMatch(/^\d+:\d+ 10000000\n$/u);
    expect(await throttle('write_iops')).toMatch(/^\d+:\d+ 30\n$/u);
    await bench.lxc('config', 'device', 'set', 'dsk-c1', 'v', 'limits.read', '5MB');
    expect(await throttle('read_bps')).toMatch(/^\d+:\d+ 5000000\n$/u);
    await bench.lxc('config', 'device', 'remove', 'dsk-c1', 'v');
    expect(await throttle('read_bps')).toBe('');
    await bench.lxc('storage', 'volume', 'delete', 'default', 'vol');
  });

  it.each([
    [
      ['source=vol', 'pool=default', 'path=/x', 'shift=true'],
      'The "shift" property cannot be used with custom storage',
    ],
    [
      ['source=vol', 'pool=default', 'path=/x', 'recursive=true'],
      'The recursive option is only supported for additional',
    ],
    [['source=tmpfs:', 'path=/x'], 'Source path must be absolute for local sources'],
    [['source=/tmp', 'path=/x', 'boot.priority=-1'], 'Invalid value for uint32 "-1": strconv.ParseUint: parsing "-1"'],
    [['source=/tmp', 'path=/x', 'size=10MB'], 'Only the root disk may have a size quota'],
  ])('%j: %s', async (options, complaint) => {
    await expect(add('bad', ...options)).rejects.toThrow(complaint);
  });
});
