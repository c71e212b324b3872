// Devices that come to, change in and leave running containers, by the stock client.
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

describeWith(
  { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'nsenter'] },
  'devices of running containers',
  () => {
    let bench: DeviceBench;
    let shared: string;

    beforeAll(async () => {
      bench = await deviceBench();
      shared = join(bench.work, 'shared');
      await mkdir(shared);
      await writeFile(join(shared, 'hello'), 'hi there\n');
      await bench.launch('dev-c1');
    });
    afterAll(() => bench[Symbol.asyncDispose]());

    it('a directory is mounted, and taken away again', async () => {
      await bench.lxc('config', 'device', 'add', 'dev-c1', 'data', 'disk', `source=${shared}`, 'path=/mnt/a/b');
      expect(await bench.inside('dev-c1', 'cat', '/mnt/a/b/hello')).toBe('hi there\n');

      await bench.lxc('config', 'device', 'set', 'dev-c1', 'data', 'path', '/mnt/c');
      expect(await bench.inside('dev-c1', 'cat', '/mnt/c/hello')).toBe('hi there\n');
      await expect(bench.inside('dev-c1', 'cat', '/mnt/a/b/hello')).rejects.toThrow('No such file');

      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'data');
      expect(await bench.mountinfo('dev-c1')).not.toContain('/mnt/');
      expect(await readdir(join(bench.daemon.root, 'devices', 'dev-c1'))).toEqual([]);
    });

    it('a read-only directory cannot be made writable by root of the container', async () => {
      await run('chmod', ['0777', shared]);
      await bench.lxc(
        'config',
        'device',
        'add',
        'dev-c1',
        'ro',
        'disk',
        `source=${shared}`,
        'path=/ro',
        'readonly=true',
      );

      await expect(bench.inside('dev-c1', 'touch', '/ro/x')).rejects.toThrow('Read-only file system');
      await expect(bench.inside('dev-c1', 'mount', '-o', 'remount,bind,rw', '/ro')).rejects.toThrow(/./);
      await bench.lxc('restart', '-f', 'dev-c1');
      await bench.daemon.ready('dev-c1', 2);
      await expect(bench.inside('dev-c1', 'mount', '-o', 'remount,bind,rw', '/ro')).rejects.toThrow(/./);
      await expect(bench.inside('dev-c1', 'touch', '/ro/x')).rejects.toThrow('Read-only file system');

      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'ro');
    });

    it('a single file is mounted, with the ids of the container when it is shifted', async () => {
      const file = join(bench.work, 'one');
      await writeFile(file, 'one\n', { mode: 0o600 });

      await bench.lxc(
        'config',
        'device',
        'add',
        'dev-c1',
        'f',
        'disk',
        `source=${file}`,
        'path=/etc/one',
        'shift=true',
      );

      expect(await bench.inside('dev-c1', 'cat', '/etc/one')).toBe('one\n');
      expect((await bench.inside('dev-c1', 'stat', '-c', '%u', '/etc/one')).trim()).toBe('0');
      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'f');
    });

    it('a link in the container does not lead out of it', async () => {
      const outside = join(bench.work, 'outside');
      await mkdir(outside);
      const pid = await bench.pid('dev-c1');
      await symlink(outside, `/proc/${pid}/root/tmp/trap`);
      await symlink('/etc', `/proc/${pid}/root/tmp/within`);
      const add = (path: string) =>
        bench.lxc('config', 'device', 'add', 'dev-c1', 'trap', 'disk', `source=${shared}`, path);

      await expect(add('path=/tmp/trap/x')).rejects.toThrow('Failed to start device "trap"');
      expect(await readdir(outside)).toEqual([]);
      await add('path=/tmp/within/x');
      expect(await bench.inside('dev-c1', 'cat', '/etc/x/hello')).toBe('hi there\n');
      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'trap');
    });

    it('a directory without the right to search, of root of the container, gets mount points all the same', async () => {
      await bench.inside('dev-c1', 'mkdir', '-m', '0600', '/strict', '/strict/a');

      await bench.lxc('config', 'device', 'add', 'dev-c1', 'in', 'disk', `source=${shared}`, 'path=/strict/a/b/c');

      expect(await bench.inside('dev-c1', 'cat', '/strict/a/b/c/hello')).toBe('hi there\n');
      expect(await bench.inside('dev-c1', 'stat', '-c', '%u %a', '/strict/a/b')).toBe('0 755\n');
      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'in');
    });

    it('a directory of the host that root of the container may not enter stays closed', async () => {
      const closed = join(bench.work, 'closed');
      await mkdir(closed, { mode: 0o700 });
      await bench.lxc('config', 'device', 'add', 'dev-c1', 'closed', 'disk', `source=${closed}`, 'path=/closed');

      const added = bench.lxc('config', 'device', 'add', 'dev-c1', 'x', 'disk', `source=${shared}`, 'path=/closed/x');

      await expect(added).rejects.toThrow('EACCES');
      expect(await readdir(closed)).toEqual([]);
      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'closed');
    });

    it('a disk of a restricted project stays in the directories that the project may use, links or not', async () => {
      const allowed = join(bench.work, 'allowed');
      await mkdir(join(allowed, 'in'), { recursive: true });
      await writeFile(join(allowed, 'in', 'file'), 'inside\n');
      await symlink('/etc', join(allowed, 'out'));
      await symlink('in', join(allowed, 'link'));
      const limits = ['restricted=true', 'restricted.devices.disk=allow', `restricted.devices.disk.paths=${allowed}`];
      const keys = ['features.images=false', ...limits].flatMap((key) => ['-c', key]);
      await bench.lxc('project', 'create', 'dev-r', ...keys);
      const disk = (name: string, source: string, ...more: readonly string[]) =>
        bench.lxc('config', 'device', 'add', 'dev-r1', name, 'disk', `source=${source}`, ...more, '--project', 'dev-r');
      await bench.lxc('init', 'bb', 'dev-r1', '-s', 'default', '--project', 'dev-r');

      await disk('out', join(allowed, 'out'), 'path=/out');
      const started = bench.lxc('start', 'dev-r1', '--project', 'dev-r');
      await expect(started).rejects.toThrow('resolves outside of restricted parent source path');
      await bench.lxc('config', 'device', 'remove', 'dev-r1', 'out', '--project', 'dev-r');
      await disk('in', join(allowed, 'link'), 'path=/in');
      await bench.lxc('start', 'dev-r1', '--project', 'dev-r');

      expect(await bench.lxc('exec', 'dev-r1', '--project', 'dev-r', '--', 'cat', '/in/file')).toBe('inside\n');
      await expect(disk('late', join(allowed, 'out'), 'path=/out')).rejects.toThrow('resolves outside');
      await expect(disk('late', join(allowed, 'in'), 'path=/out', 'shift=true')).rejects.toThrow('"shift" property');
      await expect(disk('late', '/etc', 'path=/out')).rejects.toThrow('not allowed');
      await bench.lxc('delete', '-f', 'dev-r1', '--project', 'dev-r');
      await bench.lxc('project', 'delete', 'dev-r');
    });

    it('a device that cannot be added leaves neither record nor mount', async () => {
      const add = bench.lxc('config', 'device', 'add', 'dev-c1', 'no', 'disk', 'source=/absent', 'path=/no');

      await expect(add).rejects.toThrow('Missing source path "/absent" for disk "no"');
      const blocked = bench.lxc(
        'config',
        'device',
        'add',
        'dev-c1',
        'no',
        'disk',
        `source=${shared}`,
        'path=/etc/passwd/x',
      );
      await expect(blocked).rejects.toThrow('Failed to start device "no"');
      expect(await bench.lxc('config', 'device', 'list', 'dev-c1')).not.toContain('no');
      expect(await readdir(join(bench.daemon.root, 'devices', 'dev-c1'))).toEqual([]);
      expect(await readdir(join(bench.daemon.root, 'shmounts', 'dev-c1'))).toEqual([]);
    });

    it('a character device works inside, with its owner and mode', async () => {
      await bench.lxc(
        'config',
        'device',
        'add',
        'dev-c1',
        'z',
        'unix-char',
        'path=/dev/zz',
        'major=1',
        'minor=5',
        'uid=7',
      );

      expect((await bench.inside('dev-c1', 'stat', '-c', '%u %a %t:%T', '/dev/zz')).trim()).toBe('7 660 1:5');
      expect((await bench.inside('dev-c1', 'head', '-c', '3', '/dev/zz')).length).toBe(3);
      await bench.lxc('restart', '-f', 'dev-c1');
      expect((await bench.inside('dev-c1', 'stat', '-c', '%u %a %t:%T', '/dev/zz')).trim()).toBe('7 660 1:5');

      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'z');
      await expect(bench.inside('dev-c1', 'stat', '/dev/zz')).rejects.toThrow('No such file');
    });

    it('a path inside belongs to the device that had it first, and nodes lie on the host where LXD has them', async () => {
      const add = (name: string, ...options: readonly string[]) =>
        bench.lxc('config', 'device', 'add', 'dev-c1', name, 'unix-char', 'path=/tmp/a-node', 'major=1', ...options);
      const nodes = () => readdir(join(bench.daemon.root, 'devices', 'dev-c1'));
      const inside = async () => (await bench.inside('dev-c1', 'stat', '-c', '%a %t:%T', '/tmp/a-node')).trim();

      await add('n-1', 'minor=5');
      await add('n-2', 'minor=3', 'mode=600');
      expect((await nodes()).toSorted()).toEqual(['unix.n--1.tmp-a--node', 'unix.n--2.tmp-a--node']);
      expect(await inside()).toBe('660 1:5');
      await bench.lxc('restart', '-f', 'dev-c1');
      expect(await inside()).toBe('660 1:5');
      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'n-2');
      expect(await inside()).toBe('660 1:5');
      expect(await nodes()).toEqual(['unix.n--1.tmp-a--node']);

      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'n-1');
      await expect(bench.inside('dev-c1', 'stat', '/tmp/a-node')).rejects.toThrow('No such file');
    });

    it('a privileged container may use a node as long as it has it', async () => {
      await bench.launch('dev-p1', '-c', 'security.privileged=true');
      await bench.lxc(
        'config',
        'device',
        'add',
        'dev-p1',
        'm',
        'unix-char',
        'source=/dev/loop-control',
        'path=/dev/lc',
      );

      const list = async () =>
        readFile('/sys/fs/cgroup/devices/lxc.payload.dev-p1/devices.list', 'utf8').catch(() => '');
      if ((await list()) !== '') expect(await list()).toContain('c 10:237 rwm');
      expect((await bench.inside('dev-p1', 'stat', '-c', '%t:%T', '/dev/lc')).trim()).toBe('a:ed');
      await bench.lxc('config', 'device', 'remove', 'dev-p1', 'm');
      expect(await list()).not.toContain('c 10:237 rwm');
      await bench.lxc('delete', '-f', 'dev-p1');
    });

    it('a profile gives a disk to every container that uses it, and takes it back', async () => {
      await bench.lxc('profile', 'create', 'p');
      await bench.lxc('profile', 'add', 'dev-c1', 'p');
      await bench.lxc('profile', 'device', 'add', 'p', 'data', 'disk', `source=${shared}`, 'path=/by-profile');

      expect(await bench.inside('dev-c1', 'cat', '/by-profile/hello')).toBe('hi there\n');
      await bench.lxc('config', 'device', 'override', 'dev-c1', 'data', 'path=/elsewhere');
      expect(await bench.inside('dev-c1', 'cat', '/elsewhere/hello')).toBe('hi there\n');
      await bench.lxc('config', 'device', 'remove', 'dev-c1', 'data');
      await bench.lxc('profile', 'device', 'remove', 'p', 'data');

      expect(await bench.mountinfo('dev-c1')).not.toMatch(/by-profile|elsewhere/u);
      await bench.lxc('profile', 'remove', 'dev-c1', 'p');
    });

    it('is settled after the daemon was killed in the middle of a change', async () => {
      const home = join(bench.daemon.root, 'instances', 'dev-c1');
      await bench.lxc('config', 'device', 'add', 'dev-c1', 'half', 'disk', `source=${shared}`, 'path=/half');
      const { metadata } = await bench.daemon.call('GET', '/1.0/instances/dev-c1');
      await bench.daemon.kill();
      // As if it had been killed with the device plugged in and the record not written.
      await writeFile(join(home, 'live-change'), JSON.stringify(metadata.expanded_devices));
      const database = join(bench.daemon.root, 'database', 'lighter.db');
      const { DatabaseSync } = await import('node:sqlite');
      const sqlite = new DatabaseSync(database);
      sqlite.prepare("UPDATE instances SET devices = '{}' WHERE name = 'dev-c1'").run();
      sqlite.close();

      await bench.daemon.boot();

      await poll(
        async () => ((await bench.mountinfo('dev-c1')).includes('/half') ? undefined : true),
        50,
        AbortSignal.timeout(10_000),
      );
      await expect(readFile(join(home, 'live-change'))).rejects.toThrow('ENOENT');
    });

    it('nothing is left on the host of a container that is gone', async () => {
      await bench.lxc('config', 'device', 'add', 'dev-c1', 'data', 'disk', `source=${shared}`, 'path=/data');
      await bench.lxc('stop', '-f', 'dev-c1');

      const mounts = (await bench.daemon.mounts()).filter((path) => /\/(devices|shmounts)\/./u.test(path));
      expect(mounts).toEqual([]);
      expect(await readdir(join(bench.daemon.root, 'devices'))).toEqual([]);
      expect(await readdir(join(bench.daemon.root, 'shmounts'))).toEqual([]);
      await rm(join(shared, 'hello'));
      await bench.lxc('start', 'dev-c1');
      await bench.lxc('delete', '-f', 'dev-c1');
    });
  },
);
