// Custom volumes with the stock client, in running containers.
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const NAME = `cv${process.pid}`;

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'rsync'] }, 'custom volumes', () => {
  let daemon: TestDaemon;
  let work: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    work = join(daemon.root, 'work');
    await mkdir(join(work, 'conf'), { recursive: true });
    await daemon.addImage();
    await daemon.launch(NAME);
    await daemon.ready(NAME);
    await volume('create', 'default', 'v1', 'user.a=b');
    await volume('attach', 'default', 'v1', NAME, 'data', '/data');
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  async function lxc(...args: readonly string[]): Promise<string> {
    const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_DIR: daemon.root, LXD_CONF: join(work, 'conf') };
    const running = run('lxc', [...args], { env, cwd: work });
    running.child.stdin?.end();
    return (await running).stdout;
  }
  const volume = (...args: readonly string[]): Promise<string> => lxc('storage', 'volume', ...args);
  const sh = (script: string, name = NAME): Promise<string> => lxc('exec', name, '--', 'sh', '-c', script);

  it('come to a running container, which sees its own ids, and leave it', async () => {
    await sh('echo one > /data/f; chown 1000:1000 /data/f');

    expect(await sh('stat -c %u:%g /data /data/f')).toBe('0:0\n1000:1000\n');
    expect(await volume('show', 'default', 'v1')).toContain(`- /1.0/instances/${NAME}\n`);
    await expect(volume('delete', 'default', 'v1')).rejects.toThrow('The storage volume is still in use');
    await expect(volume('rename', 'default', 'v1', 'x')).rejects.toThrow('Volume is still in use');
    await expect(lxc('storage', 'delete', 'default')).rejects.toThrow('currently in use');
    await volume('detach', 'default', 'v1', NAME);
    expect(await sh('ls /data')).toBe('');
  });

  it('are the same for containers with other ids, at the same time', async () => {
    await daemon.launch(`${NAME}p`, { config: { 'security.privileged': 'true' } });
    await volume('attach', 'default', 'v1', NAME, 'data', '/data');
    await volume('attach', 'default', 'v1', `${NAME}p`, 'data', '/data');

    expect(await sh('stat -c %u /data/f', `${NAME}p`)).toBe('1000\n');
    await sh('echo p > /data/p', `${NAME}p`);
    expect(await sh('cat /data/p; stat -c %u /data/p; rm /data/p')).toBe('p\n0\n');
    await lxc('delete', '-f', `${NAME}p`);
  });

  it('have snapshots, which restore what was', async () => {
    await volume('snapshot', 'default', 'v1', 's0');
    await sh('echo two > /data/f');
    await volume('snapshot', 'default', 'v1');

    await expect(volume('restore', 'default', 'v1', 's0')).rejects.toThrow('used by running instances');
    await volume('detach', 'default', 'v1', NAME);
    await volume('restore', 'default', 'v1', 's0');
    await volume('attach', 'default', 'v1', NAME, 'data', '/data');
    expect(await sh('cat /data/f; stat -c %u /data/f')).toBe('one\n1000\n');
    await volume('rename', 'default', 'v1/snap0', 'v1/s1');
    const list = await volume('list', 'default', '--format', 'csv');
    expect(list).toContain('custom,v1,,filesystem,1\n');
    expect(list).toContain('custom (snapshot),v1/s1,,filesystem,1\n');
    expect(await volume('show', 'default', 'v1/s1')).toContain('user.a: b');
  });

  it('are copied and moved, in a pool and between pools', async () => {
    await lxc('storage', 'create', 'other', 'dir');
    await volume('copy', 'default/v1', 'default/v2');
    await volume('copy', 'default/v1/s1', 'other/v3');
    await volume('move', 'default/v2', 'other/v2');
    await volume('detach', 'default', 'v1', NAME);
    await volume('attach', 'other', 'v3', NAME, 'data', '/data');

    expect(await sh('cat /data/f; stat -c %u /data/f')).toBe('two\n1000\n');
    const list = await volume('list', 'other', '--format', 'csv');
    expect(list).toContain('custom (snapshot),v2/s0');
    expect(await volume('list', 'default', '--format', 'csv')).not.toContain('custom,v2');
    await volume('detach', 'other', 'v3', NAME);
    for (const name of ['v2', 'v3']) await volume('delete', 'other', name);
    await lxc('storage', 'delete', 'other');
  });

  it('are exported and imported', async () => {
    await volume('attach', 'default', 'v1', NAME, 'data', '/data');
    await sh('chown 5:6 /data; chmod 750 /data');
    await volume('detach', 'default', 'v1', NAME);
    await volume('set', 'default', 'v1', 'user.a=c');
    await volume('export', 'default', 'v1', 'v1.tar.gz', '-q');
    await volume('set', 'default', 'v1', 'user.a=b');
    await volume('import', 'default', 'v1.tar.gz', 'v7', '-q');
    expect(await volume('get', 'default', 'v7', 'user.a')).toBe('c\n');
    expect(await volume('get', 'default', 'v7/s1', 'user.a')).toBe('b\n');
    await volume('attach', 'default', 'v7', NAME, 'data', '/data');

    expect(await sh('cat /data/f; stat -c %u:%a /data /data/f')).toBe('one\n5:750\n1000:644\n');
    await volume('detach', 'default', 'v7', NAME);
    await volume('restore', 'default', 'v7', 's1');
    await volume('attach', 'default', 'v7', NAME, 'data', '/data');
    expect(await sh('cat /data/f')).toBe('two\n');
    await volume('detach', 'default', 'v7', NAME);
    await volume('delete', 'default', 'v7');
    expect(await readdir(join(daemon.root, 'backups/custom'))).toEqual([]);
  });

  it('are there after a restart of the daemon, and what was half-made is not', async () => {
    await volume('attach', 'default', 'v1', NAME, 'data', '/data');
    await daemon.kill();
    await daemon.boot();

    expect(await sh('cat /data/f')).toBe('one\n');
    await volume('detach', 'default', 'v1', NAME);
    await volume('rename', 'default', 'v1', 'v9');
    await volume('create', 'default', 'v1');
    await volume('delete', 'default', 'v1');
    await volume('delete', 'default', 'v9');
    expect(await readdir(join(daemon.root, 'storage-pools/default/custom'))).toEqual([]);
    expect(await readdir(join(daemon.root, 'storage-pools/default/custom-snapshots'))).toEqual([]);
  });

  it('are refused in LXD’s words', async () => {
    await volume('create', 'default', 'w');

    await expect(volume('create', 'default', 'w')).rejects.toThrow('Volume by that name already exists');
    await expect(volume('create', 'default', 'x', 'foo=bar')).rejects.toThrow(
      'Invalid option for volume "default_x" option "foo"',
    );
    await expect(volume('create', 'default', 'x', '--type', 'block')).rejects.toThrow('not supported');
    await expect(volume('show', 'default', 'nope')).rejects.toThrow('Storage pool volume not found');
    await expect(volume('copy', 'default/nope', 'default/x')).rejects.toThrow('Storage pool volume not found');
    await expect(volume('attach', 'default', 'nope', NAME, 'data', '/data')).rejects.toThrow('not found');
    await volume('delete', 'default', 'w');
  });
});
