// Custom volumes that go between two engines by the stock client and by ours, and copies that are brought up to date.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { Pair, PEERS } from './pair.ts';

for (const { name, commands, start, hasSnapshotCopies, seesFastChanges } of PEERS) {
  describeWith({ root: true, commands: ['lxc', 'lxc-start', 'rsync', ...commands] }, `volumes to ${name}`, () => {
    let pair: Pair;
    const volume = (...args: string[]): Promise<string> => pair.lxc('storage', 'volume', ...args);
    const sh = async (script: string): Promise<string> => {
      if (!seesFastChanges) await sleep(1100);
      return await pair.lxc('exec', 'a:user', '--', 'sh', '-c', script);
    };
    const held = async (remote: string): Promise<string[]> => {
      const lines = (await volume('list', `${remote}:default`, '-f', 'csv')).trim().split('\n');
      return lines.filter((line) => line.startsWith('custom')).map((line) => line.split(',')[1] ?? '');
    };
    const read = async (name: string, script: string): Promise<string> => {
      await volume('attach', 'a:default', name, 'user', 'look', '/look');
      const said = await sh(script);
      await volume('detach', 'a:default', name, 'user');
      return said;
    };

    beforeAll(async () => {
      pair = await Pair.start(start);
      await pair.lxc('launch', 'a:bb', 'a:user');
      await volume('create', 'a:default', 'v1', 'user.a=b');
      await volume('attach', 'a:default', 'v1', 'user', 'data', '/data');
      await sh('echo one > /data/f; chown 7:9 /data/f; chmod 640 /data/f');
      await volume('snapshot', 'a:default', 'v1', 'first');
      await sh('echo two > /data/f');
    }, 120_000);
    afterAll(() => pair[Symbol.asyncDispose](), 120_000);

    it.each(['pull', 'push', 'relay'])(
      'are copied by %s there and back, with snapshots',
      async (mode) => {
        await volume('copy', 'a:default/v1', 'b:default/v2', '--mode', mode);
        await volume('copy', 'b:default/v2', 'a:default/v3', '--mode', mode);
        await volume('copy', 'a:default/v1', 'b:default/v4', '--volume-only', '--mode', mode);

        expect(await held('b')).toEqual(['v2', 'v2/first', 'v4'].toSorted());
        expect(await held('a')).toEqual(['v1', 'v1/first', 'v3', 'v3/first']);
        expect(await volume('get', 'a:default', 'v3', 'user.a')).toBe('b\n');
        expect(await read('v3', 'cat /look/f; stat -c %u:%g:%a /look/f')).toBe('two\n7:9:640\n');
        await volume('restore', 'a:default', 'v3', 'first');
        expect(await read('v3', 'cat /look/f')).toBe('one\n');
        await volume('delete', 'a:default', 'v3');
        for (const gone of ['v2', 'v4']) await volume('delete', 'b:default', gone);
      },
      120_000,
    );

    it('are brought up to date, though nothing but a letter was changed in the same second', async () => {
      await volume('copy', 'a:default/v1', 'b:default/r');
      await volume('copy', 'b:default/r', 'a:default/back');
      await volume('snapshot', 'b:default', 'r', 'stray');
      await sh('echo six > /data/f; echo more > /data/g');
      await volume('snapshot', 'a:default', 'v1', 'second');
      await sh('echo ten > /data/f');

      await volume('copy', 'a:default/v1', 'b:default/r', '--refresh');
      await volume('copy', 'b:default/r', 'a:default/back', '--refresh', '--mode', 'push');

      expect(await held('b')).toEqual(['r', 'r/first', 'r/second']);
      expect(await read('back', 'cat /look/f /look/g; stat -c %u /look/f')).toBe('ten\nmore\n7\n');
      await volume('restore', 'a:default', 'back', 'second');
      expect(await read('back', 'cat /look/f')).toBe('six\n');
      await volume('delete', 'a:default', 'v1/second');
      await volume('delete', 'a:default', 'back');
      await volume('delete', 'b:default', 'r');
    }, 120_000);

    it('are moved, and renamed on their way', async () => {
      await volume('copy', 'a:default/v1', 'a:default/m');
      await volume('move', 'a:default/m', 'b:default/n');
      expect(await held('a')).toEqual(['v1', 'v1/first']);

      await volume('move', 'b:default/n', 'a:default/m');

      expect(await held('b')).toEqual([]);
      expect(await held('a')).toEqual(['m', 'm/first', 'v1', 'v1/first']);
      await volume('delete', 'a:default', 'm');
    }, 120_000);

    it('leave nothing of one that fails', async () => {
      await volume('copy', 'a:default/v1', 'b:default/v1');

      await expect(volume('copy', 'b:default/v1', 'a:default/v1')).rejects.toThrow('already exists');
      await expect(volume('copy', 'b:default/nope', 'a:default/x')).rejects.toThrow('not found');
      await expect(volume('copy', 'b:default/v1', 'a:default/v1', '--refresh')).rejects.toThrow('running instances');

      expect(await held('a')).toEqual(['v1', 'v1/first']);
      expect(await readdir(join(pair.ours.root, 'storage-pools/default/custom'))).not.toContain('default_x');
      await volume('delete', 'b:default', 'v1');
    }, 120_000);

    it('go by our client as well', async () => {
      for (const mode of ['pull', 'push', 'relay']) {
        await pair.lighter('storage', 'volume', 'copy', 'a:default/v1', 'b:default/own', '--mode', mode);
        await pair.lighter('storage', 'volume', 'copy', 'b:default/own', 'a:default/own', '--mode', mode, '--refresh');
        await pair.lighter('storage', 'volume', 'copy', 'b:default/own', 'a:default/own', '--mode', mode, '--refresh');

        expect(await held('a')).toEqual(['own', 'own/first', 'v1', 'v1/first']);
        expect(await volume('get', 'a:default', 'own', 'user.a')).toBe('b\n');
        await volume('delete', 'a:default', 'own');
        await volume('delete', 'b:default', 'own');
        if (!hasSnapshotCopies) continue; // nor can the stock client of this age ask for them
        await pair.lighter('storage', 'volume', 'copy', 'a:default/v1/first', 'b:default/own', '--mode', mode);
        await volume('copy', 'b:default/own', 'a:default/own');
        expect(await read('own', 'cat /look/f')).toBe('one\n');
        await volume('delete', 'a:default', 'own');
        await volume('delete', 'b:default', 'own');
      }
    }, 120_000);

    it('are brought up to date on one engine, in a pool, between pools and between projects', async () => {
      await pair.lxc('storage', 'create', 'a:other', 'overlay', 'rsync.bwlimit=100M', 'rsync.compression=false');
      await pair.lxc('project', 'create', 'a:team', '-c', 'features.images=false', '-c', 'features.profiles=false');
      await volume('copy', 'a:default/v1', 'a:other/c');
      await volume('copy', 'a:other/c', 'a:default/d', '--target-project', 'team');
      await sh('echo abc > /data/f');
      await volume('snapshot', 'a:default', 'v1', 'third');
      await volume('snapshot', 'a:other', 'c', 'stray');

      await volume('copy', 'a:default/v1', 'a:other/c', '--refresh');
      await volume('copy', 'a:other/c', 'a:default/d', '--target-project', 'team', '--refresh');
      await volume('move', 'a:default/d', 'a:other/e', '--project', 'team', '--target-project', 'default');

      await volume('attach', 'a:other', 'e', 'user', 'look', '/look');
      expect(await sh('cat /look/f')).toBe('abc\n');
      await volume('detach', 'a:other', 'e', 'user');
      expect(await volume('list', 'a:other', '-f', 'csv')).toContain('e/third');
      expect(await volume('list', 'a:other', '-f', 'csv')).not.toContain('stray');
      await expect(pair.lxc('storage', 'set', 'a:other', 'rsync.bwlimit=fast')).rejects.toThrow('rsync.bwlimit');
      await pair.lxc('storage', 'set', 'a:other', 'rsync.bwlimit=1G');
      for (const gone of ['c', 'e']) await volume('delete', 'a:other', gone);
      await pair.lxc('storage', 'delete', 'a:other');
      await pair.lxc('project', 'delete', 'a:team');
      await volume('delete', 'a:default', 'v1/third');
    }, 120_000);
  });
}
