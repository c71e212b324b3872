// Disks whose ext file system a process without rights serves, beside the root: with real liblxc and fuse2fs.
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const LIMIT_MS = 90_000;
const NAME = `sd${process.pid}`;
const SIZE = 64 << 20;
const COMMANDS = ['lxc-start', 'busybox', 'tar', 'fuse2fs', 'bwrap', 'e2fsck', 'mkfs.ext4', 'losetup'];

describeWith({ root: true, commands: COMMANDS }, 'a disk of the host that is served', () => {
  let daemon: TestDaemon;
  let file: string;
  let device: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    file = join(daemon.root, 'volume.img');
    await writeFile(file, '');
    await truncate(file, SIZE);
    device = (await run('losetup', ['--find', '--show', '--', file])).stdout.trim();
  }, LIMIT_MS);
  afterAll(async () => {
    await run('losetup', ['--detach', device]);
    await daemon[Symbol.asyncDispose]();
  }, LIMIT_MS);

  const disk = (more: Record<string, string> = {}) => ({
    data: { type: 'disk', source: device, path: '/data', 'lighter.served': 'true', ...more },
  });
  const format = { 'lighter.served.format': 'true' };
  const state = (name: string, action: string) =>
    daemon.operate('PUT', `/1.0/instances/${name}/state`, { action, force: true, timeout: 30 });
  const inside = async (name: string, script: string): Promise<string> => {
    const body = { command: ['sh', '-c', script], 'record-output': true };
    const { metadata } = await daemon.operate('POST', `/1.0/instances/${name}/exec`, body);
    const output = async (fd: '1' | '2') => (await daemon.call('GET', metadata.metadata.output[fd])).text;
    return (await output('1')) + (await output('2'));
  };
  const processes = async () => {
    const { stdout } = await run('ps', ['-eo', 'pid=,ppid=,args=']);
    return stdout.split('\n').flatMap((line) => {
      const [, pid, parent, args = ''] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [];
      return pid === undefined ? [] : [{ pid: Number(pid), parent: Number(parent), args }];
    });
  };
  const ofDaemon = ({ args }: { readonly args: string }): boolean => args.includes(`${daemon.root}/served-disks`);
  const left = async () => ({
    mounts: (await daemon.mounts()).filter((path) => path.includes('/served-disks/')),
    servers: (await processes()).filter(ofDaemon),
  });
  /** What runs in the jails of this daemon. */
  const servers = async (): Promise<number[]> => {
    const all = await processes();
    const jails = new Set(all.filter(ofDaemon).map(({ pid }) => pid));
    return all.filter(({ pid, parent }) => jails.has(parent) && !jails.has(pid)).map(({ pid }) => pid);
  };
  const plug = (more: Record<string, string> = {}) =>
    daemon.call('PATCH', `/1.0/instances/${NAME}`, { devices: disk(more) });
  const unplug = async () => {
    const { metadata } = await daemon.call('GET', `/1.0/instances/${NAME}`);
    const { data: _gone, ...devices } = metadata.devices;
    await daemon.operate('PUT', `/1.0/instances/${NAME}`, { ...metadata, devices });
  };
  const remove = async (name: string) => {
    if ((await daemon.status(name)) !== 'Stopped') await state(name, 'stop');
    await daemon.operate('DELETE', `/1.0/instances/${name}`);
  };

  afterEach(async () => {
    const { metadata } = await daemon.call('GET', '/1.0/instances?recursion=1');
    for (const { name } of metadata as { name: string }[]) await remove(name);
    expect(await left()).toEqual({ mounts: [], servers: [] });
  }, LIMIT_MS);

  it(
    'comes and goes while the container runs, and is formatted when it is blank and that was wanted',
    async () => {
      await daemon.launch(NAME);
      await daemon.ready(NAME);

      expect((await plug()).error).toContain('is blank: there is no file system to serve');
      expect((await plug(format)).error ?? '').toBe('');
      expect(await inside(NAME, 'stat -c "%u:%g" /data; echo kept > /data/f; chown 7:8 /data/f; sync')).toBe('0:0\n');

      await inside(NAME, 'cd /data && sleep 300 >/dev/null 2>&1 & echo $! > /run/holder');
      await expect(unplug()).rejects.toThrow('it is in use (by sleep)');
      expect(await inside(NAME, 'cat /data/f; kill $(cat /run/holder)')).toBe('kept\n');
      await unplug();
      expect(await inside(NAME, 'ls /data')).toBe('');
      expect(await left()).toEqual({ mounts: [], servers: [] });
      expect((await run('e2fsck', ['-fn', file])).stdout).toContain('12/');

      expect((await plug()).error ?? '').toBe('');
      expect(await inside(NAME, 'cat /data/f; stat -c "%u:%g" /data/f')).toBe('kept\n7:8\n');
    },
    LIMIT_MS,
  );

  it(
    'is there when init begins, after a reboot, and without the daemon',
    async () => {
      await daemon.launch(NAME, { devices: disk() });
      await daemon.ready(NAME);
      expect(await inside(NAME, 'cat /data/f')).toBe('kept\n');

      await state(NAME, 'restart');
      await daemon.ready(NAME);
      expect(await inside(NAME, 'cat /data/f; echo more >> /data/f')).toBe('kept\n');

      await daemon.kill();
      await daemon.boot();
      expect(await inside(NAME, 'cat /data/f')).toBe('kept\nmore\n');
    },
    LIMIT_MS,
  );

  it(
    'is served anew when its server is killed',
    async () => {
      await daemon.launch(NAME, { devices: disk() });
      await daemon.ready(NAME);
      const [before] = await servers();

      for (const pid of await servers()) process.kill(pid, 'SIGKILL');

      await expect.poll(() => inside(NAME, 'cat /data/f'), { timeout: 20_000 }).toBe('kept\nmore\n');
      expect(await servers()).not.toContain(before);
      await inside(NAME, 'echo on >> /data/f');
    },
    LIMIT_MS,
  );

  it(
    'is refused to a privileged instance, to a second one, and as something else',
    async () => {
      const config = { 'security.privileged': 'true' };
      await expect(daemon.launch(`${NAME}p`, { devices: disk(), config })).rejects.toThrow('privileged');
      await daemon.launch(NAME, { devices: disk() });
      await expect(daemon.launch(`${NAME}b`, { devices: disk() })).rejects.toThrow('in use');
      expect((await plug({ shift: 'true' })).error).toContain('cannot have "shift"');
      expect((await plug({ 'lighter.served': '', ...format })).error).toContain('needs "lighter.served"');
    },
    LIMIT_MS,
  );
});
