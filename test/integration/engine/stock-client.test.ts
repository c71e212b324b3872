// The daemon driven by the stock `lxc` client, as its users do.
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { request } from 'node:http';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { makeBusyboxImage } from '../images.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const LIGHTERD = join(import.meta.dirname, '../../../bin/lighterd');

describeWith(
  { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'tar', 'xz'] },
  'lighterd and the stock client',
  () => {
    let daemon: TestDaemon;
    let work: string;

    beforeAll(async () => {
      daemon = await TestDaemon.start();
      work = join(daemon.root, 'work');
      await mkdir(join(work, 'conf'), { recursive: true });
    });
    afterAll(() => daemon[Symbol.asyncDispose]());

    /** Standard output of `lxc …`; rejects with what it complained about. */
    async function lxc(...args: readonly string[]): Promise<string> {
      const env = {
        PATH: process.env['PATH'] ?? '',
        HOME: work,
        LXD_DIR: daemon.root,
        LXD_CONF: join(work, 'conf'),
      };
      const running = run('lxc', args, { env, cwd: work });
      running.child.stdin?.end();
      return (await running).stdout;
    }

    const csv = async (...args: readonly string[]) => (await lxc(...args, '--format', 'csv')).trim().split('\n');

    it('shows the server, and a pool and profile that the first launch needs', async () => {
      const info = await lxc('info');

      expect(info).toContain('storage: overlay');
      expect(info).toContain('auth: trusted');
      expect(await csv('storage', 'list')).toEqual([expect.stringMatching(/^default,overlay,.*,1,CREATED$/u)]);
      expect(await lxc('profile', 'show', 'default')).toContain('pool: default');
      expect((await csv('network', 'list')).some((line) => line.includes(',NO,'))).toBe(true);
      expect(await lxc('info', '--resources')).toContain('Memory:');
      expect(await lxc('project', 'list')).toContain('default (current)');
      expect(await lxc('warning', 'list')).toContain('UUID');
    });

    it('imports, shows, renames and exports a unified image', async () => {
      await makeBusyboxImage(join(work, 'bb.tar.gz'));

      await lxc('image', 'import', 'bb.tar.gz', '--alias', 'bb', 'release=test1');

      expect(await csv('image', 'list')).toEqual([
        expect.stringMatching(/^bb,[0-9a-f]{12},no,busybox,x86_64,CONTAINER/u),
      ]);
      expect(await lxc('image', 'info', 'bb')).toContain('release: test1');
      expect(await csv('image', 'list', 'os=busybox')).toHaveLength(1);
      expect(await lxc('image', 'list', 'os=other', '--format', 'csv')).toBe('');
      await lxc('image', 'alias', 'rename', 'bb', 'b');
      await lxc('image', 'alias', 'rename', 'b', 'bb');
      await lxc('image', 'set-property', 'bb', 'note', 'hello');
      expect(await lxc('image', 'show', 'bb')).toContain('note: hello');
      await lxc('image', 'export', 'bb', 'out');
      await run('cmp', ['out.tar.gz', 'bb.tar.gz'], { cwd: work });
      await expect(lxc('image', 'import', 'bb.tar.gz')).rejects.toThrow('Image with same fingerprint already exists');
    });

    it('launches, lists, stops, starts and deletes instances, and knows who uses what', async () => {
      await lxc('launch', 'bb', 'c1');

      expect(await csv('list', '-c', 'ns')).toEqual(['c1,RUNNING']);
      expect(await lxc('info', 'c1')).toMatch(/Status: RUNNING[^]*PID: \d+/u);
      expect(await lxc('profile', 'show', 'default')).toContain('- /1.0/instances/c1');
      expect(await lxc('storage', 'info', 'default')).toMatch(/instances:\n\s+- c1/u);
      expect(await csv('storage', 'volume', 'list', 'default')).toEqual([
        expect.stringMatching(/^container,c1,/u),
        expect.stringMatching(/^image,[0-9a-f]{64},/u),
      ]);
      await expect(lxc('delete', 'c1')).rejects.toThrow('The instance is currently running');
      await expect(lxc('launch', 'bb', 'c1')).rejects.toThrow('already exists');
      await lxc('stop', 'c1', '--force');
      expect(await csv('list', '-c', 'ns')).toEqual(['c1,STOPPED']);
      await lxc('start', 'c1');
      await lxc('restart', 'c1', '--force');
      await lxc('delete', 'c1', '--force');
      expect(await lxc('list', '--format', 'csv')).toBe('');
    });

    it('launches from a split image', async () => {
      await mkdir(join(work, 'parts'));
      await run('tar', ['xzf', '../bb.tar.gz'], { cwd: join(work, 'parts') });
      await run('tar', ['cJf', 'meta.tar.xz', '-C', 'parts', 'metadata.yaml', 'templates'], { cwd: work });
      await run('tar', ['czf', 'root.tar.gz', '-C', 'parts/rootfs', '.'], { cwd: work });

      await lxc('image', 'import', 'meta.tar.xz', 'root.tar.gz', '--alias', 'split');
      await lxc('launch', 'split', 's1');

      expect(await csv('list', '-c', 'ns')).toEqual(['s1,RUNNING']);
      await mkdir(join(work, 'split-out'));
      await lxc('image', 'export', 'split', 'split-out');
      const [rootfs, metadata] = (await readdir(join(work, 'split-out'))).toSorted();
      expect(metadata).toMatch(/^meta-[0-9a-f]{64}\.tar\.xz$/u);
      await run('cmp', [join('split-out', rootfs ?? ''), 'root.tar.gz'], { cwd: work });
      await lxc('delete', '-f', 's1');
      await lxc('image', 'delete', 'split');
      expect(await csv('image', 'list')).toHaveLength(1);
    });

    it('makes, edits and deletes profiles', async () => {
      await lxc('profile', 'create', 'p1');
      await lxc('profile', 'set', 'p1', 'limits.memory', '64MiB');
      await lxc('profile', 'device', 'add', 'p1', 'eth0', 'none');
      await lxc('init', 'bb', 'c2', '-p', 'default', '-p', 'p1');

      expect(await lxc('config', 'show', 'c2', '--expanded')).toContain('limits.memory: 64MiB');
      expect(await csv('profile', 'list')).toEqual([expect.stringMatching(/^default,.*,1$/u), 'p1,,1']);
      await expect(lxc('profile', 'delete', 'p1')).rejects.toThrow('Profile is currently in use');
      await lxc('profile', 'rename', 'p1', 'p2');
      expect(await lxc('profile', 'show', 'p2')).toContain('- /1.0/instances/c2');
      await expect(lxc('profile', 'set', 'p2', 'limits.nope', '1')).rejects.toThrow('limits.nope');
      await lxc('delete', 'c2');
      await lxc('profile', 'delete', 'p2');
    });

    it('makes a second pool, launches into it, and deletes it when it is empty', async () => {
      await lxc('storage', 'create', 'p2', 'dir');
      await lxc('launch', 'bb', 'c3', '-s', 'p2');

      expect(await lxc('storage', 'show', 'p2')).toContain('- /1.0/instances/c3');
      await expect(lxc('storage', 'delete', 'p2')).rejects.toThrow('currently in use');
      await expect(lxc('storage', 'create', 'p3', 'nodriver')).rejects.toThrow('Unknown driver');
      await expect(lxc('storage', 'create', 'p3', 'dir', 'nope=1')).rejects.toThrow('Invalid option "nope"');
      await expect(lxc('network', 'create', 'br9', '--type=ovn')).rejects.toThrow(
        'Networks of type "ovn" are not supported by this server',
      );
      await lxc('delete', '-f', 'c3');
      await lxc('storage', 'delete', 'p2');
      expect(await readdir(join(daemon.root, 'storage-pools'))).toEqual(['default']);
    });

    it('trusts a remote client by password and by token', async () => {
      const probe = createServer().listen(0, '127.0.0.1');
      await once(probe, 'listening');
      const { port } = probe.address() as { port: number };
      probe.close();
      await lxc('config', 'set', 'core.https_address', `127.0.0.1:${port}`);
      await lxc('config', 'set', 'core.trust_password', 'right');

      await expect(
        lxc('remote', 'add', 'r', `127.0.0.1:${port}`, '--accept-certificate', '--password', 'wrong'),
      ).rejects.toThrow('not authorized');
      await lxc('remote', 'add', 'r', `127.0.0.1:${port}`, '--accept-certificate', '--password', 'right');
      expect(await csv('image', 'list', 'r:')).toHaveLength(1);
      const fingerprint = (await csv('config', 'trust', 'list'))[0]?.split(',')[3] ?? '';
      await lxc('config', 'trust', 'remove', fingerprint);
      await expect(lxc('list', 'r:')).rejects.toThrow('not authorized');
      await lxc('remote', 'remove', 'r');
      const token = (await lxc('config', 'trust', 'add', '--name', 'newcomer')).trim().split('\n').at(-1) ?? '';
      await lxc('remote', 'add', 'r', token, '--accept-certificate');
      expect((await csv('config', 'trust', 'list'))[0]).toContain('newcomer');
      await lxc('config', 'unset', 'core.https_address');
    });

    it('is the only one on its directory', async () => {
      const second = run(LIGHTERD, [], { env: { PATH: process.env['PATH'] ?? '', LIGHTER_DIR: daemon.root } });

      await expect(second).rejects.toThrow('another daemon is running');

      expect(await lxc('list', '--format', 'csv')).toBe('');
    });

    it.each(['SIGTERM', 'SIGKILL'] as const)('comes back after %s with its containers untouched', async (signal) => {
      await lxc('launch', 'bb', 'alive');
      const pid = async () => /PID: (\d+)/u.exec(await lxc('info', 'alive'))?.[1];
      const before = await pid();

      await daemon.kill(signal);
      expect((await readFile(`/proc/${before}/comm`, 'utf8')).trim()).not.toBe('');
      await daemon.boot();

      expect(await pid()).toBe(before);
      await lxc('delete', '-f', 'alive');
    });

    it('leaves nothing of an upload in which it was killed', async () => {
      const images = join(daemon.root, 'images');
      const before = await readdir(images);
      const upload = request({ socketPath: daemon.socketPath, path: '/1.0/images', method: 'POST' });
      upload.setHeader('content-type', 'application/octet-stream');
      upload.on('error', () => undefined);
      upload.write(await readFile(join(work, 'bb.tar.gz')));
      await delay(300);
      expect((await readdir(images)).length).toBe(before.length + 1);

      await daemon.kill();
      await daemon.boot();

      expect(await readdir(images)).toEqual(before);
      upload.destroy();
    });

    it('tells monitors what happens', async () => {
      const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_DIR: daemon.root, LXD_CONF: join(work, 'conf') };
      const monitor = run('timeout', ['3', 'lxc', 'monitor', '--type=lifecycle'], { env }).catch(
        (error: unknown) => error,
      );
      await delay(700);

      await lxc('profile', 'create', 'seen');
      await lxc('profile', 'delete', 'seen');

      const { stdout } = (await monitor) as { stdout: string };
      expect(stdout).toContain('action: profile-created');
      expect(stdout).toContain('source: /1.0/profiles/seen');
    });
  },
);
