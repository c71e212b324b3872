// What the stock client shows and changes of an instance beside its configuration: what is written on its volume, files in the daemon's directory.
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { StockClient } from './stock-client.ts';

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'tar'] }, 'details of instances', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start('dir');
    await daemon.addImage();
    client = await StockClient.for(daemon);
    await client.run('init', 'bb', 'det-c1');
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  it('links roots of instances and snapshots where users look for them, whatever their names become', async () => {
    await client.run('init', 'bb', 'det-c2', '-c', 'security.privileged=true');
    await client.run('snapshot', 'det-c2', 's0');
    const containers = join(daemon.root, 'containers');
    expect((await stat(join(containers, 'det-c2'))).mode & 0o777).toBe(0o100);

    await client.run('rename', 'det-c2/s0', 'det-c2/s1');
    await client.run('rename', 'det-c2', 'det-c3');

    expect(await readdir(join(containers, 'det-c3/rootfs'))).toContain('bin');
    expect(await readdir(join(daemon.root, 'snapshots/det-c3/s1/rootfs'))).toContain('bin');
    await client.run('storage', 'create', 'det-other', 'dir');
    await client.run('move', 'det-c3', 'det-c3b', '-s', 'det-other');
    expect(await readdir(join(containers, 'det-c3b/rootfs'))).toContain('bin');
    await client.run('delete', 'det-c3b');
    await client.run('storage', 'delete', 'det-other');
    expect(await readdir(containers)).toEqual(['det-c1']);
  });

  it('keeps what users write on the volumes of instances, through snapshots and restores', async () => {
    const path = '/1.0/storage-pools/default/volumes/container/det-c1';
    const noted = () => client.run('storage', 'volume', 'get', 'default', 'container/det-c1', 'user.foo');
    await client.run('storage', 'volume', 'set', 'default', 'container/det-c1', 'user.foo=then');
    await client.run('snapshot', 'det-c1', 's1');
    await client.run('storage', 'volume', 'set', 'default', 'container/det-c1', 'user.foo=now');
    expect(await noted()).toBe('now\n');
    expect(await client.run('storage', 'volume', 'get', 'default', 'container/det-c1/s1', 'user.foo')).toBe('then\n');

    await client.run('restore', 'det-c1', 's1');

    expect(await noted()).toBe('then\n');
    const put = await daemon.call('PUT', `${path}/snapshots/s1`, { description: 'one' });
    expect(put.status).toBe(200);
    expect(await client.run('storage', 'volume', 'show', 'default', 'container/det-c1/s1')).toContain(
      'description: one',
    );
    expect((await daemon.call('GET', `${path}/snapshots?recursion=1`)).metadata).toMatchObject([
      { name: 'det-c1/s1', description: 'one', config: { 'user.foo': 'then' } },
    ]);
    const size = await daemon.call('PATCH', path, { config: { size: '1GiB' } });
    expect([size.status, size.error]).toEqual([400, 'Instance volume "size" property cannot be changed']);
    const odd = await daemon.call('PUT', path, { config: { nonsense: '1' } });
    expect([odd.status, odd.error]).toEqual([400, 'Invalid option for volume "det-c1" option "nonsense"']);
    expect((await daemon.call('PUT', `${path}x`, {})).status).toBe(404);
  });

  it('does not take configuration that would keep the instance from starting', async () => {
    const set = client.run('config', 'set', 'det-c1', 'raw.lxc', 'lxc.notaconfigkey=invalid');
    await expect(set).rejects.toThrow('unknown key lxc.notaconfigkey');
    const pool = client.run('config', 'device', 'override', 'det-c1', 'root', 'pool=bla');
    await expect(pool).rejects.toThrow('Cannot update root disk device pool name to "bla"');
  });
});
