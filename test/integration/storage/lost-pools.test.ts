// Pools that are taken away while the daemon is up, and such that come late: clear errors in bounded time, and all as before afterwards.
import { chmod, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith, hasKernelZfs } from '../support.ts';

const I = '/1.0/instances';
const FILE = { 'content-type': 'application/octet-stream', 'x-lxd-type': 'file', 'x-lxd-uid': '0', 'x-lxd-gid': '0' };
const GONE = 'Storage pool "p" is unavailable on this server';
/** No request may take longer. */
const BOUND_MS = 10_000 * timeFactor();

const needs = { root: true, commands: ['lxc-start', 'busybox', 'mkfs.ext4', 'mkfs.btrfs', 'zpool', 'zfs'] };
describeWith(needs, 'a pool', () => {
  let daemon: TestDaemon;
  let work: string;
  let zpool: string;
  const undo: (() => Promise<unknown>)[] = [];

  beforeEach(async () => {
    work = await mkdtemp('/var/tmp/lighter-lost-');
    zpool = `lighter-l${process.pid}-${Date.now() % 1_000_000}`;
    await chmod(work, 0o711);
    undo.push(() => rm(work, { recursive: true, force: true }));
    // After the daemon has gone, which needs its pools to tidy up.
    undo.push(() => run('umount', ['-l', join(work, 'fs')]));
    undo.push(() => run('umount', ['-l', poolPath()]));
    undo.push(() => run('zpool', ['destroy', '-f', zpool]));
    daemon = await TestDaemon.start('none');
    undo.push(() => daemon[Symbol.asyncDispose]());
  });
  afterEach(async () => {
    // What a test did not come to make cannot be taken away.
    for (const step of undo.splice(0).toReversed()) await step().catch(() => undefined);
  });

  const poolPath = () => join(daemon.root, 'storage-pools/p');

  /** Of requests of both kinds, and not for ever. */
  async function call(method: string, path: string, body?: unknown): Promise<any> {
    const begin = Date.now();
    const { type, error, operation, metadata } = await daemon.call(method, path, body);
    if (error !== '') throw new Error(error);
    if (type !== 'async') return metadata;
    const ended = (await daemon.call('GET', `${operation}/wait?timeout=60`)).metadata;
    expect(Date.now() - begin).toBeLessThan(BOUND_MS);
    if (ended.status_code !== 200) throw new Error(ended.err);
    return ended;
  }
  const root = (pool: string) => ({ root: { type: 'disk', path: '/', pool } });
  const create = (name: string, pool = 'p') =>
    call('POST', I, { name, source: { type: 'image', alias: 'bb' }, devices: root(pool) });
  const snapshot = (name: string) => call('POST', `${I}/c1/snapshots`, { name });
  const power = (name: string, action: string) =>
    call('PUT', `${I}/${name}/state`, { action, force: action === 'stop' });
  const push = (name: string) => daemon.call('POST', `${I}/${name}/files?path=/root/x`, Buffer.from('content'), FILE);
  const pull = async (name: string) => (await daemon.call('GET', `${I}/${name}/files?path=/root/x`)).text;
  const state = async () => (await call('GET', '/1.0/storage-pools/p')).status as string;

  /** With one that runs beside it on a pool of its own, two that are stopped and a volume. */
  async function fill(driver: string, config: Record<string, string>): Promise<void> {
    await call('POST', '/1.0/storage-pools', { name: 'p', driver, config });
    await call('POST', '/1.0/storage-pools', { name: 'other', driver: 'dir', config: {} });
    if (driver === 'zfs') await call('PATCH', '/1.0/profiles/default', { config: { 'security.privileged': 'true' } });
    await daemon.addImage();
    await create('run', 'other');
    await power('run', 'start');
    await daemon.ready('run');
    await create('c1');
    await create('waste');
    expect((await push('c1')).error).toBe('');
    await call('POST', '/1.0/storage-pools/p/volumes/custom', { name: 'v1', config: {} });
  }
  /** Whatever is asked of it, and the daemon serves the rest. */
  async function isRefused(reason: string | RegExp, { reads = false } = {}): Promise<void> {
    await expect(create('n')).rejects.toThrow(reason);
    await expect(snapshot('s')).rejects.toThrow(reason);
    await expect(power('c1', 'start')).rejects.toThrow(reason);
    await expect(call('DELETE', `${I}/waste`)).rejects.toThrow(reason);
    await expect(call('POST', '/1.0/storage-pools/p/volumes/custom', { name: 'v2', config: {} })).rejects.toThrow(
      reason,
    );
    await expect(call('DELETE', '/1.0/storage-pools/p/volumes/custom/v1')).rejects.toThrow(reason);
    await expect(call('POST', I, { name: 'n', source: { type: 'copy', source: 'c1' } })).rejects.toThrow(reason);
    if (!reads) expect((await push('c1')).error).toMatch(reason);
    const list = (await call('GET', `${I}?recursion=2`)) as { name: string }[];
    expect(list.map(({ name }) => name).sort()).toEqual(['c1', 'run', 'waste']);
    expect((await call('GET', `${I}/c1`)).status).toBe('Stopped');
    expect((await call('GET', `${I}/c1/state`)).status).toBe('Stopped');
    expect(await call('GET', '/1.0/storage-pools?recursion=1')).toHaveLength(2);
    expect(await daemon.status('run')).toBe('Running');
    await power('run', 'restart');
  }
  async function worksAgain(): Promise<void> {
    await poll(async () => ((await state()) === 'Created' ? true : undefined), 200, AbortSignal.timeout(20_000));
    expect(await pull('c1')).toBe('content');
    await create('again');
    await snapshot('again');
    await power('c1', 'start');
    expect((await push('c1')).error).toBe('');
    await power('c1', 'stop');
    for (const name of ['again', 'waste']) await call('DELETE', `${I}/${name}`);
    await call('DELETE', '/1.0/storage-pools/p/volumes/custom/v1');
  }

  it.each(['dir', 'overlay'])(
    'of %s that is unmounted is named, and works when it is back',
    { timeout: 120_000 * timeFactor() },
    async (driver) => {
      const disk = join(work, 'disk');
      await run('truncate', ['-s', '128M', disk]);
      await run('mkfs.ext4', ['-q', disk]);
      await mkdir(join(work, 'fs'));
      await run('mount', ['-o', 'loop', disk, join(work, 'fs')]);
      const source = join(work, 'fs/pool');
      await mkdir(source);
      await fill(driver, { source });
      await run('umount', ['-l', poolPath()]);

      await isRefused(GONE);
      expect(await state()).toBe('Unavailable');
      await run('mount', ['--bind', source, poolPath()]);
      await worksAgain();
    },
  );

  it('of dir whose file system is not mounted when the daemon starts is named, and not begun anew', {
    timeout: 120_000,
  }, async () => {
    const disk = join(work, 'disk');
    const fs = join(work, 'fs');
    await run('truncate', ['-s', '128M', disk]);
    await run('mkfs.ext4', ['-q', disk]);
    await mkdir(fs);
    await run('mount', ['-o', 'loop', disk, fs]);
    await rm(join(fs, 'lost+found'), { recursive: true });
    await fill('dir', { source: fs });
    await daemon.kill();
    await run('umount', ['-l', poolPath()]);
    await run('umount', ['-l', fs]);
    await daemon.boot('none');

    await isRefused(GONE);
    await run('mount', ['-o', 'loop', disk, fs]);
    await daemon.kill();
    await daemon.boot('none');
    await worksAgain();
  });

  it('of btrfs that is unmounted is named, and works when it is back', {
    timeout: 120_000 * timeFactor(),
  }, async () => {
    await fill('btrfs', { size: '256MiB' });
    await run('umount', ['-l', poolPath()]);

    await isRefused(GONE);
    expect(await state()).toBe('Unavailable');
    await run('mount', ['-o', 'loop', join(daemon.root, 'disks/p.img'), poolPath()]);
    await worksAgain();
  });

  it('of zfs that is exported is named, and works when it is back', { timeout: 120_000 * timeFactor() }, async () => {
    await fill('zfs', { size: '256MiB', 'zfs.pool_name': zpool });
    await run('zpool', ['export', zpool]);

    await isRefused(GONE);
    expect(await state()).toBe('Unavailable');
    await run('zpool', ['import', '-d', join(daemon.root, 'disks'), zpool]);
    await worksAgain();
  });

  it('of zfs that is away when the daemon starts is named, and opened when it comes', {
    timeout: 180_000,
  }, async () => {
    await fill('zfs', { size: '256MiB', 'zfs.pool_name': zpool });
    await daemon.kill();
    await run('zpool', ['export', zpool]);
    const file = join(daemon.root, 'disks/p.img');
    const away = join(daemon.root, 'away.img');
    await rename(file, away);
    await daemon.boot('none');

    await isRefused(GONE);
    await rename(away, file);
    await poll(async () => ((await state()) === 'Created' ? true : undefined), 1000, AbortSignal.timeout(90_000));
    await worksAgain();
  });

  // zfs-fuse imports none so.
  it.skipIf(!hasKernelZfs)(
    'of zfs that can only be read is named, and works when it is written again',
    {
      timeout: 120_000 * timeFactor(),
    },
    async () => {
      await fill('zfs', { size: '256MiB', 'zfs.pool_name': zpool });
      const disks = join(daemon.root, 'disks');
      await run('zpool', ['export', zpool]);
      await run('zpool', ['import', '-o', 'readonly=on', '-d', disks, zpool]);

      await isRefused(/is read-only/u, { reads: true });
      await run('zpool', ['export', zpool]);
      await run('zpool', ['import', '-d', disks, zpool]);
      await worksAgain();
    },
  );

  it('of zfs that is full is named, and works when there is room again', {
    timeout: 120_000 * timeFactor(),
  }, async () => {
    await fill('zfs', { size: '128MiB', 'zfs.pool_name': zpool });
    await power('c1', 'start');
    const inside = (script: string) =>
      call('POST', `${I}/c1/exec`, {
        command: ['sh', '-c', script],
        'record-output': true,
        'wait-for-websocket': false,
        interactive: false,
      });
    await inside('cat /dev/urandom > /root/a; sync; dd if=/dev/urandom of=/root/b bs=512; sync; true');
    const full = 'Storage pool "p" is full: delete';

    await expect(create('n')).rejects.toThrow(full);
    await expect(call('POST', '/1.0/storage-pools/p/volumes/custom', { name: 'v2', config: {} })).rejects.toThrow(full);
    expect(await daemon.status('c1')).toBe('Running');
    // Nor does a daemon that starts meanwhile need room.
    await daemon.kill();
    await daemon.boot('none');
    expect(await daemon.status('c1')).toBe('Running');
    await call('DELETE', `${I}/waste`);
    await inside('rm /root/a /root/b; sync');
    await power('c1', 'stop');
    await create('waste');
    await worksAgain();
  });
});
