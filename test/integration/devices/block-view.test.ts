// What containers see of the host's block devices in /sys and /proc, by Debian's lsblk and by the files themselves.
import { existsSync } from 'node:fs';
import { readdir, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

const LISTS = ['/sys/block', '/sys/class/block', '/sys/dev/block'];

describeWith(
  { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'nsenter', 'losetup', 'lsblk', 'ldd'] },
  'block devices in /sys',
  () => {
    let bench: DeviceBench;
    let loop: string;
    const launched: string[] = [];

    beforeAll(async () => {
      bench = await deviceBench();
      const file = join(bench.work, 'disk.img');
      await writeFile(file, '');
      await truncate(file, 8 * 2 ** 20);
      loop = (await run('losetup', ['-f', '--show', file])).stdout.trim();
    });
    afterEach(async () => {
      for (const name of launched.splice(0)) await bench.lxc('delete', '-f', name);
    });
    afterAll(async () => {
      await run('losetup', ['-d', loop]);
      await bench[Symbol.asyncDispose]();
    });

    async function launch(name: string, ...options: readonly string[]): Promise<void> {
      launched.push(name);
      await bench.launch(name, ...options);
    }

    async function pushLsblk(name: string): Promise<void> {
      const { stdout } = await run('ldd', ['/usr/bin/lsblk']);
      const libraries = [...stdout.matchAll(/(\/\S+) \(0x/gu)].map((match) => match[1] ?? '');
      await bench.lxc('file', 'push', '-p', '--mode=0755', '/usr/bin/lsblk', `${name}/bin/lsblk`);
      for (const library of libraries)
        await bench.lxc('file', 'push', '-p', '--mode=0755', library, `${name}${library}`);
    }

    const give = (name: string, path: string) =>
      bench.lxc('config', 'device', 'add', name, 'disk', 'unix-block', `source=${loop}`, `path=${path}`);
    const take = (name: string) => bench.lxc('config', 'device', 'remove', name, 'disk');
    const listed = async (name: string, directory: string) =>
      (await bench.inside(name, 'ls', directory)).split('\n').filter((line) => line !== '');
    /** Where lxcfs does not cover /proc, all of the host's are in it. */
    const coversProc = existsSync('/var/lib/lxcfs/proc/meminfo');
    const partitions = async (name: string) =>
      (await bench.inside(name, 'cat', '/proc/partitions'))
        .split('\n')
        .slice(1)
        .filter((line) => line !== '')
        .map((line) => line.trim().replace(/\s+/g, ' '));
    const numbers = async () => {
      const { stdout } = await run('lsblk', ['-ndo', 'MAJ:MIN', loop]);
      return stdout.trim();
    };

    it.each(['false', 'true'])(
      'are those that the container was given, by their names inside; privileged: %s',
      async (privileged) => {
        await launch('blk', '-c', `security.privileged=${privileged}`);
        await pushLsblk('blk');
        const lsblk = async () => (await bench.inside('blk', 'lsblk', '-rnbo', 'NAME,MAJ:MIN,SIZE,TYPE')).trim();
        for (const list of LISTS) expect(await listed('blk', list)).toEqual([]);

        await give('blk', '/dev/vdb');
        expect(await lsblk()).toBe(`vdb ${await numbers()} ${8 * 2 ** 20} disk`);
        expect((await bench.inside('blk', 'cat', '/sys/block/vdb/size')).trim()).toBe('16384');
        expect((await bench.inside('blk', 'cat', '/sys/class/block/vdb/dev')).trim()).toBe(await numbers());
        expect((await bench.inside('blk', 'lsblk', '-rno', 'NAME', '/dev/vdb')).trim()).toBe('vdb');
        if (coversProc) expect(await partitions('blk')).toEqual([`${(await numbers()).replace(':', ' ')} 8192 vdb`]);
        await bench.lxc('restart', '-f', 'blk');
        expect(await lsblk()).toBe(`vdb ${await numbers()} ${8 * 2 ** 20} disk`);

        await take('blk');
        expect(await lsblk()).toBe('');
        for (const list of LISTS) expect(await listed('blk', list)).toEqual([]);
        if (coversProc) expect(await partitions('blk')).toEqual([]);
      },
    );

    it('have names of the kernel outside of /dev, and with its separator in folders of it', async () => {
      await launch('blk');

      await give('blk', '/srv/volume');
      expect(await listed('blk', '/sys/block')).toEqual([basename(loop)]);
      await take('blk');
      await give('blk', '/dev/disk/first');

      expect(await listed('blk', '/sys/block')).toEqual(['disk!first']);
    });

    it('cannot be changed from inside, and are made right by a daemon that was killed meanwhile', async () => {
      await launch('blk', '-c', 'security.privileged=true');
      await give('blk', '/dev/vdb');
      await expect(bench.inside('blk', 'ln', '-s', 'x', '/sys/block/y')).rejects.toThrow('Read-only');
      await bench.daemon.kill();
      const view = join(bench.daemon.root, 'blocks', 'blk', 'block');
      await run('ln', ['-s', '../devices/gone', join(view, 'sdz')]);

      await bench.daemon.boot();

      await expect.poll(() => listed('blk', '/sys/block'), { timeout: 10_000 }).toEqual(['vdb']);
      expect(await readdir(view)).toEqual(['vdb']);
    });

    it('are the host’s with lighter.sysfs.block=false', async () => {
      await launch('blk', '-c', 'lighter.sysfs.block=false');

      expect(await listed('blk', '/sys/block')).toContain(basename(loop));
      await give('blk', '/dev/vdb');
      await bench.lxc('config', 'set', 'blk', 'lighter.sysfs.block=true');
      await bench.lxc('restart', '-f', 'blk');
      expect(await listed('blk', '/sys/block')).toEqual(['vdb']);
      await expect(bench.lxc('config', 'set', 'blk', 'lighter.sysfs.block=perhaps')).rejects.toThrow('boolean');
    });

    it('are no hindrance to a container in the container that nesting is allowed to', async () => {
      await launch('blk', '-c', 'security.nesting=true');
      const nested = [
        'busybox',
        'unshare',
        '-Urmn',
        'sh',
        '-c',
        'mkdir -p /tmp/s && mount -t sysfs sysfs /tmp/s && ls /tmp/s/block',
      ];

      expect(await bench.inside('blk', ...nested)).toContain(basename(loop));
    });
  },
);
