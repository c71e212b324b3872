// What moves as streams of the file system, by the stock client: between two engines of ours, and ours and a real LXD.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../instances/daemon-support.ts';
import { timeFactor } from '#test/time-factor.ts';
import { describeWith, hasKernelZfs } from '../support.ts';
import { Pair, PEERS } from './pair.ts';

const LIMIT_MS = 120_000 * timeFactor();
const zpoolOf = (remote: string): string => `streams-${process.pid}-${remote}`;

for (const { name: peer, commands, start, formats } of PEERS) {
  describeWith({ root: true, commands: ['lxc', 'lxc-start', 'btrfs', ...commands] }, `streams to ${peer}`, () => {
    let pair: Pair;
    const lxc = (...args: string[]): Promise<string> => pair.lxc(...args);

    beforeAll(async () => {
      pair = await Pair.start(start);
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
      const rootOf = (remote: string): string => (remote === 'a' ? pair.ours.root : pair.theirs.root);
      /** The same wherever a snapshot was sent. */
      const guid = async (remote: string, instance: string, snapshot: string): Promise<string> => {
        if (format === 'zfs') {
          const dataset = `${zpoolOf(remote)}/containers/${instance}@snapshot-${snapshot}`;
          return (await run('zfs', ['get', '-Hp', '-o', 'value', 'guid', dataset])).stdout.trim();
        }
        const path = join(rootOf(remote), 'storage-pools', format, 'containers-snapshots', instance, snapshot);
        const { stdout } = await run('btrfs', ['subvolume', 'show', path]);
        const [, uuid = ''] = /^\s+UUID:\s+(\S+)/mu.exec(stdout) ?? [];
        const [, received = '-'] = /Received UUID:\s+(\S+)/u.exec(stdout) ?? [];
        return received === '-' ? uuid : received;
      };
      const write = async (instance: string, text: string): Promise<void> => {
        await lxc('exec', instance, '--', 'sh', '-c', `echo ${text} > /root/text; chown 7:9 /root/text; sync`);
      };
      const read = async (instance: string): Promise<string> => {
        const script = 'cat /root/text; ls -ln /root/text | tr -s " " | cut -d" " -f3,4';
        return lxc('exec', instance, '--', 'sh', '-c', script);
      };

      beforeAll(async () => {
        for (const remote of ['a', 'b']) {
          const name = format === 'zfs' ? [`zfs.pool_name=${zpoolOf(remote)}`] : [];
          await lxc('storage', 'create', `${remote}:${format}`, format, 'size=600MiB', ...name);
        }
      }, LIMIT_MS);
      it(
        'copies there and back, with snapshots, and brings copies up to date',
        async () => {
          await lxc('launch', 'a:bb', 'a:c1', '-s', format);
          await write('a:c1', 'one');
          await lxc('snapshot', 'a:c1', 'then');
          await write('a:c1', 'two');

          await lxc('copy', 'a:c1', 'b:c2', '--stateless', '-s', format, '--mode', 'push');
          await lxc('copy', 'b:c2', 'a:c3', '-s', format, '--mode', 'relay');
          await lxc('copy', 'b:c2/then', 'a:c4', '-s', format);
          await lxc('start', 'a:c3', 'a:c4');
          expect(await guid('b', 'c2', 'then')).toBe(await guid('a', 'c1', 'then'));
          expect(await guid('a', 'c3', 'then')).toBe(await guid('a', 'c1', 'then'));
          expect(await read('a:c3')).toBe(`two\n${owners}\n`);
          expect(await read('a:c4')).toBe(`one\n${owners}\n`);
          expect(await readdir(join(pair.ours.root, 'instances', 'c3'))).toContain('metadata.yaml');

          await lxc('snapshot', 'a:c1', 'later');
          await write('a:c1', 'three');
          await lxc('copy', 'a:c1', 'b:c2', '--stateless', '--refresh');
          if (peer !== 'a real LXD') expect(await guid('b', 'c2', 'later')).toBe(await guid('a', 'c1', 'later'));
          await lxc('start', 'b:c2');
          expect(await read('b:c2')).toBe(`three\n${owners}\n`);
          await lxc('stop', '-f', 'a:c3');
          await lxc('copy', 'b:c2', 'a:c3', '--stateless', '--refresh');
          await lxc('start', 'a:c3');
          expect(await read('a:c3')).toBe(`three\n${owners}\n`);
          expect(await pair.listed('a')).toEqual(['c1,2', 'c3,2', 'c4,0']);
          await lxc('delete', '-f', 'a:c1', 'a:c3', 'a:c4', 'b:c2');
        },
        LIMIT_MS,
      );

      it.skipIf(peer === 'a real LXD')(
        'goes with owners of several ranges',
        async () => {
          const ids = ['-c', 'security.idmap.isolated=true', '-c', 'raw.idmap=both 9100000 1000'];
          await lxc('launch', 'a:bb', 'a:m1', '-s', format, ...ids);
          await write('a:m1', 'mapped');
          await lxc('snapshot', 'a:m1', 'then');

          await lxc('copy', 'a:m1', 'b:m2', '--stateless', '-s', format);
          await lxc('start', 'b:m2');

          expect(await guid('b', 'm2', 'then')).toBe(await guid('a', 'm1', 'then'));
          expect(await read('b:m2')).toBe(`mapped\n${owners}\n`);
          expect(await lxc('exec', 'b:m2', '--', 'cat', '/proc/self/uid_map')).toMatch(/^ +1000 +9100000 +1$/mu);
          await lxc('delete', '-f', 'a:m1', 'b:m2');
        },
        LIMIT_MS,
      );

      it(
        'copies volumes with their snapshots',
        async () => {
          await lxc('storage', 'volume', 'create', `a:${format}`, 'v1');
          await lxc('storage', 'volume', 'snapshot', `a:${format}`, 'v1', 'then');
          await lxc('storage', 'volume', 'copy', `a:${format}/v1`, `b:${format}/v2`);
          await lxc('storage', 'volume', 'copy', `b:${format}/v2`, `a:${format}/v3`);

          const listed = await lxc('storage', 'volume', 'list', `a:${format}`, 'type=custom', '-f', 'csv', '-c', 'n');
          expect(listed.trim().split('\n').toSorted()).toEqual(['v1', 'v1/then', 'v3', 'v3/then']);
          for (const place of ['a v1', 'a v3', 'b v2']) {
            const [remote = '', volume = ''] = place.split(' ');
            await lxc('storage', 'volume', 'delete', `${remote}:${format}`, volume);
          }
        },
        LIMIT_MS,
      );
    });
  });
}
