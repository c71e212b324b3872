// Instances that move between two engines by the stock client: two of ours, and ours and a real LXD.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { Pair, PEERS } from './pair.ts';

for (const { name, commands, start } of PEERS) {
  describeWith({ root: true, commands: ['lxc', 'lxc-start', 'rsync', ...commands] }, `migration to ${name}`, () => {
    let pair: Pair;
    const lxc = (...args: string[]): Promise<string> => pair.lxc(...args);
    const listed = (remote: string): Promise<string[]> => pair.listed(remote);

    beforeAll(async () => {
      pair = await Pair.start(start);
    }, 120_000);
    afterAll(() => pair[Symbol.asyncDispose](), 120_000);

    it.each(['pull', 'push', 'relay'])(
      'copies by %s there and back, with snapshots',
      async (mode) => {
        await lxc('init', 'a:bb', 'a:c1');
        await lxc('config', 'set', 'a:c1', 'user.tester', 'foo');
        const note = async (remote: string, name: string): Promise<string> => {
          return (await lxc('storage', 'volume', 'get', `${remote}:default`, `container/${name}`, 'user.note')).trim();
        };
        await lxc('storage', 'volume', 'set', 'a:default', 'container/c1', 'user.note=before');
        await lxc('snapshot', 'a:c1', 'then');
        await lxc('config', 'unset', 'a:c1', 'user.tester');
        await lxc('storage', 'volume', 'set', 'a:default', 'container/c1', 'user.note=after');

        await lxc('copy', 'a:c1', 'b:c2', '--mode', mode);
        await lxc('start', 'b:c2');
        await lxc('copy', 'b:c2', 'a:c3', '--stateless', '--mode', mode);
        await lxc('copy', 'a:c3', 'b:c4', '--instance-only', '--mode', mode);
        await lxc('copy', 'b:c2/then', 'a:c5', '--mode', mode);
        await lxc('start', 'a:c3', 'a:c5');

        expect(await lxc('config', 'get', 'b:c2', 'user.tester')).toBe('\n');
        expect(await lxc('config', 'show', 'a:c3/then')).toContain('user.tester: foo');
        expect([await note('b', 'c2'), await note('b', 'c2/then')]).toEqual(['after', 'before']);
        expect([await note('a', 'c3'), await note('a', 'c3/then')]).toEqual(['after', 'before']);
        expect(await listed('a')).toEqual(['c1,1', 'c3,1', 'c5,0']);
        expect(await listed('b')).toEqual(['c2,1', 'c4,0']);
        await lxc('delete', '-f', 'a:c1', 'a:c3', 'a:c5', 'b:c2', 'b:c4');
      },
      120_000,
    );

    it('moves what runs, and what has the same owners inside', async () => {
      await lxc('launch', 'a:bb', 'a:m1');
      await lxc('exec', 'a:m1', '--', 'sh', '-c', 'echo hello > /root/mine; chown 7:9 /root/mine; sync');

      await lxc('move', 'a:m1', 'b:m1', '--stateless');
      await lxc('exec', 'b:m1', '--', 'sh', '-c', 'echo more >> /root/mine; sync');
      await lxc('move', 'b:m1', 'a:m2', '--stateless');

      expect(await lxc('exec', 'a:m2', '--', 'cat', '/root/mine')).toBe('hello\nmore\n');
      expect(await lxc('exec', 'a:m2', '--', 'ls', '-ln', '/root/mine')).toMatch(/ 7 +9 /u);
      expect(await listed('b')).toEqual([]);
      await lxc('delete', '-f', 'a:m2');
    }, 120_000);

    it('brings a copy up to date in both directions', async () => {
      await lxc('init', 'a:bb', 'a:r1');
      await lxc('copy', 'a:r1', 'b:r2');
      await lxc('snapshot', 'a:r1', 'one');
      await lxc('snapshot', 'b:r2', 'stray');

      await lxc('copy', 'a:r1', 'b:r2', '--refresh');
      expect(await listed('b')).toEqual(['r2,1']);
      expect(await lxc('config', 'show', 'b:r2/one')).toContain('expires_at');
      await lxc('snapshot', 'b:r2', 'two');
      await lxc('copy', 'b:r2', 'a:r1', '--refresh');

      expect(await listed('a')).toEqual(['r1,2']);
      await lxc('delete', '-f', 'a:r1', 'b:r2');
    }, 120_000);

    it('leaves nothing of one that fails', async () => {
      await lxc('init', 'a:bb', 'a:f1');
      await lxc('init', 'a:bb', 'a:f2');

      await expect(lxc('copy', 'a:f1', 'b:f3', '-p', 'nope')).rejects.toThrow();
      await lxc('copy', 'a:f1', 'b:f3');
      await expect(lxc('copy', 'b:f3', 'a:f2')).rejects.toThrow('already exists');

      expect(await listed('a')).toEqual(['f1,0', 'f2,0']);
      expect((await readdir(join(pair.ours.root, 'containers'))).toSorted()).toEqual(['f1', 'f2']);
      expect(await readdir(join(pair.ours.root, 'migrations'))).toEqual([]);
      await lxc('delete', '-f', 'a:f1', 'a:f2', 'b:f3');
    }, 120_000);

    it('goes by our client as well, in all modes, and is brought up to date', async () => {
      await lxc('launch', 'a:bb', 'a:o1');
      await lxc('snapshot', 'a:o1', 'one');
      for (const mode of ['pull', 'push', 'relay']) {
        await pair.lighter('copy', 'a:o1', 'b:o2', '--stateless', '--mode', mode);
        await lxc('snapshot', 'b:o2', 'two');
        await pair.lighter('copy', 'b:o2', 'a:o3', '--mode', mode, '--instance-only');
        await pair.lighter('copy', 'b:o2', 'a:o3', '--mode', mode, '--refresh');

        expect(await listed('a')).toEqual(['o1,1', 'o3,2']);
        await lxc('delete', 'a:o3');
        await lxc('delete', 'b:o2');
      }
      await lxc('delete', '-f', 'a:o1');
    }, 180_000);
  });
}
