// Ids of containers on the host, measured in running ones on every kind of pool: as LXD's own suite expects them, and never shared.
import { chown, readFile, stat } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const ZPOOL = `lighter-i${process.pid}`;
const ISOLATED = { 'security.idmap.isolated': 'true' };
const COMMANDS = ['lxc-start', 'tar', 'zfs', 'zpool', 'mkfs.btrfs'];
const SIZE = 65_536;

const POOLS = {
  dir: {},
  overlay: {},
  btrfs: { size: '1GiB' },
  zfs: { size: '1GiB', 'zfs.pool_name': ZPOOL },
} as const;

describeWith({ root: true, commands: COMMANDS }, 'ids of containers', () => {
  let daemon: TestDaemon;
  let base = 0;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    for (const [driver, config] of Object.entries(POOLS)) {
      expect((await daemon.call('POST', '/1.0/storage-pools', { name: driver, driver, config })).error).toBe('');
    }
    await daemon.launch('probe');
    ({ at: base } = await mapOf('probe'));
    await remove('probe');
  }, 300_000);
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await run('zpool', ['destroy', '-f', ZPOOL]);
  }, 60_000);

  const on = (pool: string) => ({ devices: { root: { type: 'disk', path: '/', pool } } });
  const at = (name: string) => `/1.0/instances/${name}`;
  const inside = (name: string, script: string) => {
    return daemon.operate('POST', `${at(name)}/exec`, { command: ['sh', '-c', script] });
  };
  const codeOf = async (name: string, script: string): Promise<number> => {
    return (await inside(name, script)).metadata.metadata.return;
  };
  const hostPath = async (name: string, path: string) => `/proc/${(await daemon.state(name)).pid}/${path}`;
  /** Where its ids begin on the host, and how many there are; the same for users and groups in how they lie. */
  const mapOf = async (name: string): Promise<{ at: number; size: number }> => {
    const text = await readFile(await hostPath(name, 'uid_map'), 'utf8');
    const [first, hostId, size] = text.trim().split(/\s+/u).map(Number);
    expect([first, text.trim().split('\n').length]).toEqual([0, 1]);
    return { at: hostId ?? 0, size: size ?? 0 };
  };
  const groupsAt = async (name: string): Promise<number> => {
    return Number((await readFile(await hostPath(name, 'gid_map'), 'utf8')).trim().split(/\s+/u)[1]);
  };
  /** By the root of the container, as its users do it; from the host on zfs-fuse, which obeys nobody but the host's root. */
  const own = async (name: string, path: string, to: { pool: string; uid: number; gid: number }): Promise<void> => {
    if (to.pool !== 'zfs') return expect(await codeOf(name, `chown ${to.uid}:${to.gid} ${path}`)).toBe(0);
    const { at: first } = await mapOf(name);
    await chown(await hostPath(name, `root${path}`), first + to.uid, (await groupsAt(name)) + to.gid);
  };
  const ownersOf = async (name: string, path: string): Promise<string> => {
    const { uid, gid } = await stat(await hostPath(name, `root${path}`));
    return `${uid}:${gid}`;
  };
  const power = (name: string, action: string) => {
    return daemon.operate('PUT', `${at(name)}/state`, { action, force: action !== 'start' });
  };
  const set = async (name: string, config: object): Promise<void> => {
    expect((await daemon.call('PATCH', at(name), { config })).error).toBe('');
  };
  const restart = async (name: string, config: object): Promise<void> => {
    await set(name, config);
    await power(name, 'restart');
  };
  const remove = async (name: string): Promise<void> => {
    await power(name, 'stop');
    await daemon.operate('DELETE', at(name));
  };
  const header = async (name: string, path: string): Promise<string> => {
    const { headers } = await daemon.call('GET', `${at(name)}/files?path=${path}`);
    return `${String(headers['x-lxd-uid'])}:${String(headers['x-lxd-gid'])}`;
  };

  it.each(Object.keys(POOLS))(
    'follow the configuration from start to start on %s, and files with them',
    async (pool) => {
      const name = `m-${pool}`;
      await daemon.launch(name, on(pool));
      const shared = await mapOf(name);
      await inside(name, 'echo a > /a; echo b > /b; sync');
      await own(name, '/a', { pool, uid: 1000, gid: 1000 });
      await own(name, '/b', { pool, uid: 2003, gid: 0 });

      const look = async (): Promise<number> => {
        const { at: first } = await mapOf(name);
        const group = await groupsAt(name);
        const seen = [await ownersOf(name, '/a'), await ownersOf(name, '/b')];
        expect(seen).toEqual([`${first + 1000}:${group + 1000}`, `${first + 2003}:${group}`]);
        expect([await header(name, '/a'), await header(name, '/b')]).toEqual(['1000:1000', '2003:0']);
        return first;
      };
      await look();
      await restart(name, ISOLATED);
      expect(await mapOf(name)).toEqual({ at: base + SIZE, size: SIZE });
      await look();
      await restart(name, { 'security.idmap.size': '100000' });
      expect(await mapOf(name)).toEqual({ at: base + SIZE, size: 100_000 });
      await look();
      await restart(name, { 'security.privileged': 'true' });
      expect(await look()).toBe(0);
      await restart(name, { 'security.privileged': '', 'security.idmap.isolated': '', 'security.idmap.size': '' });
      expect(await mapOf(name)).toEqual(shared);
      await look();
      await power(name, 'stop');
      expect([await header(name, '/a'), await header(name, '/b')]).toEqual(['1000:1000', '2003:0']);
      await daemon.operate('DELETE', at(name));
    },
    300_000,
  );

  it.each(Object.keys(POOLS))(
    'of a copy on %s begin where those of the copied one end',
    async (pool) => {
      const [name, copy] = [`s-${pool}`, `c-${pool}`];
      await daemon.launch(name, { ...on(pool), config: ISOLATED });
      await inside(name, 'echo a > /a; sync');
      await own(name, '/a', { pool, uid: 65_535, gid: 0 });
      expect(await codeOf(name, 'chown 65536 /a')).not.toBe(0);
      await power(name, 'stop');
      await daemon.operate('POST', '/1.0/instances', { name: copy, source: { type: 'copy', source: name } });
      await power(name, 'start');
      await power(copy, 'start');
      await inside(copy, 'echo b > /b; sync');

      expect([await mapOf(name), await mapOf(copy)]).toEqual([
        { at: base + SIZE, size: SIZE },
        { at: base + 2 * SIZE, size: SIZE },
      ]);
      const [last] = (await ownersOf(name, '/a')).split(':');
      const [first] = (await ownersOf(copy, '/b')).split(':');
      expect(Number(first)).toBe(Number(last) + 1);
      await remove(name);
      await remove(copy);
    },
    300_000,
  );

  it('are apart for all that are created and started at once, also by a profile', async () => {
    await daemon.call('POST', '/1.0/profiles', {
      name: 'apart',
      config: { ...ISOLATED, 'security.idmap.size': '100000' },
    });
    const names = ['p1', 'p2', 'p3', 'p4'];
    await Promise.all(names.map((name) => daemon.launch(name, { profiles: ['default', 'apart'] })));

    const maps = await Promise.all(names.map((name) => mapOf(name)));

    const starts = maps.map(({ at: first }) => first).toSorted((left, right) => left - right);
    expect(maps.every(({ size }) => size === 100_000)).toBe(true);
    expect(starts).toEqual(names.map((_name, index) => base + SIZE + index * 100_000));
    for (const name of names) await remove(name);
  }, 300_000);

  it.each(Object.keys(POOLS))(
    'are those of raw.idmap on %s, in files, after changes, in copies, and as far as shifts are allowed',
    async (pool) => {
      const [name, copy] = [`r-${pool}`, `rc-${pool}`];
      const config = { ...ISOLATED, 'raw.idmap': `both ${base} 1000\nuid ${base + 10}-${base + 19} 3000-3009` };
      await daemon.launch(name, { ...on(pool), config });
      const userMap = async (which: string): Promise<string> => {
        return (await readFile(await hostPath(which, 'uid_map'), 'utf8')).trim().split(/\s+/u).join(' ');
      };
      const mapped = (first: number): string => {
        const own = [`0 ${first} 1000`, `1001 ${first + 1001} 1999`, `3010 ${first + 3010} ${SIZE - 3010}`] as const;
        return [own[0], `1000 ${base} 1`, own[1], `3000 ${base + 10} 10`, own[2]].join(' ');
      };
      expect(await userMap(name)).toEqual(mapped(base + SIZE));
      if (pool === 'zfs') {
        await inside(name, 'echo x > /pushed; sync');
        await chown(await hostPath(name, 'root/pushed'), base + 19, base);
      } else {
        const headers = { 'x-lxd-uid': '3009', 'x-lxd-gid': '1000', 'content-type': 'application/octet-stream' };
        await daemon.call('POST', `${at(name)}/files?path=/pushed`, Buffer.from('x'), headers);
      }
      expect(await ownersOf(name, '/pushed')).toBe(`${base + 19}:${base}`);
      expect(await header(name, '/pushed')).toBe('3009:1000');

      await power(name, 'stop');
      await daemon.operate('POST', '/1.0/instances', { name: copy, source: { type: 'copy', source: name } });
      await power(copy, 'start');
      expect(await userMap(copy)).toEqual(mapped(base + 2 * SIZE));
      expect(await ownersOf(copy, '/pushed')).toBe(`${base + 19}:${base}`);
      await remove(copy);

      await set(name, { 'raw.idmap': '', 'security.protection.shift': 'true' });
      const isShifted = pool === 'overlay' || pool === 'zfs';
      const started = power(name, 'start');
      if (isShifted) {
        await expect(started).rejects.toThrow('Container is protected against filesystem shifting');
        await set(name, { 'security.protection.shift': '' });
        await power(name, 'start');
      } else await started;
      expect(await ownersOf(name, '/pushed')).toBe(`${base + SIZE + 3009}:${base + SIZE + 1000}`);
      await remove(name);
    },
    300_000,
  );

  it('are refused where raw.idmap gives one twice', async () => {
    const twice = { 'raw.idmap': `uid ${base + 1} 1000` };
    await expect(daemon.launch('twice', { config: twice })).rejects.toThrow('Host id is in the range of subids');
    await daemon.launch('raw');
    const { error } = await daemon.call('PATCH', at('raw'), { config: twice });

    expect(error).toBe('Failed to get ID map: Host id is in the range of subids');
    await remove('raw');
  });

  it('are refused where the host has not as many', async () => {
    const config = { ...ISOLATED, 'security.idmap.size': '4000000000' };

    await expect(daemon.launch('many', { config })).rejects.toThrow('Not enough uid/gid available for the container');
  });

  it('are on the disk where mapped mounts are switched off', async () => {
    await using other = await TestDaemon.start('dir', { LXD_IDMAPPED_MOUNTS_DISABLE: '1' });
    await other.addImage();
    await other.launch('shifted');

    const { metadata } = await other.call('GET', '/1.0');
    expect(metadata.environment.kernel_features.idmapped_mounts).toBe('false');
    const { uid } = await stat(`${other.root}/storage-pools/default/containers/shifted/rootfs/etc/passwd`);
    expect(uid).toBe(base);
  });
});
