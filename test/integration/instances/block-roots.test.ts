// Instances whose root lies on a device or a file of the host, with real liblxc and fuse2fs.
import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const LIMIT_MS = 90_000;
const NAME = `rb${process.pid}`;
const SIZE = 128 << 20;
const COMMANDS = ['lxc-start', 'busybox', 'tar', 'fuse2fs', 'bwrap', 'e2fsck', 'mkfs.ext4', 'losetup'];

describeWith({ root: true, commands: COMMANDS }, 'a root on a device of the host', () => {
  let daemon: TestDaemon;
  let file: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    file = join(daemon.root, 'volume.img');
  }, LIMIT_MS);
  afterAll(() => daemon[Symbol.asyncDispose](), LIMIT_MS);

  const rootDevice = (block: string, more: Record<string, string> = {}) => ({
    root: { type: 'disk', path: '/', pool: 'default', 'lighter.block': block, ...more },
  });
  const fill = { 'lighter.block.fill': 'true' };
  const state = (name: string, action: string) =>
    daemon.operate('PUT', `/1.0/instances/${name}/state`, { action, force: true, timeout: 30 });
  const get = async (name: string, path: string) =>
    (await daemon.call('GET', `/1.0/instances/${name}/files?path=${path}`)).text;
  /** What a command in the container says. */
  const inside = async (name: string, script: string, ids: { user?: number; group?: number } = {}): Promise<string> => {
    const command = ['sh', '-c', script];
    const body = { command, 'record-output': true, ...ids };
    const { metadata } = await daemon.operate('POST', `/1.0/instances/${name}/exec`, body);
    const output = async (fd: '1' | '2') => (await daemon.call('GET', metadata.metadata.output[fd])).text;
    return (await output('1')) + (await output('2'));
  };
  const left = async () => {
    const { stdout } = await run('ps', ['-eo', 'args=']);
    const servers = stdout.split('\n').filter((line) => line.includes(`${daemon.root}/served`));
    return { mounts: (await daemon.mounts()).filter((path) => path.includes('/served/')), servers };
  };
  const nothing = { mounts: [], servers: [] };
  /** Of this daemon alone: what runs in its jails and is none of them. */
  const server = async (): Promise<number[]> => {
    const { stdout } = await run('ps', ['-eo', 'pid=,ppid=,args=']);
    const all = stdout.split('\n').flatMap((line) => {
      const [, pid, parent, args = ''] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [];
      return pid === undefined ? [] : [{ pid: Number(pid), parent: Number(parent), args }];
    });
    const jails = new Set(all.filter(({ args }) => args.includes(`${daemon.root}/served`)).map(({ pid }) => pid));
    return all.filter(({ pid, parent }) => jails.has(parent) && !jails.has(pid)).map(({ pid }) => pid);
  };
  const fresh = async (name = file) => {
    await writeFile(name, '');
    await truncate(name, SIZE);
  };
  const remove = async (name: string) => {
    if ((await daemon.status(name)) !== 'Stopped') await state(name, 'stop');
    await daemon.operate('DELETE', `/1.0/instances/${name}`);
  };

  afterEach(async () => {
    const { metadata } = await daemon.call('GET', '/1.0/instances?recursion=1');
    for (const { name } of metadata as { name: string }[]) await remove(name);
    expect(await left()).toEqual(nothing);
  }, LIMIT_MS);

  it(
    'is filled from an image, keeps what is written, and stays when the instance is deleted',
    async () => {
      await fresh();
      await daemon.launch(NAME, { devices: rootDevice(file, fill), start: false });
      const { metadata } = await daemon.call('GET', `/1.0/instances/${NAME}`);
      expect(metadata.devices.root).toEqual(rootDevice(file).root);
      expect((await run('blkid', ['-p', '-s', 'LABEL', '-o', 'value', file])).stdout.trim()).toBe('lighter-root');
      expect(await left()).toEqual(nothing);
      const block = `device of the host (${file})`;
      const instance = `/1.0/instances/${NAME}`;
      await expect(daemon.operate('POST', `${instance}/snapshots`, { name: 's' })).rejects.toThrow(block);
      await expect(daemon.operate('POST', `${instance}/backups`, { name: 'b' })).rejects.toThrow(block);
      const published = { source: { type: 'instance', name: NAME } };
      await expect(daemon.operate('POST', '/1.0/images', published)).rejects.toThrow(block);
      const copy = { name: `${NAME}c`, source: { type: 'copy', source: NAME } };
      await expect(daemon.operate('POST', '/1.0/instances', copy)).rejects.toThrow(block);
      const resized = { devices: rootDevice(file, { size: '1GiB' }) };
      expect((await daemon.call('PATCH', instance, resized)).error).toContain('a size of its own');
      const again = { devices: rootDevice(file, fill) };
      expect((await daemon.call('PATCH', instance, again)).error).toContain('at the creation of an instance only');
      await daemon.operate('POST', instance, { name: `${NAME}r` });
      await daemon.operate('POST', `/1.0/instances/${NAME}r`, { name: NAME });

      await state(NAME, 'start');
      await daemon.ready(NAME);
      expect(await inside(NAME, 'stat -c "%u:%g" / /bin/sh')).toBe('0:0\n0:0\n');
      await inside(NAME, 'echo kept > /root/f; chown 1000:1000 /root/f; chmod 600 /root/f');
      // Static, and it writes a file with the rights that it has.
      const program = await readFile('/sbin/ldconfig');
      await daemon.call('POST', `/1.0/instances/${NAME}/files?path=/bin/as-root`, program, { 'x-lxd-mode': '4755' });
      await inside(NAME, '/bin/as-root -C /root/cache -f /dev/null', { user: 1000, group: 1000 });
      expect(await inside(NAME, 'stat -c %u /root/cache')).toBe('0\n');
      const { disk } = await daemon.state(NAME);
      expect(disk.root.usage).toBeGreaterThan(0);
      await state(NAME, 'stop');
      expect(await left()).toEqual(nothing);
      expect((await run('e2fsck', ['-fn', file])).stdout).toContain('lighter-root');

      await state(NAME, 'start');
      await daemon.ready(NAME);
      expect(await inside(NAME, 'cat /root/f; stat -c "%u:%g %a" /root/f')).toBe('kept\n1000:1000 600\n');
      await remove(NAME);
      expect((await stat(file)).size).toBe(SIZE);
      expect(await left()).toEqual(nothing);
    },
    LIMIT_MS,
  );

  it(
    'is used as it is by an instance without an image, whose files can be had while it is stopped',
    async () => {
      const source = { type: 'none' };
      await daemon.launch(NAME, { source, devices: rootDevice(file), start: false });

      expect(await get(NAME, '/root/f')).toBe('kept\n');
      // The answer is read before its end is seen.
      const isLet = async () => ((await left()).servers.length === 0 ? true : undefined);
      await poll(isLet, 20, AbortSignal.timeout(15_000));
      const headers = { 'x-lxd-uid': '7', 'x-lxd-gid': '8', 'x-lxd-mode': '0640' };
      await daemon.call('POST', `/1.0/instances/${NAME}/files?path=/root/pushed`, Buffer.from('in'), headers);
      await state(NAME, 'start');
      await daemon.ready(NAME);
      expect(await inside(NAME, 'cat /root/pushed; stat -c " %u:%g %a" /root/pushed')).toBe('in 7:8 640\n');
      await daemon.call('POST', `/1.0/instances/${NAME}/files?path=/root/live`, Buffer.from('live'));
      expect(await inside(NAME, 'cat /root/live')).toBe('live');
      await remove(NAME);
    },
    LIMIT_MS,
  );

  it(
    'outlives the daemon, and a reboot',
    async () => {
      await daemon.launch(NAME, { source: { type: 'none' }, devices: rootDevice(file) });
      await daemon.ready(NAME);
      await daemon.kill();
      await daemon.boot();

      expect(await daemon.status(NAME)).toBe('Running');
      expect(await inside(NAME, 'cat /root/f')).toBe('kept\n');
      const before = await server();
      const { pid } = await daemon.state(NAME);
      process.kill(pid, 'SIGINT');
      await daemon.seen('instance-restarted');
      expect(await inside(NAME, 'cat /root/f')).toBe('kept\n');
      expect(await server()).toEqual(before);
      await state(NAME, 'stop');
      expect(await left()).toEqual(nothing);
      await remove(NAME);
    },
    LIMIT_MS,
  );

  it(
    'ends the instance when its server ends, and can be started again',
    async () => {
      await daemon.launch(NAME, { source: { type: 'none' }, devices: rootDevice(file) });
      await daemon.ready(NAME);
      await inside(NAME, 'echo before > /root/crash; sync');
      const before = daemon.events.length;
      expect(await server()).toHaveLength(1);
      for (const pid of await server()) process.kill(pid, 'SIGKILL');

      await daemon.seen('instance-shutdown', before);
      const stopped = async () => ((await daemon.status(NAME)) === 'Stopped' ? true : undefined);
      await poll(stopped, 50, AbortSignal.timeout(10_000));
      expect(await daemon.log()).toContain('the server of the root file system ended');
      expect(await left()).toEqual(nothing);
      await state(NAME, 'start');
      expect(await inside(NAME, 'cat /root/crash')).toBe('before\n');
      await remove(NAME);
    },
    LIMIT_MS,
  );

  it(
    'is grown to its device, on a loop device, and refused while somebody else has it',
    async () => {
      await truncate(file, 2 * SIZE);
      const { stdout } = await run('losetup', ['-f', '--show', file]);
      const device = stdout.trim();
      try {
        await daemon.launch(NAME, { source: { type: 'none' }, devices: rootDevice(device) });
        await daemon.ready(NAME);
        const blocks = Number(await inside(NAME, 'stat -f -c %b /'));
        expect(blocks * 4096).toBeGreaterThan(1.6 * SIZE);
        const other = { name: `${NAME}b`, source: { type: 'none' }, devices: rootDevice(device) };
        await daemon.operate('POST', '/1.0/instances', other);
        await expect(state(`${NAME}b`, 'start')).rejects.toThrow(device);
        expect(await inside(NAME, 'cat /root/f')).toBe('kept\n');
        await remove(`${NAME}b`);
        await remove(NAME);
      } finally {
        await run('losetup', ['-d', device]);
      }
    },
    LIMIT_MS,
  );

  it(
    'is found in a partition',
    async () => {
      const disk = join(daemon.root, 'disk.img');
      await fresh(disk);
      await truncate(disk, 3 * SIZE);
      const table =
        'label: gpt\nstart=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649\nstart=16384, type=linux\n';
      const child = run('sfdisk', ['-q', disk]);
      child.child.stdin?.end(table);
      await child;
      await run('dd', [`if=${file}`, `of=${disk}`, 'bs=1M', 'seek=8', 'conv=notrunc']);
      await daemon.launch(NAME, { source: { type: 'none' }, devices: rootDevice(disk) });
      await daemon.ready(NAME);
      expect(await inside(NAME, 'cat /root/f')).toBe('kept\n');
      await remove(NAME);
      expect(await left()).toEqual(nothing);
    },
    LIMIT_MS,
  );

  it(
    'is refused when it is damaged, which the kernel never sees',
    async () => {
      const bad = join(daemon.root, 'bad.img');
      await run('cp', [file, bad]);
      const handle = await open(bad, 'r+');
      await handle.write(Buffer.alloc(64, 0xff), 0, 64, 1024);
      await handle.close();
      const { stdout } = await run('losetup', ['-f', '--show', bad]);
      const device = stdout.trim();
      const name = device.slice('/dev/'.length);
      const kernel = async () => (await run('dmesg', [])).stdout.split('\n').filter((line) => line.includes(name));
      const said = await kernel();
      try {
        const broken = { name: NAME, source: { type: 'none' }, devices: rootDevice(device) };
        await daemon.operate('POST', '/1.0/instances', broken);
        await expect(state(NAME, 'start')).rejects.toThrow(device);
        expect(await kernel()).toEqual(said);
      } finally {
        await run('losetup', ['-d', device]);
      }
      expect(await left()).toEqual(nothing);
      await remove(NAME);
    },
    LIMIT_MS,
  );

  it('is refused where it cannot be', async () => {
    const create = (devices: object, more: object = {}) =>
      daemon.operate('POST', '/1.0/instances', {
        name: `${NAME}x`,
        source: { type: 'image', alias: 'bb' },
        devices,
        ...more,
      });
    await expect(create(rootDevice('relative/path'))).rejects.toThrow('absolute path');
    await expect(create(rootDevice(file, { size: '1GiB' }))).rejects.toThrow('size of its own');
    await expect(create(rootDevice(file, fill), { source: { type: 'none' } })).rejects.toThrow('from an image');
    const privileged = { config: { 'security.privileged': 'true' } };
    await expect(create(rootDevice(file, fill), privileged)).rejects.toThrow('privileged');
    const config = { restricted: 'true', 'features.images': 'false' };
    expect((await daemon.call('POST', '/1.0/projects', { name: 'r', config })).error).toBe('');
    const tenants = { name: 'x', source: { type: 'none' }, devices: rootDevice(file) };
    await expect(daemon.operate('POST', '/1.0/instances?project=r', tenants)).rejects.toThrow('not backed by a pool');
    const profile = { name: 'p', devices: rootDevice(file) };
    expect((await daemon.call('POST', '/1.0/profiles', profile)).error).toContain('own settings alone');
    expect(await readFile(file).then((data) => data.subarray(0x438, 0x43a).toString('hex'))).toBe('53ef');
  });
});
