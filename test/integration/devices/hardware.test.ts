// Devices that come and go while a container runs.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { watchHardware } from '#src/host/uevents.ts';
import { poll } from '#src/lib/wait.ts';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

describeWith(
  { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'nsenter', 'mknod'] },
  'devices that come and go',
  () => {
    let bench: DeviceBench;
    let work: string;

    beforeAll(async () => {
      bench = await deviceBench();
      work = await mkdtemp(join(tmpdir(), 'hwd-'));
      await bench.launch('hwd-c1');
    });
    afterAll(async () => {
      await bench[Symbol.asyncDispose]();
      await rm(work, { recursive: true, force: true });
    });

    const node = (path: string) =>
      bench.inside('hwd-c1', 'stat', '-c', '%t:%T', path).then(
        (text) => text.trim(),
        () => 'none',
      );
    const becomes = (path: string, wanted: string) =>
      poll(async () => ((await node(path)) === wanted ? true : undefined), 50, AbortSignal.timeout(10_000));
    const add = (name: string, ...options: string[]) =>
      bench.lxc('config', 'device', 'add', 'hwd-c1', name, ...options);

    it('a node that is not required comes, changes and goes, in a directory that comes later', async () => {
      const source = join(work, 'later', 'node');
      await add('n', 'unix-char', `source=${source}`, 'path=/dev/opt', 'required=false');
      expect(await node('/dev/opt')).toBe('none');

      await mkdir(join(work, 'later'));
      await run('mknod', [source, 'c', '1', '5']);
      await becomes('/dev/opt', '1:5');
      expect((await bench.inside('hwd-c1', 'head', '-c', '3', '/dev/opt')).length).toBe(3);
      await rm(source);
      await becomes('/dev/opt', 'none');
      await run('mknod', [source, 'c', '1', '3']);
      await becomes('/dev/opt', '1:3');
    });

    it('also after the daemon and the instance were restarted', async () => {
      const source = join(work, 'later', 'node');
      await bench.daemon.kill();
      await bench.daemon.boot();
      await rm(source);
      await becomes('/dev/opt', 'none');

      await bench.lxc('restart', '-f', 'hwd-c1');
      await bench.daemon.ready('hwd-c1', 2);
      expect(await node('/dev/opt')).toBe('none');
      await run('mknod', [source, 'c', '1', '5']);
      await becomes('/dev/opt', '1:5');

      await bench.lxc('config', 'device', 'remove', 'hwd-c1', 'n');
      expect(await node('/dev/opt')).toBe('none');
      await rm(source);
      await run('mknod', [source, 'c', '1', '3']);
      expect(await node('/dev/opt')).toBe('none');
    });

    it('a directory that is not required is mounted when it comes', async () => {
      const source = join(work, 'shared');
      await add('d', 'disk', `source=${source}`, 'path=/mnt/later', 'required=false');

      await mkdir(source);
      await writeFile(join(source, 'hello'), 'hi\n');
      const read = () =>
        bench.inside('hwd-c1', 'cat', '/mnt/later/hello').then(
          (text) => text,
          () => undefined,
        );
      expect(await poll(read, 50, AbortSignal.timeout(10_000))).toBe('hi\n');
    });

    it('the bus is followed, and what is required and absent is an error', async () => {
      await add('u', 'usb', 'vendorid=ffff');
      await expect(add('v', 'usb', 'vendorid=ffff', 'required=true')).rejects.toThrow('Required USB device not found');
      await expect(add('h', 'unix-hotplug', 'vendorid=ffff', 'required=true')).rejects.toThrow(
        'Required Unix Hotplug device not found',
      );
      await expect(add('g', 'gpu', 'vendorid=ffff')).rejects.toThrow('Failed to detect requested GPU device');
      await bench.lxc('config', 'device', 'remove', 'hwd-c1', 'u');
    });

    it('the kernel tells of hardware', async () => {
      let seen = 0;
      const watch = watchHardware(() => void seen++);

      await writeFile('/sys/devices/virtual/mem/null/uevent', 'change');

      await poll(() => (seen > 0 ? true : undefined), 10, AbortSignal.timeout(5000));
      watch.close();
    });
  },
);
