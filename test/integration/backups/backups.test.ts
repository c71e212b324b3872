// Backups of instances with the stock client, to and from the real LXD, and tarballs that mean harm.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const LIGHTER = join(import.meta.dirname, '../../../bin/lighter');
const NAME = `bk${process.pid}`;

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'tar'] }, 'backups of instances', () => {
  let daemon: TestDaemon;
  let work: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    work = join(daemon.root, 'work');
    await mkdir(join(work, 'conf'), { recursive: true });
    await daemon.addImage();
    await daemon.launch(NAME, { config: { 'user.note': 'kept' } });
    await daemon.ready(NAME);
    const script =
      'echo hi > /root/f; ln /root/f /root/g; chown 1000:1000 /root/f; truncate -s 8M /root/sparse; ln -s /nowhere /root/l';
    await lxc('exec', NAME, '--', 'sh', '-c', script);
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  async function client(directory: string, ...args: readonly string[]): Promise<string> {
    const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_DIR: directory, LXD_CONF: join(work, 'conf') };
    const running = run('lxc', [...args], { env, cwd: work });
    running.child.stdin?.end();
    return (await running).stdout;
  }
  const lxc = (...args: readonly string[]): Promise<string> => client(daemon.root, ...args);
  const inside = (name: string): Promise<string> => {
    return lxc(
      'exec',
      name,
      '--',
      'sh',
      '-c',
      'stat -c "%n %u %h %s" /root/f /root/sparse; cat /root/g; readlink /root/l; du /root/sparse',
    );
  };

  it('exports a running instance, and imports it under another name', async () => {
    await lxc('export', NAME, 'one.tar.gz', '-q');
    await lxc('import', 'one.tar.gz', `${NAME}b`, '-q');
    await lxc('start', `${NAME}b`);

    expect(await inside(`${NAME}b`)).toBe(
      '/root/f 1000 2 3\n/root/sparse 0 1 8388608\nhi\n/nowhere\n0\t/root/sparse\n',
    );
    expect(await lxc('config', 'get', `${NAME}b`, 'user.note')).toBe('kept\n');
    const { stdout } = await run('tar', ['-tf', join(work, 'one.tar.gz')]);
    expect(stdout.split('\n')[0]).toBe('backup/index.yaml');
    expect(stdout).toContain('backup/container/backup.yaml\n');
    await expect(lxc('import', 'one.tar.gz', '-q')).rejects.toThrow(`Instance "${NAME}" already exists`);
    // Nothing is left of what was fetched.
    expect(await readdir(join(daemon.root, 'backups/instances'))).toEqual([]);
    await lxc('delete', '-f', `${NAME}b`);
  });

  it('takes snapshots along, unless it is told not to', async () => {
    const root = `container/${NAME}`;
    await lxc('storage', 'volume', 'set', 'default', root, 'user.state', 'zero');
    await lxc('snapshot', NAME, 's0');
    await lxc('storage', 'volume', 'set', 'default', root, 'user.state', 'later');
    await lxc('exec', NAME, '--', 'sh', '-c', 'echo two > /root/only-later; rm /root/sparse');
    await lxc('snapshot', NAME, 's1');
    await lxc('exec', NAME, '--', 'rm', '/root/only-later');
    await lxc('export', NAME, 'snapshots.tar', '--compression', 'none', '-q');
    await lxc('export', NAME, 'without.tar', '--instance-only', '--compression', 'none', '-q');

    const { stdout } = await run('tar', ['-tf', join(work, 'snapshots.tar')]);
    expect(stdout).toContain('backup/snapshots/s1/rootfs/root/only-later\n');
    expect((await run('tar', ['-tf', join(work, 'without.tar')])).stdout).not.toContain('backup/snapshots');
    await lxc('import', 'snapshots.tar', `${NAME}s`, '-q');
    expect(await lxc('query', `/1.0/instances/${NAME}s/snapshots`)).toContain(`/${NAME}s/snapshots/s1`);
    const note = (of: string) => lxc('storage', 'volume', 'get', 'default', `container/${NAME}s${of}`, 'user.state');
    expect([await note(''), await note('/s0'), await note('/s1')]).toEqual(['later\n', 'zero\n', 'later\n']);
    const look = async () => {
      await lxc('start', `${NAME}s`);
      const seen = await lxc('exec', `${NAME}s`, '--', 'sh', '-c', 'ls /root; stat -c %u /root/f');
      await lxc('stop', '-f', `${NAME}s`);
      return seen;
    };
    expect(await look()).toBe('f\ng\nl\n1000\n');
    await lxc('restore', `${NAME}s`, 's0');
    expect(await look()).toBe('f\ng\nl\nsparse\n1000\n');
    await lxc('restore', `${NAME}s`, 's1');
    expect(await look()).toBe('f\ng\nl\nonly-later\n1000\n');
    await lxc('delete', `${NAME}s`);
  });

  it('streams a backup that it keeps nowhere, for lighter', async () => {
    const env = { ...process.env, LIGHTER_DIR: daemon.root };
    await run(LIGHTER, ['export', NAME, join(work, 'two.tar'), '--compression', 'none'], { env });
    await run(LIGHTER, ['import', join(work, 'two.tar'), `${NAME}c`], { env });

    expect(await lxc('config', 'get', `${NAME}c`, 'user.note')).toBe('kept\n');
    await lxc('delete', `${NAME}c`);
  });

  it('keeps, renames, expires and removes backups; they follow the instance', async () => {
    const path = `/1.0/instances/${NAME}d/backups`;
    await lxc('init', 'bb', `${NAME}d`, '-q');
    await daemon.operate('POST', path, { name: 'b0' });
    await daemon.operate('POST', `${path}/b0`, { name: 'b1' });
    await daemon.operate('POST', path, { expires_at: '2020-01-01T00:00:00Z' });

    await expect(daemon.operate('POST', path, { name: 'b1' })).rejects.toThrow(
      `Create backup: Backup "${NAME}d/b1" already exists`,
    );
    expect((await daemon.call('GET', `${path}/b0`)).error).toBe('Load backup from database: Instance backup not found');
    expect((await daemon.call('POST', path, { name: 'a/b' })).error).toBe('Backup names may not contain slashes');
    await daemon.kill();
    await daemon.boot();
    expect((await daemon.call('GET', path)).metadata).toEqual([`${path}/b1`]);
    await lxc('rename', `${NAME}d`, `${NAME}e`);
    const { headers, text } = await daemon.call('GET', `/1.0/instances/${NAME}e/backups/b1/export`);
    expect(headers['content-type']).toBe('application/octet-stream');
    expect(text.length).toBeGreaterThan(100_000);
    await lxc('delete', `${NAME}e`);
    expect(await readdir(join(daemon.root, 'backups/instances'))).toEqual([]);
  });

  it('refuses tarballs that are none of its own, and keeps nothing of them', async () => {
    const index = (container: object) => JSON.stringify({ name: 'evil', pool: 'default', config: { container } });
    const make = async (file: string, indexText: string, fill: (content: string) => Promise<void>): Promise<void> => {
      const tree = await mkdtemp(join(tmpdir(), 'lighter-evil-'));
      await mkdir(join(tree, 'backup/container'), { recursive: true });
      await writeFile(join(tree, 'backup/index.yaml'), indexText);
      await fill(join(tree, 'backup/container'));
      execFileSync('tar', ['-C', tree, '-cf', join(work, file), 'backup/index.yaml', 'backup/container']);
      await rm(tree, { recursive: true });
    };
    const root = (content: string) => mkdir(join(content, 'rootfs')).then(() => undefined);
    await writeFile(join(work, 'garbage'), 'garbage');
    await make('shape.tar', index({ config: { a: { b: 'c' } } }), root);
    await make('key.tar', index({ config: { 'limits.nope': '1' } }), root);
    await make('link.tar', index({}), async (content) => {
      await symlink('/etc', join(content, 'rootfs'));
    });
    await make('rootless.tar', index({}), async () => undefined);
    await make('staging.tar', index({}), async (content) => {
      await mkdir(join(content, 'rootfs/.lighter-import'), { recursive: true });
    });
    await make('metadata.tar', index({}), async (content) => {
      await root(content);
      await symlink('/etc/shadow', join(content, 'metadata.yaml'));
      await symlink('/etc', join(content, 'templates'));
    });

    await expect(lxc('import', 'garbage', '-q')).rejects.toThrow('not an archive');
    await expect(lxc('import', 'shape.tar', '-q')).rejects.toThrow('Backup is not valid');
    await expect(lxc('import', 'key.tar', '-q')).rejects.toThrow('Unknown configuration key: limits.nope');
    await expect(lxc('import', 'link.tar', '-q')).rejects.toThrow('no root file system');
    await expect(lxc('import', 'rootless.tar', '-q')).rejects.toThrow();
    await expect(lxc('import', 'staging.tar', '-q')).rejects.toThrow('.lighter-import');
    await expect(lxc('import', 'one.tar.gz', 'x', '-s', 'nope', '-q')).rejects.toThrow('Storage pool not found');
    expect(await lxc('list', '^evil$', '--format', 'csv')).toBe('');
    expect(await readdir(join(daemon.root, 'backups/instances'))).toEqual([]);
    expect(await readdir(join(daemon.root, 'containers'))).toEqual([NAME]);
    // Links beside the root are left out: what they lead to is the host's.
    await lxc('import', 'metadata.tar', '-q');
    expect(await readdir(join(daemon.root, 'instances/evil'))).toEqual([]);
    await lxc('delete', 'evil');
  });

  describeWith({ root: true, commands: ['lxd'] }, 'and LXD', () => {
    let lxd: ChildProcess;
    let directory: string;

    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), 'lxd-'));
      const env = { ...process.env, LXD_DIR: directory };
      lxd = spawn('lxd', ['--logfile', join(directory, 'lxd.log')], { env, stdio: 'ignore' });
      await run('lxd', ['waitready', '--timeout=60'], { env });
      await client(directory, 'storage', 'create', 'default', 'dir');
      await client(directory, 'profile', 'device', 'add', 'default', 'root', 'disk', 'path=/', 'pool=default');
    }, 90_000);
    afterAll(async () => {
      lxd.kill('SIGTERM');
      await new Promise((resolve) => lxd.once('exit', resolve));
      const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' ')[1] ?? '');
      for (const mount of mounts.filter((path) => path.startsWith(`${directory}/`)).toReversed())
        await run('umount', ['-l', mount]);
      await rm(directory, { recursive: true, force: true });
    });

    it('take each other’s', async () => {
      await client(directory, 'import', 'snapshots.tar', `${NAME}l`, '-q');
      expect(await client(directory, 'query', `/1.0/instances/${NAME}l/snapshots`)).toContain('snapshots/s1');
      const file = join(directory, 'storage-pools/default/containers', `${NAME}l`, 'rootfs/root/f');
      expect((await stat(file)).nlink).toBe(2);
      expect(await client(directory, 'config', 'get', `${NAME}l`, 'user.note')).toBe('kept\n');
      await client(directory, 'export', `${NAME}l`, 'lxd.tar.gz', '-q');
      await client(directory, 'delete', `${NAME}l`);

      await lxc('import', 'lxd.tar.gz', '-q');
      await lxc('restore', `${NAME}l`, 's0');
      await lxc('start', `${NAME}l`);
      expect(await inside(`${NAME}l`)).toContain('/root/f 1000 2 3\n');
      await lxc('delete', '-f', `${NAME}l`);
    }, 60_000);
  });
});
