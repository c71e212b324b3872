// A btrfs pool of a real engine, with the stock client: from its making over the life of an instance to its end.
import { readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const NAME = `bt${process.pid}`;
const commands = ['lxc', 'lxc-start', 'busybox', 'rsync', 'mkfs.btrfs', 'btrfs'];

describeWith({ root: true, commands }, 'an engine with a btrfs pool', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await lxc('storage', 'create', 'fast', 'btrfs', 'size=1GiB');
  });
  afterAll(async () => {
    await run('umount', [join(daemon.root, 'storage-pools/fast')]).catch(() => undefined); // gone with the pool if all went well
    await daemon[Symbol.asyncDispose]();
  });

  const lxc = (...args: readonly string[]): Promise<string> => client.run(...args);
  const sh = (script: string, name = NAME): Promise<string> => lxc('exec', name, '--', 'sh', '-c', script);

  it('shows the pool as LXD does', async () => {
    const shown = await lxc('storage', 'show', 'fast');

    expect(shown).toContain(`  size: 1GiB\n  source: ${daemon.root}/disks/fast.img\n`);
    expect(await lxc('storage', 'info', 'fast')).toContain('total space: 1.00GiB');
    expect(await lxc('info')).toContain('  - name: btrfs\n');
    await expect(lxc('storage', 'create', 'x', 'btrfs', 'zfs.pool_name=x')).rejects.toThrow('Invalid option');
    await expect(lxc('storage', 'create', 'x', 'btrfs', 'size=10MiB')).rejects.toThrow('Failed to format sparse file');
    expect(await readdir(join(daemon.root, 'disks'))).toEqual(['fast.img']);
  });

  it('grows, and mounts it with other options, while it is used', async () => {
    await lxc('storage', 'set', 'fast', 'size=2GiB');
    await lxc('storage', 'set', 'fast', 'btrfs.mount_options=noatime,user_subvol_rm_allowed');

    expect(await lxc('storage', 'info', 'fast')).toContain('total space: 2.00GiB');
    expect(await lxc('storage', 'show', 'fast')).toContain('  size: 2GiB\n');
    const options = (await run('findmnt', ['-n', '-o', 'OPTIONS', join(daemon.root, 'storage-pools/fast')])).stdout;
    expect(options.split(',')).toContain('noatime');
    await expect(lxc('storage', 'set', 'fast', 'size=1GiB')).rejects.toThrow('cannot be reduced');
    await expect(lxc('storage', 'set', 'fast', 'size=much')).rejects.toThrow('invalid size');
    await expect(lxc('storage', 'set', 'fast', 'btrfs.mount_options=nonsense')).rejects.toThrow('mount');
    expect(await lxc('storage', 'show', 'fast')).toContain('  size: 2GiB\n');
  });

  it('runs an instance there, with its size, snapshots and copies', async () => {
    await daemon.launch(NAME, { devices: { root: { type: 'disk', path: '/', pool: 'fast', size: '100MiB' } } });
    await daemon.ready(NAME);
    await sh('mkdir /data; echo one > /data/f; chown 1000:1000 /data/f');

    await lxc('snapshot', NAME, 's0');
    await sh('echo two > /data/f');
    await lxc('copy', NAME, `${NAME}c`);
    await lxc('start', `${NAME}c`);
    expect(await sh('cat /data/f; stat -c %u /data/f', `${NAME}c`)).toBe('two\n1000\n');
    await lxc('restore', NAME, 's0');
    expect(await sh('cat /data/f; stat -c %u /data/f')).toBe('one\n1000\n');
    await expect(sh('dd if=/dev/zero of=/data/big bs=1M count=150')).rejects.toThrow('Disk quota exceeded');
    await sh('rm /data/big');
    await lxc('copy', `${NAME}/s0`, `${NAME}d`);
    await lxc('rename', `${NAME}d`, `${NAME}e`);
    await lxc('start', `${NAME}e`);
    expect(await sh('cat /data/f', `${NAME}e`)).toBe('one\n');
    await lxc('delete', '-f', `${NAME}c`, `${NAME}e`);
    expect(await readdir(join(daemon.root, 'storage-pools/fast/containers'))).toEqual([NAME]);
  });

  it('moves it to another pool and back, with its snapshots and what is nested in it', async () => {
    await lxc('stop', '-f', NAME);
    const root = join(daemon.root, 'storage-pools/fast/containers', NAME, 'rootfs');
    await run('btrfs', ['subvolume', 'create', join(root, 'data/nested')]);
    await writeFile(join(root, 'data/nested/f'), 'deep\n');
    await lxc('export', NAME, 'nested.tar', '-q', '--compression', 'none', '--instance-only');
    expect((await run('tar', ['-tf', join(client.work, 'nested.tar')])).stdout).toContain('rootfs/data/nested/f\n');

    await lxc('move', NAME, '-s', 'default');
    await lxc('start', NAME);
    expect(await sh('cat /data/f /data/nested/f; stat -c %u /data/f')).toBe('one\ndeep\n1000\n');
    await lxc('stop', '-f', NAME);
    await lxc('move', NAME, '-s', 'fast');
    await lxc('start', NAME);
    expect(await sh('cat /data/f /data/nested/f')).toBe('one\ndeep\n');
    await lxc('restore', NAME, 's0');
    expect(await sh('ls /data')).toBe('f\n');
  });

  it('copies it to another pool on btrfs with what is nested in it, readonly or not', async () => {
    await lxc('stop', '-f', NAME);
    const path = (pool: string, name: string, place: string): string => {
      return join(daemon.root, 'storage-pools', pool, 'containers', name, 'rootfs/data', place);
    };
    for (const place of ['a', 'a/kept']) await run('btrfs', ['subvolume', 'create', path('fast', NAME, place)]);
    await writeFile(path('fast', NAME, 'a/kept/f'), 'deep\n');
    await run('btrfs', ['property', 'set', '-ts', path('fast', NAME, 'a/kept'), 'ro', 'true']);
    await lxc('snapshot', NAME, 's1');
    await lxc('storage', 'create', 'other', 'btrfs', 'size=1GiB');

    await lxc('start', NAME);
    await lxc('copy', NAME, `${NAME}o`, '-s', 'other');
    await lxc('copy', `${NAME}/s1`, `${NAME}q`, '-s', 'other');
    await lxc('start', `${NAME}o`);
    expect(await sh('cat /data/a/kept/f', `${NAME}o`)).toBe('deep\n');
    await lxc('stop', '-f', NAME, `${NAME}o`);
    await lxc('restore', `${NAME}o`, 's1');
    for (const name of [`${NAME}o`, `${NAME}q`]) {
      await lxc('start', name);
      await expect(sh('touch /data/a/kept/g', name)).rejects.toThrow('Read-only file system');
      expect(await sh('touch /data/a/g && cat /data/f /data/a/kept/f', name)).toBe('one\ndeep\n');
    }

    await lxc('delete', '-f', `${NAME}o`, `${NAME}q`);
    await lxc('storage', 'delete', 'other');
    await lxc('restore', NAME, 's0');
    await lxc('delete', `${NAME}/s1`);
    await lxc('start', NAME);
  });

  it('exports, imports and publishes it', async () => {
    await lxc('export', NAME, 'one.tar.gz', '-q');
    await lxc('import', 'one.tar.gz', `${NAME}i`, '-s', 'fast', '-q');
    await lxc('start', `${NAME}i`);
    expect(await sh('cat /data/f', `${NAME}i`)).toBe('one\n');
    await lxc('publish', `${NAME}/s0`, '--alias', 'from-btrfs', '-q');
    await lxc('launch', 'from-btrfs', `${NAME}p`, '-s', 'fast', '-q');

    expect(await sh('cat /data/f; stat -c %u /data/f', `${NAME}p`)).toBe('one\n1000\n');
    await lxc('delete', '-f', `${NAME}i`, `${NAME}p`);
    await lxc('image', 'delete', 'from-btrfs');
  });

  it('gives it volumes with sizes and snapshots', async () => {
    await lxc('storage', 'volume', 'create', 'fast', 'v1', 'size=30MiB');
    await lxc('storage', 'volume', 'attach', 'fast', 'v1', NAME, 'vol', '/vol');
    await sh('echo a > /vol/f');
    await lxc('storage', 'volume', 'snapshot', 'fast', 'v1', 's0');
    await expect(sh('dd if=/dev/zero of=/vol/big bs=1M count=60')).rejects.toThrow('Disk quota exceeded');
    await lxc('storage', 'volume', 'set', 'fast', 'v1', 'size', '100MiB');
    await sh('dd if=/dev/zero of=/vol/big bs=1M count=60');
    await lxc('storage', 'volume', 'detach', 'fast', 'v1', NAME);
    await lxc('storage', 'volume', 'restore', 'fast', 'v1', 's0');

    await lxc('storage', 'volume', 'copy', 'fast/v1', 'default/v2');
    await lxc('storage', 'volume', 'copy', 'default/v2', 'fast/v3');
    expect(await readdir(join(daemon.root, 'storage-pools/fast/custom/default_v3'))).toEqual(['f']);
    for (const volume of ['fast/v1', 'fast/v3', 'default/v2'])
      await lxc('storage', 'volume', 'delete', ...volume.split('/'));
  });

  it('finds everything after it was killed, and instances that ran still run', async () => {
    await sh('echo kept > /data/g');
    await daemon.kill();
    await daemon.boot();

    expect(await sh('cat /data/g')).toBe('kept\n');
    await lxc('stop', '-f', NAME);
    await daemon.kill();
    await run('umount', [join(daemon.root, 'storage-pools/fast')]);
    await rename(join(daemon.root, 'disks/fast.img'), join(daemon.root, 'disks/away'));
    await daemon.boot();
    expect(await lxc('storage', 'list')).toContain('UNAVAILABLE');
    await expect(lxc('start', NAME)).rejects.toThrow('unavailable');
    await daemon.kill();
    await rename(join(daemon.root, 'disks/away'), join(daemon.root, 'disks/fast.img'));
    await daemon.boot();
    await lxc('start', NAME);

    expect(await sh('cat /data/g')).toBe('kept\n');
  });

  it('deletes the pool when nothing uses it', async () => {
    await expect(lxc('storage', 'delete', 'fast')).rejects.toThrow('The storage pool is currently in use');
    await lxc('delete', '-f', NAME);
    await lxc('storage', 'delete', 'fast');

    expect(await readdir(join(daemon.root, 'disks'))).toEqual([]);
    expect(await readdir(join(daemon.root, 'storage-pools'))).toEqual(['default']);
    const detached = async (): Promise<true | undefined> => {
      return (await run('losetup', ['-a'])).stdout.includes(daemon.root) ? undefined : true;
    };
    await poll(detached, 100, AbortSignal.timeout(10_000));
  });
});
