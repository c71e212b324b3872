// Pools and disks that are full, read-only or gone: an error that says which and what to do, nothing lost, and all as before afterwards.
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const I = '/1.0/instances';
const FILE = { 'content-type': 'application/octet-stream', 'x-lxd-type': 'file', 'x-lxd-uid': '0', 'x-lxd-gid': '0' };
const FULL = 'Storage pool "p" is full: delete';
const READONLY = /Storage pool "p" \(.*\) is read-only/u;

const needs = { root: true, commands: ['lxc-start', 'busybox', 'mkfs.ext4', 'mkfs.btrfs'] };
describeWith(needs, 'a shortage', () => {
  let daemon: TestDaemon;
  let work: string;
  const undo: (() => Promise<unknown>)[] = [];

  beforeEach(async () => {
    work = await mkdtemp('/var/tmp/lighter-short-');
    await chmod(work, 0o711);
    undo.push(() => rm(work, { recursive: true, force: true }));
  });
  afterEach(async () => {
    for (const step of undo.splice(0).toReversed()) await step();
  });

  /** Below a directory of its own when it is to have one. */
  async function start(parent?: string): Promise<void> {
    const before = process.env['TMPDIR'];
    if (parent !== undefined) process.env['TMPDIR'] = parent;
    daemon = await TestDaemon.start('none');
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    undo.push(async () => {
      await daemon[Symbol.asyncDispose]();
    });
  }
  /** With one that runs, one that is stopped, and one to be deleted. */
  async function fill(driver: string, config: Record<string, string>): Promise<void> {
    await call('POST', '/1.0/storage-pools', { name: 'p', driver, config });
    const devices = { root: { type: 'disk', path: '/', pool: 'p' } };
    await call('PUT', '/1.0/profiles/default', { description: '', config: {}, devices });
    await daemon.addImage();
    for (const name of ['run', 'c1', 'waste']) await daemon.launch(name, { start: name === 'run' });
    await daemon.ready('run');
    expect((await push('waste', 8_000_000)).error).toBe('');
    expect((await push('c1', 1000)).error).toBe('');
  }
  /** Of requests of both kinds. */
  async function call(method: string, path: string, body?: unknown): Promise<void> {
    const { type, error, operation } = await daemon.call(method, path, body);
    if (error !== '') throw new Error(error);
    if (type !== 'async') return;
    const { metadata } = await daemon.call('GET', `${operation}/wait?timeout=60`);
    if (metadata.status_code !== 200) throw new Error(metadata.err);
  }
  const push = (name: string, bytes: number) =>
    daemon.call('POST', `${I}/${name}/files?path=/root/x`, Buffer.alloc(bytes, 1), FILE);
  const create = (name: string, alias = 'bb') => call('POST', I, { name, source: { type: 'image', alias } });
  const snapshot = (name: string) => call('POST', `${I}/c1/snapshots`, { name });
  const startOne = () => call('PUT', `${I}/c1/state`, { action: 'start' });
  const sh = (script: string) =>
    call('POST', `${I}/run/exec`, {
      command: ['sh', '-c', script],
      'record-output': true,
      'wait-for-websocket': false,
      interactive: false,
    });
  async function ext4(size: string): Promise<string> {
    const mounted = join(work, 'fs');
    await run('truncate', ['-s', size, join(work, 'disk')]);
    await run('mkfs.ext4', ['-q', '-m', '0', '-O', '^has_journal', join(work, 'disk')]);
    await mkdir(mounted);
    await run('mount', ['-o', 'loop', join(work, 'disk'), mounted]);
    undo.push(() => run('umount', ['-l', mounted]));
    await mkdir(join(mounted, 'pool'));
    return join(mounted, 'pool');
  }
  async function worksAgain(): Promise<void> {
    await create('again');
    await startOne();
    await snapshot('again');
    expect((await push('c1', 2000)).error).toBe('');
    expect(await daemon.status('run')).toBe('Running');
    await sh('echo 1 > /root/after');
    expect((await daemon.call('GET', `${I}/c1/files?path=/root/x`)).text).toHaveLength(2000);
    for (const name of ['again']) await call('DELETE', `${I}/${name}`);
  }
  /** More than once, with ever smaller pieces: file systems say that they are full before they are. */
  const useUp =
    'cat /dev/zero > /root/a; sync; dd if=/dev/zero of=/root/b bs=512; sync; dd if=/dev/zero of=/root/c bs=512; sync; true';

  it('of space in an overlay pool is named, and ends with a deletion', { timeout: 120_000 }, async () => {
    const source = await ext4('64M');
    await start();
    await fill('overlay', { source });
    await sh(useUp);

    await expect(create('n')).rejects.toThrow(FULL);
    await expect(snapshot('s')).rejects.toThrow(FULL);
    await expect(startOne()).rejects.toThrow(FULL);
    expect((await push('run', 500_000)).error).toContain(FULL);
    expect(await daemon.status('run')).toBe('Running');
    // What is only read and lies elsewhere needs none of its space.
    await call('POST', '/1.0/images', { source: { type: 'instance', name: 'c1' }, aliases: [{ name: 'pub' }] });
    await call('POST', `${I}/c1/backups`, { name: 'b0', compression_algorithm: 'none' });
    await call('DELETE', `${I}/waste`);
    await create('published', 'pub');
    expect((await daemon.call('GET', `${I}/published/files?path=/root/x`)).text).toHaveLength(1000);
    await call('DELETE', `${I}/published`);
    await worksAgain();
  });

  it('of space in a btrfs pool is named, and ends with a deletion', { timeout: 120_000 }, async () => {
    await start();
    await fill('btrfs', { size: '256MiB' });
    undo.push(() => run('umount', [join(daemon.root, 'storage-pools/p')]));
    await sh(useUp);

    await expect(startOne()).rejects.toThrow(FULL);
    expect((await push('run', 500_000)).error).toContain(FULL);
    expect(await daemon.status('run')).toBe('Running');
    await call('DELETE', `${I}/waste`);
    await sh('rm /root/a /root/b /root/c; sync');
    await worksAgain();
  });

  it('of space on the disk of the engine is named, and the daemon goes on', { timeout: 120_000 }, async () => {
    const small = join(work, 'small');
    await mkdir(small);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64m,mode=711', 'none', small]);
    undo.push(() => run('umount', ['-l', small]));
    const source = join(work, 'pool');
    await mkdir(source);
    await start(small);
    await fill('dir', { source });
    await writeFile(join(small, 'fill'), Buffer.alloc(80 << 20)).catch(() => undefined);
    const full = `The disk of the engine (${daemon.root}) is full`;

    await expect(create('n')).rejects.toThrow(full);
    await expect(snapshot('s')).rejects.toThrow(full);
    await expect(startOne()).rejects.toThrow(full);
    await expect(call('PATCH', `${I}/c1`, { config: { 'user.a': 'x'.repeat(100_000) } })).rejects.toThrow(full);
    expect(await daemon.status('run')).toBe('Running');
    await daemon.kill();
    await daemon.boot('none');
    expect(await daemon.status('run')).toBe('Running');
    await rm(join(small, 'fill'));
    await worksAgain();
    await call('DELETE', `${I}/waste`);
  });

  it('of a pool that can be written is named, and nothing is lost', { timeout: 120_000 }, async () => {
    await start();
    await fill('btrfs', { size: '256MiB' });
    const mounted = join(daemon.root, 'storage-pools/p');
    undo.push(() => run('umount', [mounted]));
    await run('mount', ['-o', 'remount,ro', mounted]);

    await expect(create('n')).rejects.toThrow(READONLY);
    await expect(snapshot('s')).rejects.toThrow(READONLY);
    await expect(startOne()).rejects.toThrow(READONLY);
    await expect(call('DELETE', `${I}/waste`)).rejects.toThrow(READONLY);
    expect((await push('run', 1000)).error).toMatch(READONLY);
    expect(await daemon.status('run')).toBe('Running');
    await run('mount', ['-o', 'remount,rw', mounted]);
    await worksAgain();
    await call('DELETE', `${I}/waste`);
  });

  it('of the pool itself is named, and ends when it is back', { timeout: 120_000 }, async () => {
    await start();
    await fill('btrfs', { size: '256MiB' });
    await call('PUT', `${I}/run/state`, { action: 'stop', force: true });
    await daemon.kill();
    const mounted = join(daemon.root, 'storage-pools/p');
    const file = join(daemon.root, 'disks/p.img');
    await run('umount', [mounted]);
    await rename(file, `${file}.away`);
    await daemon.boot('none');
    const gone = 'Storage pool "p" is unavailable on this server';

    await expect(create('n')).rejects.toThrow(gone);
    await expect(snapshot('s')).rejects.toThrow(gone);
    await expect(startOne()).rejects.toThrow(gone);
    await expect(call('DELETE', `${I}/waste`)).rejects.toThrow(gone);
    expect((await push('c1', 1000)).error).toBe(gone);
    const warnings = (await daemon.call('GET', '/1.0/warnings?recursion=1')).metadata as { last_message: string }[];
    expect(warnings.map(({ last_message: text }) => text).join()).toContain('cannot mount pool p');
    await daemon.kill();
    await rename(`${file}.away`, file);
    await daemon.boot('none');
    undo.push(() => run('umount', [mounted]));
    await call('PUT', `${I}/run/state`, { action: 'start' });
    await worksAgain();
    await call('DELETE', `${I}/waste`);
  });
});
