// Custom volumes on a file system whose ids the kernel cannot map, with the stock client: running containers read and write them as root and as
// a user, and the files belong to one map at a time.
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const POOL = `lighter-o${process.pid}`;
const ISOLATED = { 'security.idmap.isolated': 'true' };
const LOOK = 'cat /data/root /data/tmp/user; stat -c %u:%g:%a /data /data/root /data/tmp/user';
const SEEN = 'of root\nof the user\n0:0:711\n0:0:600\n1000:1000:644\n';
/** OpenZFS in the kernel may map ids. */
const isFuse = !existsSync('/sys/module/zfs');
const needed = ['lxc', 'lxc-start', 'busybox', 'rsync', 'zpool', ...(isFuse ? ['zfs-fuse'] : [])];

describeWith({ root: true, commands: needed }, 'owners in custom volumes', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start('dir');
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await lxc('storage', 'create', 'z', 'zfs', 'size=512MiB', `zfs.pool_name=${POOL}`);
    for (const name of ['one', 'two']) await daemon.launch(name);
    await daemon.launch('apart', { config: ISOLATED });
    await daemon.launch('apart2', { config: ISOLATED, start: false });
    await volume('create', 'z', 'v');
    await attach('v', 'one');
    await sh('one', 'umask 077; echo of root > /data/root; mkdir /data/tmp; chmod 1777 /data/tmp');
    await lxc(
      'exec',
      'one',
      '--user',
      '1000',
      '--group',
      '1000',
      '--',
      'sh',
      '-c',
      'echo of the user > /data/tmp/user',
    );
  }, 120_000);
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await run('zpool', ['destroy', '-f', POOL]);
  });

  const lxc = (...args: readonly string[]): Promise<string> => client.run(...args);
  const volume = (...args: readonly string[]): Promise<string> => lxc('storage', 'volume', ...args);
  const sh = (name: string, script: string): Promise<string> => lxc('exec', name, '--', 'sh', '-c', script);
  const attach = (name: string, instance: string, pool = 'z') =>
    volume('attach', pool, name, instance, 'data', '/data');
  const detach = (name: string, instance: string, pool = 'z') => volume('detach', pool, name, instance);
  const seenBy = async (instance: string, name: string, pool = 'z'): Promise<string> => {
    await attach(name, instance, pool);
    const seen = await sh(instance, LOOK);
    await detach(name, instance, pool);
    return seen;
  };
  const base = async (instance: string): Promise<number> => {
    const { metadata } = await daemon.call('GET', `/1.0/instances/${instance}`);
    return JSON.parse(metadata.config['volatile.idmap.current'])[0].Hostid as number;
  };
  const onDisk = async (name: string, pool = 'z'): Promise<number> => {
    return (await stat(join(daemon.root, 'storage-pools', pool, 'custom', `default_${name}`, 'root'))).uid;
  };
  const said = async (name: string): Promise<number | undefined> => {
    const text = await volume('get', 'z', name, 'volatile.idmap.last');
    return text.trim() === '' ? undefined : (JSON.parse(text)[0]?.Hostid as number | undefined);
  };

  it('are those of the inside for containers with the same map, which share the volume', async () => {
    await attach('v', 'two');

    expect(await sh('one', LOOK)).toBe(SEEN);
    expect(await sh('two', LOOK)).toBe(SEEN);
    await sh('two', 'echo more > /data/two');
    expect(await sh('one', 'cat /data/two; stat -c %u /data/two; rm /data/two')).toBe('more\n0\n');
    if (!isFuse) return;
    expect(await onDisk('v')).toBe(await base('one'));
    expect(await said('v')).toBe(await base('one'));
  });

  it.runIf(isFuse)('belong to one map: another container waits until those that have the volume are gone', async () => {
    const refused = 'Idmaps of container "one" and storage volume "v" are not identical';
    await expect(attach('v', 'apart')).rejects.toThrow(refused);
    await attach('v', 'apart2');
    await expect(lxc('start', 'apart2')).rejects.toThrow(refused);
    expect(await sh('one', LOOK)).toBe(SEEN);
    await daemon.kill();
    await daemon.boot('dir');
    await expect(lxc('start', 'apart2')).rejects.toThrow(refused);

    await lxc('stop', '-f', 'one');
    await detach('v', 'two');
    await lxc('start', 'apart2');

    expect(await sh('apart2', LOOK)).toBe(SEEN);
    expect(await onDisk('v')).toBe(await base('apart2'));
    expect(await said('v')).toBe(await base('apart2'));
    await expect(lxc('start', 'one')).rejects.toThrow('Idmaps of container "apart2"');
    await lxc('stop', '-f', 'apart2');
    await lxc('start', 'one');
    expect(await sh('one', LOOK)).toBe(SEEN);
    await detach('v', 'apart2');
  });

  it('are the same after an export, a copy, a move to another pool and back, and a snapshot from another map', async () => {
    await volume('snapshot', 'z', 'v', 's');
    await volume('export', 'z', 'v', 'v.tar.gz', '-q');
    await volume('import', 'z', 'v.tar.gz', 'imported', '-q');
    await volume('copy', 'z/v', 'z/copied');
    await volume('copy', 'z/v/s', 'default/elsewhere');
    expect(await onDisk('elsewhere', 'default')).toBe(0);
    await volume('move', 'z/copied', 'default/moved');
    await volume('move', 'default/moved', 'z/back');
    await volume('copy', 'z/v', 'z/refreshed');

    for (const instance of ['apart', 'two']) {
      for (const name of ['imported', 'back', 'refreshed']) expect(await seenBy(instance, name)).toBe(SEEN);
      expect(await seenBy(instance, 'elsewhere', 'default')).toBe(SEEN);
    }
    await seenBy('apart', 'refreshed');
    await volume('restore', 'z', 'refreshed', 's');
    if (isFuse) expect(await said('refreshed')).toBe(await base('one'));
    expect(await seenBy('apart', 'refreshed')).toBe(SEEN);
    await volume('copy', 'z/v', 'z/refreshed', '--refresh');
    expect(await seenBy('two', 'refreshed')).toBe(SEEN);
    await volume('export', 'z', 'v', 'raw.tar.gz', '-q', '--optimized-storage');
    await volume('import', 'z', 'raw.tar.gz', 'raw', '-q');
    expect(await seenBy('apart', 'raw')).toBe(SEEN);
    for (const name of ['imported', 'back', 'refreshed', 'raw']) await volume('delete', 'z', name);
    await volume('delete', 'default', 'elsewhere');
  }, 120_000);

  it('are left alone in a volume that says so, and not shared between maps where the kernel cannot', async () => {
    await volume('create', 'z', 'plain', 'security.unmapped=true');
    await attach('plain', 'two');
    expect(await sh('two', 'stat -c %u /data')).toBe('65534\n');
    await detach('plain', 'two');
    await volume('create', 'z', 'shifted', 'security.shifted=true');

    const attached = attach('shifted', 'two');

    if (isFuse)
      await expect(attached).rejects.toThrow("idmapping abilities are required but aren't supported on system");
    else await attached;
    expect(await lxc('config', 'device', 'list', 'two')).not.toContain(isFuse ? 'data' : '-');
  });
});
