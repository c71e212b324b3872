// Instances and custom volumes on a zfs pool, through the API: what the engine makes of clones, snapshots and their rules.
import { spawn } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { timeFactor } from '#test/time-factor.ts';
import { describeWith, hasKernelZfs, onKernelsWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const POOL = `lighter-e${process.pid}`;
const NAME = `zc${process.pid}`;
/** zfs-fuse serves no others. */
const CONFIG = hasKernelZfs ? {} : { 'security.privileged': 'true' };

describeWith({ root: true, commands: ['lxc-start', 'zfs', 'zpool', 'tar'] }, 'instances on zfs', () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    const config = { size: '1GiB', 'zfs.pool_name': POOL };
    const made = await daemon.call('POST', '/1.0/storage-pools', { name: 'z', driver: 'zfs', config });
    expect(made.error).toBe('');
    const devices = { root: { type: 'disk', path: '/', pool: 'z' } };
    await daemon.call('PUT', '/1.0/profiles/default', { config: CONFIG, devices });
    await daemon.launch(NAME);
    await daemon.ready(NAME);
  });
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await run('zpool', ['destroy', '-f', POOL]);
  });

  const at = `/1.0/instances/${NAME}`;
  const volumes = '/1.0/storage-pools/z/volumes';
  const inside = (name: string, script: string) => {
    return daemon.operate('POST', `/1.0/instances/${name}/exec`, { command: ['sh', '-c', script] });
  };
  const put = (text: string, path = '/root/state', name = NAME) => inside(name, `printf %s '${text}' > ${path}; sync`);
  const get = async (name: string, path = '/root/state'): Promise<string> => {
    const answer = await daemon.call('GET', `/1.0/instances/${name}/files?path=${path}`);
    return answer.status === 200 ? answer.text : answer.error;
  };
  const copy = (source: string, name: string) => {
    return daemon.operate('POST', '/1.0/instances', { name, source: { type: 'copy', source } });
  };
  const remove = async (name: string): Promise<void> => void (await daemon.operate('DELETE', `/1.0/instances/${name}`));
  const snapshot = (name: string, of = at) => daemon.operate('POST', `${of}/snapshots`, { name });
  const snapshots = async (of = at): Promise<string[]> => {
    const { metadata } = await daemon.call('GET', `${of}/snapshots?recursion=1`);
    return (metadata as { name: string }[]).map(({ name }) => name);
  };
  const datasets = async (below: string): Promise<string[]> => {
    const { stdout } = await run('zfs', ['list', '-H', '-r', '-t', 'all', '-o', 'name', `${POOL}/${below}`]);
    return stdout.split('\n').filter((name) => name !== '' && name !== `${POOL}/${below}`);
  };
  const patch = async (changes: object): Promise<void> => {
    expect((await daemon.call('PATCH', at, changes)).error).toBe('');
  };
  /** PUT replaces what is there. */
  const setPool = async (changes: object): Promise<void> => {
    const { metadata } = await daemon.call('GET', '/1.0/storage-pools/z');
    const config = { ...metadata.config, ...changes };
    const answer = await daemon.call('PUT', '/1.0/storage-pools/z', { description: '', config });
    expect(answer.error).toBe('');
  };

  it('snapshots while they run, and restores by LXD’s rule', async () => {
    await put('one');
    await snapshot('a');
    await put('two');
    await snapshot('b');
    await put('three');

    const { pid } = await daemon.state(NAME);
    await expect(daemon.operate('PUT', at, { restore: 'a' })).rejects.toThrow(
      'Snapshot "a" cannot be restored due to subsequent snapshot(s). Set zfs.remove_snapshots to override: b',
    );
    expect((await daemon.state(NAME)).pid).toBe(pid);
    await daemon.operate('PUT', at, { restore: 'b' });

    expect(await daemon.status(NAME)).toBe('Running');
    expect(await get(NAME)).toBe('two');
    expect(await snapshots()).toEqual(['a', 'b']);
  });

  it('removes later snapshots when the pool says so', async () => {
    await setPool({ 'volume.zfs.remove_snapshots': 'true' });
    await snapshot('c');

    await daemon.operate('PUT', at, { restore: 'a' });

    expect(await get(NAME)).toBe('one');
    expect(await snapshots()).toEqual(['a']);
    await setPool({ 'volume.zfs.remove_snapshots': '' });
  });

  it('copies by clones, which outlive what they came from and do not stand in its way', async () => {
    await copy(NAME, `${NAME}b`);
    await copy(`${NAME}/a`, `${NAME}c`);
    await put('four');
    await daemon.operate('PUT', at, { restore: 'a' });
    await snapshot('later');

    expect(await get(NAME)).toBe('one');
    expect(await get(`${NAME}b`)).toBe('one');
    expect(await get(`${NAME}c`)).toBe('one');
    expect(await snapshots(`/1.0/instances/${NAME}b`)).toEqual(['a']);
    await daemon.operate('DELETE', `${at}/snapshots/a`);
    await daemon.operate('POST', `/1.0/instances/${NAME}c`, { name: `${NAME}d` });
    expect(await get(`${NAME}d`)).toBe('one');
    await remove(`${NAME}b`);
    await remove(`${NAME}d`);
    expect((await datasets('containers')).toSorted()).toEqual([
      `${POOL}/containers/${NAME}`,
      `${POOL}/containers/${NAME}@snapshot-later`,
    ]);
    expect(await datasets('deleted/containers')).toEqual([]);
    expect(await datasets('work')).toEqual([]);
  });

  it('publishes and exports snapshots, and imports them', async () => {
    const source = { type: 'snapshot', name: `${NAME}/later` };
    const published = await daemon.operate('POST', '/1.0/images', { source, aliases: [{ name: 'snapped' }] });
    expect(published.metadata.metadata.fingerprint).toHaveLength(64);
    await daemon.operate('POST', `${at}/backups`, { name: 'full', instance_only: false });
    const socket = daemon.socketPath;
    const file = join(daemon.root, 'full.tar.gz');
    const url = `http://lighter/1.0/instances/${NAME}/backups/full/export`;
    await run('curl', ['-sS', '--fail', '--unix-socket', socket, '-o', file, url]);

    const headers = { 'content-type': 'application/octet-stream', 'x-lxd-name': `${NAME}i`, 'x-lxd-pool': 'z' };
    const upload = await daemon.call('POST', '/1.0/instances', await readFile(file), headers);
    expect(upload.error).toBe('');
    const imported = await daemon.call('GET', `${upload.operation}/wait?timeout=${60 * timeFactor()}`);

    expect(imported.metadata.err).toBe('');
    expect(await get(`${NAME}i`)).toBe('one');
    expect(await snapshots(`/1.0/instances/${NAME}i`)).toEqual(['later']);
    await remove(`${NAME}i`);
    expect(await datasets('work')).toEqual([]);
  });

  it('has custom volumes with snapshots, sizes and settings', async () => {
    const config = { size: '100MiB', 'zfs.use_refquota': 'true', 'zfs.blocksize': '16KiB' };
    const bad = await daemon.call('POST', volumes, { name: 'x', type: 'custom', config: { 'zfs.blocksize': '5' } });
    expect(bad.error).toContain('Invalid option for volume "default_x" option "zfs.blocksize"');
    await daemon.call('POST', volumes, { name: 'v', type: 'custom', config });
    const device = { type: 'disk', pool: 'z', source: 'v', path: '/data' };
    await patch({ devices: { data: device } });
    await put('one', '/data/f');
    await daemon.operate('POST', `${volumes}/custom/v/snapshots`, { name: 's0' });
    await put('two', '/data/f');
    await daemon.operate('POST', `${volumes}/custom/v/snapshots`, { name: 's1' });

    const limits = await run('zfs', ['get', '-Hp', '-o', 'value', 'refquota,recordsize', `${POOL}/custom/default_v`]);
    expect(limits.stdout).toBe(`${100 * 2 ** 20}\n16384\n`);
    const { metadata } = await daemon.call('GET', `${volumes}/custom/v`);
    expect(metadata.used_by).toEqual([at]);
    await patch({ devices: { data: { type: 'none' } } });
    const restore = await daemon.call('PUT', `${volumes}/custom/v`, { restore: 's0' });
    expect(restore.error).toContain('Set zfs.remove_snapshots to override: s1');
    await daemon.call('PUT', `${volumes}/custom/v`, { config: { size: '50MiB', 'zfs.remove_snapshots': 'true' } });
    const quota = await run('zfs', ['get', '-Hp', '-o', 'value', 'quota,refquota', `${POOL}/custom/default_v`]);
    expect(quota.stdout).toBe(`${50 * 2 ** 20}\n0\n`);
    expect((await daemon.call('PUT', `${volumes}/custom/v`, { restore: 's0' })).error).toBe('');
    await patch({ devices: { data: device } });
    await inside(NAME, 'cp /data/f /root/seen; sync');
    expect(await get(NAME, '/root/seen')).toBe('one');
  });

  it('copies, moves, exports and deletes custom volumes, with what only they needed', async () => {
    await patch({ devices: { data: { type: 'none' } } });
    const source = { type: 'copy', name: 'v', pool: 'z' };
    await daemon.operate('POST', `${volumes}/custom`, { name: 'w', type: 'custom', source });
    const other = await daemon.call('POST', '/1.0/storage-pools', { name: 'other', driver: 'dir' });
    expect(other.error).toBe('');
    await daemon.operate('POST', `${volumes}/custom/w`, { name: 'w', pool: 'other' });

    const moved = await daemon.call('GET', '/1.0/storage-pools/other/volumes/custom/w');
    expect(Object.keys(moved.metadata.config).filter((key) => key.startsWith('zfs.'))).toEqual([]);
    expect(await readFile(join(daemon.root, 'storage-pools/other/custom/default_w/f'), 'utf8')).toBe('one');
    await daemon.call('DELETE', '/1.0/storage-pools/other/volumes/custom/w');
    await daemon.operate('POST', `${volumes}/custom/v/backups`, { name: 'b' });
    const file = join(daemon.root, 'v.tar.gz');
    const url = `http://lighter${volumes}/custom/v/backups/b/export`;
    await run('curl', ['-sS', '--fail', '--unix-socket', daemon.socketPath, '-o', file, url]);
    const headers = { 'content-type': 'application/octet-stream', 'x-lxd-name': 'again' };
    const upload = await daemon.call('POST', `${volumes}/custom`, await readFile(file), headers);
    const imported = await daemon.call('GET', `${upload.operation}/wait?timeout=${60 * timeFactor()}`);
    expect([upload.error, imported.metadata.err]).toEqual(['', '']);
    expect(await readFile(join(daemon.root, 'storage-pools/z/custom/default_again/f'), 'utf8')).toBe('one');
    expect(await snapshots(`${volumes}/custom/again`)).toHaveLength(1);
    await daemon.call('DELETE', `${volumes}/custom/again`);
    await daemon.call('DELETE', `${volumes}/custom/v`);
    expect(await datasets('custom')).toEqual([]);
    expect(await readdir(join(daemon.root, 'storage-pools/z/custom-snapshots'))).toEqual([]);
  });

  it('is as it was after a daemon that was killed in the middle of a copy', async () => {
    await inside(NAME, 'head -c 20000000 /dev/urandom > /root/big');
    await snapshot('big');
    const source = { type: 'copy', source: NAME };
    await daemon.call('POST', '/1.0/instances', { name: `${NAME}h`, source });

    await daemon.kill();
    await daemon.boot();

    expect(await daemon.status(NAME)).toBe('Running');
    const there = (await daemon.call('GET', `/1.0/instances/${NAME}h`)).status === 200;
    const roots = (await datasets('containers')).filter((name) => !name.includes('@'));
    expect(roots).toEqual([NAME, ...(there ? [`${NAME}h`] : [])].map((name) => `${POOL}/containers/${name}`));
    expect(await datasets('work')).toEqual([]);
    expect(await snapshots()).toEqual(['later', 'big']);
  });

  // zfs-fuse maps no ids, and serves no guests that need it.
  const test = it.runIf(onKernelsWith(hasKernelZfs));
  const disk = (name: string): string => join(daemon.root, 'storage-pools/z/containers', name, 'rootfs');

  test('has the owners of an unprivileged guest by its mount, and on the disk those that the guest sees', async () => {
    const owners = async (path: string): Promise<readonly number[]> => {
      const { uid, gid } = await stat(path);
      return [uid, gid];
    };
    const headers = { 'x-lxd-uid': '5', 'x-lxd-gid': '6', 'x-lxd-type': 'file' };

    await inside(NAME, 'touch /root/own; chown 7:9 /root/own');
    await daemon.call('POST', `${at}/files?path=/root/pushed`, Buffer.from('pushed'), headers);

    const { pid } = await daemon.state(NAME);
    const [base = 0] = await owners(`/proc/${pid}`);
    expect(base).toBeGreaterThan(65_535);
    expect(await owners(`/proc/${pid}/root/root/own`)).toEqual([base + 7, base + 9]);
    expect(await owners(join(disk(NAME), 'root/own'))).toEqual([7, 9]);
    expect(await owners(join(disk(NAME), 'root/pushed'))).toEqual([5, 6]);
    expect(await get(NAME, '/root/pushed')).toBe('pushed');
  });

  test('holds a guest to the size of its root while it runs', async () => {
    const size = (bytes: string) => patch({ devices: { root: { type: 'disk', path: '/', pool: 'z', size: bytes } } });
    const fill = async (): Promise<number> => {
      const script = 'dd if=/dev/urandom of=/root/fill bs=1M count=64 conv=fsync 2>/dev/null';
      return (await inside(NAME, script)).metadata.metadata.return;
    };

    await size('40MiB');
    expect(await fill()).not.toBe(0);
    await size('300MiB');
    expect(await fill()).toBe(0);
    await inside(NAME, 'rm /root/fill');
  });

  test('deletes what somebody still looks into, gives its name to others, and is rid of it with the next start', async () => {
    const name = `${NAME}w`;
    await copy(`${NAME}/later`, name);
    await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'start' });
    const watcher = spawn('sleep', ['600'], { cwd: disk(name), stdio: 'ignore' });
    try {
      await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
      await remove(name);
      expect((await daemon.call('GET', `/1.0/instances/${name}`)).status).toBe(404);
      await copy(`${NAME}/later`, name);
      expect(await get(name)).toBe('one');
      await remove(name);
    } finally {
      watcher.kill();
    }

    await daemon.kill('SIGTERM');
    await daemon.boot();

    expect(await datasets('deleted/containers')).toEqual([]);
    expect(
      (await datasets('containers')).filter((dataset) => dataset.startsWith(`${POOL}/containers/${name}`)),
    ).toEqual([]);
    expect(await datasets('work')).toEqual([]);
  });
});
