// Backups as streams of the file system, by the stock client and ours: between two engines of ours, and ours and a real LXD.
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../instances/daemon-support.ts';
import { Pair, PEERS } from '../migration/pair.ts';
import { timeFactor } from '#test/time-factor.ts';
import { describeWith, hasKernelZfs } from '../support.ts';

const LIMIT_MS = 120_000 * timeFactor();
const zpoolOf = (remote: string): string => `backups-${process.pid}-${remote}`;

for (const { name: peer, commands, start, formats } of PEERS) {
  const needs = { root: true, commands: ['lxc', 'lxc-start', 'btrfs', ...commands] };
  describeWith(needs, `optimized backups, here and on ${peer}`, () => {
    let pair: Pair;
    let work: string;
    const lxc = (...args: string[]): Promise<string> => pair.lxc(...args);

    beforeAll(async () => {
      pair = await Pair.start(start);
      work = join(pair.work, 'files');
      await mkdir(work);
    }, LIMIT_MS);
    afterAll(async () => {
      await using _ended = pair; // whatever a failed test has left in the pools
      await lxc('image', 'delete', 'a:bb');
      for (const format of formats) {
        for (const remote of ['a', 'b']) await lxc('storage', 'delete', `${remote}:${format}`);
      }
    }, LIMIT_MS);

    describe.each(formats)('on %s', (format) => {
      // zfs-fuse lets the root of an unprivileged container change no owners.
      const owners = format === 'zfs' && !hasKernelZfs ? '0 0' : '7 9';
      const pathOf = (remote: string, ...rest: string[]): string => {
        const { root } = remote === 'a' ? pair.ours : pair.theirs;
        return join(root, 'storage-pools', format, ...rest);
      };
      const write = (instance: string, text: string): Promise<string> => {
        return lxc('exec', instance, '--', 'sh', '-c', `echo ${text} > /root/text; chown 7:9 /root/text; sync`);
      };
      const read = (instance: string): Promise<string> => {
        const script = 'cat /root/text; ls -ln /root/text | tr -s " " | cut -d" " -f3,4';
        return lxc('exec', instance, '--', 'sh', '-c', script);
      };
      const members = async (file: string): Promise<string[]> => {
        return (await run('tar', ['-tf', join(work, file)])).stdout.trim().split('\n');
      };

      beforeAll(async () => {
        for (const remote of ['a', 'b']) {
          const name = format === 'zfs' ? [`zfs.pool_name=${zpoolOf(remote)}`] : [];
          await lxc('storage', 'create', `${remote}:${format}`, format, 'size=600MiB', ...name);
        }
      }, LIMIT_MS);

      it(
        'goes there and back with snapshots, and leaves nothing behind',
        async () => {
          await lxc('launch', 'a:bb', 'a:c1', '-s', format, '-c', 'user.note=kept');
          await write('a:c1', 'one');
          await lxc('snapshot', 'a:c1', 'then');
          await write('a:c1', 'two');

          await lxc('export', 'a:c1', join(work, 'one.tar.gz'), '--optimized-storage', '-q');
          const header = format === 'btrfs' ? ['backup/optimized_header.yaml'] : [];
          const streams = ['backup/snapshots/then.bin', 'backup/container.bin'];
          expect(await members('one.tar.gz')).toEqual(['backup/index.yaml', ...header, ...streams]);
          await lxc('import', 'b:', join(work, 'one.tar.gz'), 'c2', '-q');
          await lxc('start', 'b:c2');
          expect(await read('b:c2')).toBe(`two\n${owners}\n`);
          expect(await lxc('config', 'get', 'b:c2', 'user.note')).toBe('kept\n');

          await write('b:c2', 'three');
          await lxc('export', 'b:c2', join(work, 'two.tar.gz'), '--optimized-storage', '-q');
          await pair.lighter('import', 'a:', join(work, 'two.tar.gz'), 'c3');
          await lxc('start', 'a:c3');
          expect(await read('a:c3')).toBe(`three\n${owners}\n`);
          await lxc('stop', '-f', 'a:c3');
          await lxc('restore', 'a:c3', 'then');
          await lxc('start', 'a:c3');
          expect(await read('a:c3')).toBe(`one\n${owners}\n`);
          expect(await readdir(join(pair.ours.root, 'instances', 'c3'))).toContain('metadata.yaml');
          expect(await pair.listed('a')).toEqual(['c1,1', 'c3,1']);

          await pair.lighter(
            'export',
            'a:c1',
            join(work, `three-${format}.tar`),
            '--optimized-storage',
            '--instance-only',
          );
          expect((await members(`three-${format}.tar`)).filter((name) => name.endsWith('.bin'))).toEqual([
            'backup/container.bin',
          ]);
          await lxc('delete', '-f', 'a:c1', 'a:c3', 'b:c2');
          await lxc('import', 'a:', join(work, `three-${format}.tar`), '-q');
          await lxc('start', 'a:c1');
          expect(await read('a:c1')).toBe(`two\n${owners}\n`);
          await lxc('delete', '-f', 'a:c1');
          if (format === 'btrfs') {
            for (const folder of ['containers', 'containers-snapshots'])
              expect(await readdir(pathOf('a', folder))).toEqual([]);
          }
          expect(await readdir(join(pair.ours.root, 'backups/instances'))).toEqual([]);
        },
        LIMIT_MS,
      );

      it.runIf(format === 'btrfs')(
        'takes subvolumes along that are nested in others',
        async () => {
          await lxc('launch', 'a:bb', 'a:n1', '-s', format);
          const nested = pathOf('a', 'containers/n1/rootfs/root/in-side');
          for (const path of [nested, join(nested, 'deep'), join(nested, 'kept')]) {
            await run('btrfs', ['subvolume', 'create', path]);
            await writeFile(join(path, 'text'), 'one\n');
          }
          await run('btrfs', ['property', 'set', '-ts', join(nested, 'kept'), 'ro', 'true']);
          await lxc('snapshot', 'a:n1', 'then');
          await writeFile(join(nested, 'deep/text'), 'two\n');

          await lxc('export', 'a:n1', join(work, 'nested.tar'), '--optimized-storage', '--compression', 'none', '-q');
          expect(await members('nested.tar')).toContain('backup/snapshots/then_rootfs-root-in--side-deep.bin');
          await lxc('import', 'b:', join(work, 'nested.tar'), 'n2', '-q');
          await lxc('start', 'b:n2');
          const inside = (instance: string): Promise<string> => {
            const script = 'cd /root/in-side; cat text deep/text kept/text; touch kept/x 2>/dev/null || echo readonly';
            return lxc('exec', instance, '--', 'sh', '-c', script);
          };
          expect(await inside('b:n2')).toBe('one\ntwo\none\nreadonly\n');
          await lxc('export', 'b:n2', join(work, 'back.tar'), '--optimized-storage', '--compression', 'none', '-q');
          await lxc('import', 'a:', join(work, 'back.tar'), 'n3', '-q');
          await lxc('start', 'a:n3');
          expect(await inside('a:n3')).toBe('one\ntwo\none\nreadonly\n');
          await lxc('stop', '-f', 'a:n3');
          await lxc('restore', 'a:n3', 'then');
          await lxc('start', 'a:n3');
          expect(await inside('a:n3')).toBe('one\none\none\nreadonly\n');
          await lxc('delete', '-f', 'a:n1', 'a:n3', 'b:n2');
        },
        LIMIT_MS,
      );

      it(
        'has custom volumes with their snapshots',
        async () => {
          const volume = (...args: string[]): Promise<string> => lxc('storage', 'volume', ...args);
          await volume('create', `a:${format}`, 'v1', 'user.note=kept');
          await volume('snapshot', `a:${format}`, 'v1', 'then');
          await volume('set', `a:${format}`, 'v1', 'user.note=later');

          await volume('export', `a:${format}`, 'v1', join(work, 'volume.tar.gz'), '--optimized-storage', '-q');
          expect(await members('volume.tar.gz')).toContain('backup/volume-snapshots/then.bin');
          await volume('import', `b:${format}`, join(work, 'volume.tar.gz'), 'v2', '-q');
          await volume('export', `b:${format}`, 'v2', join(work, 'volume2.tar.gz'), '--optimized-storage', '-q');
          await volume('import', `a:${format}`, join(work, 'volume2.tar.gz'), 'v3', '-q');

          expect(await volume('get', `a:${format}`, 'v3', 'user.note')).toBe('later\n');
          const listed = await volume('list', `a:${format}`, 'type=custom', '-f', 'csv', '-c', 'n');
          expect(listed.trim().split('\n').toSorted()).toEqual(['v1', 'v1/then', 'v3', 'v3/then']);
          for (const place of ['a v1', 'a v3', 'b v2']) {
            const [remote = '', name = ''] = place.split(' ');
            await volume('delete', `${remote}:${format}`, name);
          }
        },
        LIMIT_MS,
      );

      it(
        'is refused by other pools, with a reason',
        async () => {
          await lxc('init', 'a:bb', 'a:d1');
          await lxc('init', 'a:bb', 'a:d2', '-s', format);
          const file = join(work, 'refused.tar');
          await lxc('export', 'a:d2', file, '--optimized-storage', '--compression', 'none', '-q');
          await lxc('delete', 'a:d2');

          await expect(lxc('export', 'a:d1', join(work, 'x.tar'), '--optimized-storage', '-q')).rejects.toThrow(
            'Optimized backups are not supported by storage driver "dir"',
          );
          await expect(lxc('import', 'a:', file, '-s', 'default', '-q')).rejects.toThrow(
            `Optimized backup storage driver "${format}" differs from the target storage pool driver "dir"`,
          );
          await lxc('delete', 'a:d1');
        },
        LIMIT_MS,
      );

      it.runIf(format === 'btrfs')(
        'refuses headers that mean harm, and streams that are not what they say',
        async () => {
          await lxc('init', 'a:bb', 'a:h1', '-s', format);
          const file = join(work, 'good.tar');
          await lxc('export', 'a:h1', file, '--optimized-storage', '--compression', 'none', '-q');
          await lxc('delete', 'a:h1');
          const folder = join(work, 'unpacked');
          await mkdir(folder);
          await run('tar', ['-C', folder, '-xf', file]);
          const imported = async (
            subvolumes: string,
            order = 'index.yaml optimized_header.yaml container.bin',
          ): Promise<string> => {
            await writeFile(join(folder, 'backup/optimized_header.yaml'), `subvolumes:\n${subvolumes}`);
            const bad = join(work, 'bad.tar');
            await run('tar', ['-C', folder, '-cf', bad, ...order.split(' ').map((name) => `backup/${name}`)]);
            return lxc('import', 'a:', bad, 'h2', '-q').then(
              () => 'done',
              (error: unknown) => String(error),
            );
          };
          const entry = (path: string, snapshot = '""') =>
            `- path: ${path}\n  snapshot: ${snapshot}\n  readonly: false\n`;
          await run('cp', [join(folder, 'backup/container.bin'), join(folder, 'backup/container_rootfs-x.bin')]);
          const nested = 'index.yaml optimized_header.yaml container.bin container_rootfs-x.bin';

          expect(await imported('nonsense')).toContain('Backup is not valid');
          expect(await imported(entry('/rootfs'))).toContain('other subvolumes than can be');
          expect(await imported(entry('/') + entry('/', 'gone'))).toContain('no snapshot "gone"');
          await run('cp', [join(folder, 'backup/container.bin'), join(folder, 'backup/container_..-..-x.bin')]);
          const outside = await imported(
            entry('/') + entry('/../../x'),
            'index.yaml optimized_header.yaml container.bin container_..-..-x.bin',
          );
          expect(outside).toContain('Invalid path of a subvolume: "/../../x"');
          expect(await imported(entry('/') + entry('/rootfs/x'))).toContain(
            'missing at "backup/container_rootfs-x.bin"',
          );
          expect(await imported(entry('/'), 'index.yaml optimized_header.yaml')).toContain('missing at');
          await writeFile(join(folder, 'backup/container_rootfs-x.bin'), 'btrfs-stream\0 it is not');
          expect(await imported(entry('/') + entry('/rootfs/x'), nested)).toContain('not one of btrfs send');
          expect(await pair.listed('a')).toEqual([]);
          expect(await readdir(pathOf('a', 'containers'))).toEqual([]);
          await rm(folder, { recursive: true });
        },
        LIMIT_MS,
      );
    });
  });
}
