// Custom volumes whose files belong to a container's map on the disk go between two engines: file by file and as streams of zfs.
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { Pair } from './pair.ts';

const LIMIT_MS = 180_000;
const isFuse = !existsSync('/sys/module/zfs');
const zpoolOf = (remote: string): string => `owners-${process.pid}-${remote}`;
const commands = ['lxc', 'lxc-start', 'rsync', 'zpool', ...(isFuse ? ['zfs-fuse'] : [])];

describeWith({ root: true, commands }, 'owners of volumes that go to another server', () => {
  let pair: Pair;
  const volume = (...args: string[]): Promise<string> => pair.lxc('storage', 'volume', ...args);
  const sh = (instance: string, script: string): Promise<string> =>
    pair.lxc('exec', instance, '--', 'sh', '-c', script);
  const seenBy = async (instance: string, pool: string, name: string): Promise<string> => {
    await volume('attach', pool, name, instance, 'look', '/look');
    const seen = await sh(`a:${instance}`, 'cat /look/f; stat -c %u:%g /look /look/f');
    await volume('detach', pool, name, instance);
    return seen;
  };

  beforeAll(async () => {
    pair = await Pair.start(() => TestDaemon.start('dir'));
    for (const remote of ['a', 'b']) {
      await pair.lxc('storage', 'create', `${remote}:z`, 'zfs', 'size=256MiB', `zfs.pool_name=${zpoolOf(remote)}`);
    }
    await pair.lxc('launch', 'a:bb', 'a:one');
    await pair.lxc('launch', 'a:bb', 'a:apart', '-c', 'security.idmap.isolated=true');
    await volume('create', 'a:z', 'v');
    await volume('snapshot', 'a:z', 'v', 'empty');
    await volume('attach', 'a:z', 'v', 'one', 'data', '/data');
    await sh('a:one', 'echo then > /data/f');
    await volume('snapshot', 'a:z', 'v', 'mapped');
    await sh('a:one', 'echo now > /data/f');
  }, LIMIT_MS);
  afterAll(async () => {
    await pair[Symbol.asyncDispose]();
    for (const remote of ['a', 'b']) await run('zpool', ['destroy', '-f', zpoolOf(remote)]);
  }, LIMIT_MS);

  it.each([
    ['as streams', 'z'],
    ['file by file', 'default'],
  ])(
    'are those of the inside when they come back %s, also of their snapshots',
    async (_how, pool) => {
      if (isFuse) expect(await volume('get', 'a:z', 'v', 'volatile.idmap.last')).toContain('"Hostid":');
      await volume('copy', 'a:z/v', `b:${pool}/w`);
      await volume('copy', `b:${pool}/w`, `a:${pool}/back`);

      expect(await seenBy('apart', `a:${pool}`, 'back')).toBe('now\n0:0\n0:0\n');
      await volume('copy', 'a:z/v', `b:${pool}/w`, '--refresh');
      await volume('copy', `b:${pool}/w`, `a:${pool}/back`, '--refresh');
      expect(await seenBy('one', `a:${pool}`, 'back')).toBe('now\n0:0\n0:0\n');
      if (pool === 'default') {
        await volume('restore', `a:${pool}`, 'back', 'mapped');
        expect(await seenBy('apart', `a:${pool}`, 'back')).toBe('then\n0:0\n0:0\n');
      }
      await volume('delete', `a:${pool}`, 'back');
      await volume('delete', `b:${pool}`, 'w');
    },
    LIMIT_MS,
  );
});
