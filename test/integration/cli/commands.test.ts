// lighter on real engines: what its commands change there, and the way to another engine.
import { chmod, lstat, mkdir, readFile, readlink, symlink, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { InProcess } from './in-process.ts';

const NAME = `cc${process.pid}`;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'tar', 'cmp'] }, 'lighter changes', () => {
  let daemon: TestDaemon;
  let own: InProcess;
  let work: string;
  const lighter = (...args: readonly string[]): Promise<string> => own.run(...args);
  const csv = async (...args: readonly string[]) => (await lighter(...args, '-f', 'csv')).trim().split('\n');

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    own = new InProcess(daemon);
    work = join(daemon.root, 'work');
    await mkdir(join(work, 'tree/sub'), { recursive: true });
    await daemon.addImage();
    await lighter('launch', 'bb', NAME, '-c', 'user.a=b');
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  it('init: a preseed document is applied once, and undone when a part of it fails', async () => {
    const document = `
storage_pools: [{name: seeded, driver: dir}]
profiles:
- {name: seeded, config: {limits.memory: 64MB}, devices: {root: {type: disk, path: /, pool: seeded}}}`;
    const preseed = async (text: string) => own.ends(['init', '--preseed'], text);

    expect((await preseed(document)).out).toBe('Storage pool seeded created\nProfile seeded created\n');
    expect(await preseed(document)).toEqual({ code: 0, out: '', err: '' });
    const dump = await lighter('init', '--dump');
    expect(await preseed(dump)).toMatchObject({ code: 0, err: '' });
    const failed = await preseed(`
config: {images.auto_update_interval: 15}
storage_pools: [{name: undone, driver: dir}]
profiles:
- {name: seeded, description: changed}
- {name: bad, config: {nonsense: 1}}`);
    expect(failed).toMatchObject({ code: 1, err: expect.stringContaining('nonsense') as string });
    expect(await lighter('init', '--dump')).toBe(dump);
    await lighter('profile', 'delete', 'seeded');
    await lighter('storage', 'delete', 'seeded');
  });

  it('files: trees go in and come out as they are', async () => {
    await writeFile(join(work, 'tree/a'), 'one\n');
    await writeFile(join(work, 'tree/sub/b'), 'two\n');
    await symlink('a', join(work, 'tree/l'));
    await chmod(join(work, 'tree/a'), 0o640);
    await chmod(join(work, 'tree/sub'), 0o750);

    await lighter('file', 'push', '-r', '-p', join(work, 'tree'), `${NAME}/srv/deep`);
    await lighter('file', 'pull', '-r', '-p', `${NAME}/srv/deep/tree`, join(work, 'back'));

    expect(await readFile(join(work, 'back/tree/sub/b'), 'utf8')).toBe('two\n');
    expect((await lstat(join(work, 'back/tree/a'))).mode & 0o777).toBe(0o640);
    expect((await lstat(join(work, 'back/tree/sub'))).mode & 0o777).toBe(0o750);
    expect(await readlink(join(work, 'back/tree/l'))).toMatch(/a$/u);
    expect(await lighter('file', 'pull', `${NAME}/srv/deep/tree/l`, '-')).toBe('one\n');
    expect((await own.ends(['file', 'pull', `${NAME}/srv/deep`, work])).err).toContain('--recursive pulls it');
  });

  it('files: owners, modes, standard input, an editor, directories', async () => {
    await own.given('hello\n', 'file', 'push', '-', `${NAME}/root/f`, '--uid', '5', '--gid', '6', '--mode', '600');
    await lighter('file', 'mkdir', '-p', `${NAME}/root/x/y`, '--mode', '0700');
    await own.given('changed\n', 'file', 'edit', `${NAME}/root/f`);
    const edited = await own.ends(['file', 'edit', `${NAME}/root/new`], undefined, (file) =>
      writeFile(file, 'typed\n'),
    );

    expect(edited).toMatchObject({ code: 0, err: '' });
    expect(
      await lighter(
        'exec',
        NAME,
        '-n',
        '--',
        'sh',
        '-c',
        'cat /root/f /root/new; stat -c "%a %u %g" /root/f /root/x/y',
      ),
    ).toBe('changed\ntyped\n600 5 6\n700 0 0\n');
    await lighter('file', 'delete', `${NAME}/root/f`, `${NAME}/root/new`);
    expect((await own.ends(['file', 'pull', `${NAME}/root/f`, '-'])).err).toBe('Error: Not Found\n');
  });

  it('config: keys, whole configurations, devices', async () => {
    await lighter('config', 'set', NAME, 'user.x=1', 'user.y=2');
    await own.given('line\nline\n', 'config', 'set', NAME, 'user.text', '-');
    await lighter('config', 'unset', NAME, 'user.x');
    const shown = await lighter('config', 'show', NAME);
    await own.given(shown.replace('user.y: "2"', 'user.y: 0644'), 'config', 'edit', NAME);
    await writeFile(join(work, 'note'), 'seen\n', { mode: 0o644 });
    await lighter('config', 'device', 'override', NAME, 'root', 'size=100MiB');
    await lighter('config', 'device', 'add', NAME, 'tmp', 'disk', `source=${work}`, 'path=/mnt');
    await lighter('config', 'device', 'set', NAME, 'tmp', 'readonly=true');

    expect(await lighter('config', 'get', NAME, 'user.y')).toBe('0644\n');
    expect(await lighter('config', 'get', NAME, 'user.text')).toBe('line\nline\n\n');
    expect(await lighter('config', 'device', 'list', NAME)).toBe('root\ntmp\n');
    expect(await lighter('exec', NAME, '-n', '--', 'cat', '/mnt/note')).toBe('seen\n');
    await lighter('config', 'device', 'remove', NAME, 'tmp');
    expect(await lighter('config', 'device', 'show', NAME)).toBe(
      'root:\n  path: /\n  pool: default\n  size: 100MiB\n  type: disk\n',
    );
  });

  it('an editor that makes a mistake opens again', async () => {
    const said = await own.ends(['profile', 'edit', 'default'], undefined, (file) => writeFile(file, 'a: [\n'));

    expect(said.err).toContain('Not YAML');
    expect(said.err).toContain('Press enter to open the editor again');
  });

  it('profiles: made, given to instances, copied, renamed, removed', async () => {
    await lighter('profile', 'create', 'p1');
    await lighter('profile', 'set', 'p1', 'limits.processes=100');
    await lighter('profile', 'device', 'add', 'p1', 'none', 'none');
    await lighter('profile', 'add', NAME, 'p1');
    await lighter('profile', 'copy', 'p1', 'p2');
    await lighter('profile', 'rename', 'p2', 'p3');

    expect(await lighter('config', 'get', NAME, 'limits.processes', '--expanded')).toBe('100\n');
    expect(await csv('profile', 'list')).toEqual([expect.stringContaining('default'), 'p1,,1', 'p3,,0']);
    await lighter('profile', 'assign', NAME, 'default');
    await lighter('profile', 'delete', 'p1');
    await lighter('profile', 'delete', 'p3');
  });

  it('volumes: made, attached, snapshotted, restored, copied, exported, imported, renamed, removed', async () => {
    await lighter('storage', 'volume', 'create', 'default', 'data', 'user.k=v');
    await lighter('storage', 'volume', 'attach', 'default', 'data', NAME, '/data');
    await lighter('exec', NAME, '-n', '--', 'sh', '-c', 'echo kept > /data/f');
    await lighter('storage', 'volume', 'snapshot', 'default', 'data', 's0');
    await lighter('exec', NAME, '-n', '--', 'rm', '/data/f');
    await lighter('storage', 'volume', 'detach', 'default', 'data', NAME);
    await lighter('storage', 'volume', 'restore', 'default', 'data', 's0');
    await lighter('storage', 'volume', 'copy', 'default/data', 'default/copy', '--volume-only');
    await lighter('storage', 'volume', 'export', 'default', 'data', join(work, 'v.tar'), '--compression', 'none');
    await lighter('storage', 'volume', 'import', 'default', join(work, 'v.tar'), 'back');
    await lighter('storage', 'volume', 'rename', 'default', 'back', 'moved');
    await lighter('storage', 'volume', 'rename', 'default', 'moved/s0', 'moved/first');
    await lighter('storage', 'volume', 'attach', 'default', 'moved', NAME, 'disk1', '/data');

    expect(await lighter('exec', NAME, '-n', '--', 'cat', '/data/f')).toBe('kept\n');
    expect(await csv('storage', 'volume', 'list', 'default', 'type=custom', '-c', 'tn')).toEqual([
      'custom,copy',
      'custom,data',
      'custom (snapshot),data/s0',
      'custom,moved',
      'custom (snapshot),moved/first',
    ]);
    expect(await lighter('storage', 'volume', 'info', 'default', 'moved')).toMatch(
      /Name: moved[^]*Content type: filesystem[^]*first/u,
    );
    expect(await lighter('storage', 'volume', 'get', 'default', 'moved', 'user.k')).toBe('v\n');
    await lighter('storage', 'volume', 'detach', 'default', 'moved', NAME);
    for (const name of ['copy', 'data', 'moved']) await lighter('storage', 'volume', 'delete', 'default', name);
  });

  it('pools and projects', async () => {
    await lighter('storage', 'create', 'second', 'dir', 'user.a=b');
    await lighter('storage', 'unset', 'second', 'user.a');
    await lighter('storage', 'delete', 'second');
    await lighter('project', 'create', 'team', '-c', 'features.images=false', '-c', 'features.profiles=false');
    await lighter('project', 'switch', 'team');
    expect(await lighter('list', '-f', 'csv')).toBe('');
    expect(await lighter('list', '-f', 'csv', '-c', 'n', '--project', 'default')).toBe(`${NAME}\n`);
    await lighter('copy', NAME, `${NAME}t`, '--project', 'default', '--target-project', 'team', '--instance-only');
    expect(await lighter('list', '-f', 'csv', '-c', 'n')).toBe(`${NAME}t\n`);
    await lighter('delete', `${NAME}t`);
    await lighter('project', 'switch', 'default');
    await lighter('project', 'rename', 'team', 'crew');
    await lighter('project', 'delete', 'crew');
    expect(await csv('project', 'list')).toHaveLength(1);
  });

  it('images: edited, exported byte by byte', async () => {
    const shown = await lighter('image', 'show', 'bb');
    await own.given(shown.replace('os: busybox', 'os: other'), 'image', 'edit', 'bb');
    await lighter('image', 'export', 'bb', join(work, 'out'));

    expect(await lighter('image', 'get-property', 'bb', 'os')).toBe('other\n');
    await run('cmp', [join(work, 'out.tar.gz'), join(daemon.root, 'busybox.tar.gz')]);
  });

  it('operations, warnings, aliases', async () => {
    expect(await lighter('operation', 'list')).toContain('DESCRIPTION');
    expect((await own.ends(['operation', 'delete', 'none'])).code).toBe(1);
    expect(await lighter('warning', 'list', '--all', '-f', 'json')).toMatch(/^\[/u);
    await lighter('alias', 'add', 'names', 'list -f csv -c n');
    await lighter('alias', 'add', 'say', 'exec @1@ -n -- echo @ARGS@ end');
    expect(await lighter('names')).toBe(`${NAME}\n`);
    expect(await lighter('say', NAME, 'one', 'two')).toBe('one two end\n');
    await lighter('alias', 'rename', 'names', 'ids');
    await lighter('alias', 'remove', 'ids');
    expect((await own.ends(['names'])).err).toContain("unknown command 'names'");
  });

  describe('on another engine', () => {
    let other: TestDaemon;

    beforeAll(async () => {
      other = await TestDaemon.start();
      const far = new InProcess(other);
      await far.run('config', 'set', `core.https_address=127.0.0.1:${await freePort()}`);
      await lighter('config', 'set', `core.https_address=127.0.0.1:${await freePort()}`);
      const token = (await far.run('config', 'trust', 'add', '--name', 'me')).trim().split('\n').at(-1) ?? '';
      expect(await far.run('config', 'trust', 'list-tokens')).toContain(token);
      await lighter('remote', 'add', 'other', token);
    });
    afterAll(() => other[Symbol.asyncDispose]());

    it('is trusted by a token, once', async () => {
      expect(await csv('config', 'trust', 'list', 'other:')).toEqual([expect.stringMatching(/^client,me,/u)]);
      expect(await lighter('config', 'trust', 'list-tokens', 'other:', '-f', 'csv')).toBe('');
    });

    it('shares the directory of lxc', async () => {
      const stock = await StockClient.for(daemon);
      const conf = join(daemon.root, 'own-conf');
      const { stdout } = await run('lxc', ['remote', 'list', '-f', 'csv'], {
        env: { ...process.env, LXD_CONF: conf, HOME: stock.work },
      });
      const { stdout: listed } = await run('lxc', ['list', 'other:'], {
        env: { ...process.env, LXD_CONF: conf, HOME: stock.work },
      });

      expect(stdout).toContain('other,https://127.0.0.1:');
      expect(listed).toContain('NAME');
    });

    it('takes images and instances, runs programs and gives instances back', async () => {
      await lighter('image', 'copy', 'bb', 'other:', '--copy-aliases');
      expect(await csv('image', 'list', 'other:', '-c', 'l')).toEqual(['bb']);
      await lighter('stop', '-f', NAME);
      await lighter('copy', NAME, `other:${NAME}f`);
      await lighter('start', `other:${NAME}f`);
      expect(await lighter('exec', `other:${NAME}f`, '-n', '--', 'hostname')).toBe(`${NAME}f\n`);
      expect((await own.ends(['move', `other:${NAME}f`, `local:${NAME}b`])).err).toContain('stop it first');
      await lighter('stop', '-f', `other:${NAME}f`);
      await lighter('move', `other:${NAME}f`, `local:${NAME}b`);
      expect(await lighter('config', 'get', `${NAME}b`, 'user.a')).toBe('b\n');
      expect(await lighter('list', 'other:', '-f', 'csv')).toBe('');
      await lighter('remote', 'rename', 'other', 'far');
      await lighter('remote', 'remove', 'far');
      expect((await own.ends(['list', 'far:'])).err).toBe('Error: The remote "far" doesn\'t exist\n');
    });
  });
});
