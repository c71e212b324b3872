// The root of a stopped instance as a disk of a running one, on each storage driver.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const POOL = `lighter-l${process.pid}`;
const OLD = `lo${process.pid}`;
const NEW = `ln${process.pid}`;
const PLAIN = ['lxc-start', 'busybox', 'tar'];
const DRIVERS = [
  ['overlay', {}, PLAIN],
  ['dir', {}, PLAIN],
  ['btrfs', { size: '512MiB' }, [...PLAIN, 'mkfs.btrfs']],
  ['zfs', { size: '512MiB', 'zfs.pool_name': POOL }, [...PLAIN, 'zfs', 'zpool']],
] as const;

for (const [driver, pool, commands] of DRIVERS) {
  describeWith({ root: true, commands }, `roots as disks of others, on ${driver}`, () => {
    let daemon: TestDaemon;

    beforeAll(async () => {
      daemon = await TestDaemon.start();
      await daemon.addImage();
      const made = await daemon.call('POST', '/1.0/storage-pools', { name: 'p', driver, config: pool });
      expect(made.error).toBe('');
      // zfs-fuse cannot map ids
      const config = driver === 'zfs' ? { 'security.privileged': 'true' } : {};
      const devices = { root: { type: 'disk', path: '/', pool: 'p' } };
      await daemon.call('PUT', '/1.0/profiles/default', { config, devices });
      await daemon.launch(OLD);
      await daemon.ready(OLD);
    });
    afterAll(async () => {
      await daemon[Symbol.asyncDispose]();
      if (driver === 'zfs') await run('zpool', ['destroy', '-f', POOL]);
    });

    const inside = async (name: string, script: string): Promise<void> => {
      await daemon.operate('POST', `/1.0/instances/${name}/exec`, { command: ['sh', '-c', script] });
    };
    const get = async (name: string, path: string) => {
      return daemon.call('GET', `/1.0/instances/${name}/files?path=${path}`);
    };
    const state = (name: string, action: string) => {
      return daemon.operate('PUT', `/1.0/instances/${name}/state`, { action, force: true, timeout: 30 });
    };

    it('has the owners of the container, is written to, and goes back to its own', async () => {
      await inside(OLD, 'echo one > /root/f; chown 1000:1000 /root/f; sync');
      await state(OLD, 'stop');
      const old = { type: 'disk', pool: 'p', source: `container/${OLD}`, path: '/mnt/rescue' };
      await daemon.launch(NEW, { devices: { old } });
      await daemon.ready(NEW);

      await inside(NEW, 'cd /mnt/rescue/root; cat f > /root/seen; stat -c %u f >> /root/seen');
      expect((await get(NEW, '/root/seen')).text).toBe('one\n1000\n');
      await inside(NEW, 'echo two > /mnt/rescue/root/g');
      await daemon.kill();
      await daemon.boot();
      await expect(state(OLD, 'start')).rejects.toThrow(`in use by instance "${NEW}"`);
      await expect(daemon.operate('DELETE', `/1.0/instances/${OLD}`)).rejects.toThrow('in use');
      await state(NEW, 'restart');
      await state(NEW, 'stop');
      await daemon.operate('DELETE', `/1.0/instances/${NEW}`);
      await state(OLD, 'start');

      const back = await get(OLD, '/root/g');
      expect([back.text, back.headers['x-lxd-uid']]).toEqual(['two\n', '0']);
    });
  });
}
