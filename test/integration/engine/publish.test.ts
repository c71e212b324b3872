// Images made of instances with the stock client, and instances made of those.
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

describeWith(
  {
    root: true,
    commands: ['lxc', 'lxc-start', 'busybox', 'tar', 'xz', 'bzip2', 'zstd', 'mksquashfs', 'setfattr', 'setcap'],
  },
  'lxc publish',
  () => {
    let daemon: TestDaemon;
    let work: string;

    async function lxc(...args: readonly string[]): Promise<string> {
      const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_DIR: daemon.root, LXD_CONF: join(work, 'conf') };
      const running = run('lxc', args, { env, cwd: work });
      running.child.stdin?.end();
      return (await running).stdout;
    }

    /** Where the root of a running instance is seen from here. */
    async function rootOf(name: string): Promise<string> {
      return `/proc/${await pidOf(name)}/root`;
    }

    beforeAll(async () => {
      daemon = await TestDaemon.start();
      work = join(daemon.root, 'work');
      await mkdir(join(work, 'conf'), { recursive: true });
      await daemon.addImage();
      await daemon.launch('c1');
      const root = await rootOf('c1');
      // As the guest would do it: ids of its own, a capability, an attribute, two names of one file, a hole.
      const script = `set -e
        cd ${root}/home/user
        echo mine >owned && chown 1234:100 owned
        cp /bin/true capable && setcap cap_net_raw+ep capable
        ln owned twin
        ln -s ../../../../etc/hostname link
        truncate -s 64M hole
        mknod fifo p
        setfattr -n user.note -v hello owned`;
      await inside('c1', 'sh', '-c', script);
      await lxc('stop', '-f', 'c1');
    });
    afterAll(() => daemon[Symbol.asyncDispose]());

    /** Runs a program of this machine with the ids of the guest's root. */
    async function inside(name: string, ...argv: readonly string[]): Promise<string> {
      return (await run('nsenter', ['-U', '-S', '0', '-G', '0', '-t', (await pidOf(name)) ?? '', ...argv])).stdout;
    }

    const pidOf = async (name: string) => /PID: (\d+)/u.exec(await lxc('info', name))?.[1];

    async function listing(fingerprint: string): Promise<string> {
      const file = join(daemon.root, 'images', fingerprint);
      return (await run('tar', ['tvf', file, '--numeric-owner', '--full-time'])).stdout;
    }

    it('packs the guest with the ids it has inside, and launches from that', async () => {
      await lxc('publish', 'c1', '--alias', 'pub', 'note=made here', '--public');

      const { fingerprint, metadata } = await image('pub');
      expect(metadata).toMatchObject({
        public: true,
        architecture: expect.any(String),
        properties: { note: 'made here' },
      });
      const files = await listing(fingerprint);
      expect(files).toMatch(/^-.* 1234\/100 .* rootfs\/home\/user\/(owned|twin)$/mu);
      expect(files).toMatch(/^h.* rootfs\/home\/user\/(owned|twin) link to rootfs\/home\/user\/(owned|twin)$/mu);
      expect(files).toMatch(/link -> \.\.\/\.\.\/\.\.\/\.\.\/etc\/hostname$/mu);
      expect(files).toMatch(/ templates\/hostname\.tpl$/mu);
      await lxc('launch', 'pub', 'c2');
      const root = `${await rootOf('c2')}/home/user`;
      expect(await inside('c2', 'stat', '-c', '%u:%g %h', `${root}/owned`)).toBe('1234:100 2\n');
      expect(await inside('c2', 'getfattr', '-n', 'user.note', '--only-values', `${root}/owned`)).toBe('hello');
      expect(await inside('c2', 'getcap', `${root}/capable`)).toContain('cap_net_raw=ep');
      expect(Number(await inside('c2', 'stat', '-c', '%b', `${root}/hole`))).toBeLessThan(1000);
      expect(await lxc('config', 'show', 'c2')).toContain('image.note: made here');
      await lxc('delete', '-f', 'c2');
    });

    async function image(alias: string) {
      const { metadata: found } = await daemon.call('GET', `/1.0/images/aliases/${alias}`);
      const { metadata } = await daemon.call('GET', `/1.0/images/${found.target}`);
      return { fingerprint: found.target as string, metadata };
    }

    it.each([
      ['none', 'ustar'],
      ['bzip2', 'BZh'],
      ['gzip --rsyncable', '\u001f'],
      ['xz -1', '7zXZ'],
      ['zstd -1', '\ufffd/'],
      ['squashfs -comp zstd', 'hsqs'],
    ])('compresses with %s what can be launched again', async (compression, magic) => {
      await lxc('publish', 'c1', '--alias', 'comp', '--compression', compression, `as=${compression}`);

      const { fingerprint } = await image('comp');
      const head = (await readFile(join(daemon.root, 'images', fingerprint))).subarray(0, 300).toString();
      expect(head).toContain(magic);
      await lxc('init', 'comp', 'again');
      expect(await lxc('config', 'get', 'again', 'image.as')).toBe(`${compression}\n`);
      await lxc('delete', 'again');
      await lxc('image', 'delete', 'comp');
    });

    it('packs a snapshot, as it was, while its instance runs', async () => {
      await daemon.launch('c4');
      await inside('c4', 'sh', '-c', `echo before >${await rootOf('c4')}/root/state`);
      await lxc('snapshot', 'c4', 's0');
      await inside('c4', 'sh', '-c', `echo after >${await rootOf('c4')}/root/state`);

      await lxc('publish', 'c4/s0', '--alias', 'snap');

      const { fingerprint } = await image('snap');
      const file = join(daemon.root, 'images', fingerprint);
      expect((await run('tar', ['xOf', file, 'rootfs/root/state'])).stdout).toBe('before\n');
      expect(await listing(fingerprint)).toMatch(/ 0\/0 .* rootfs\/root\/state$/mu);
      await lxc('launch', 'snap', 'c5');
      await expect(lxc('publish', 'c4/none')).rejects.toThrow('InstanceSnapshot not found');
      await lxc('delete', '-f', 'c4', 'c5');
      await lxc('image', 'delete', 'snap');
    });

    it('deletes an image from a project that shares the images of the default one', async () => {
      await lxc('project', 'create', 'sharing', '-c', 'features.images=false');
      await lxc('publish', 'c1', '--alias', 'shared', 'for=all');

      await lxc('image', 'delete', 'shared', '--project', 'sharing');

      expect(await lxc('image', 'list', '-f', 'csv', '-c', 'l')).not.toContain('shared');
      await lxc('project', 'delete', 'sharing');
    });

    it('is what our own client does as well', async () => {
      const lighter = async (...args: readonly string[]) => {
        const env = { PATH: process.env['PATH'] ?? '', LIGHTER_DIR: daemon.root };
        return (await run(join(import.meta.dirname, '../../../bin/lighter'), args, { env })).stdout;
      };
      await daemon.launch('c3');

      await expect(lighter('publish', 'c3')).rejects.toThrow('currently running');
      expect(await lighter('publish', 'c3', '--force', '--alias', 'own', 'a=b')).toMatch(/fingerprint: [0-9a-f]{64}/u);

      expect(await daemon.status('c3')).toBe('Running');
      await lighter('image', 'set-property', 'own', 'c', 'd');
      await lighter('image', 'unset-property', 'own', 'a');
      expect(await lighter('image', 'get-property', 'own', 'c')).toBe('d\n');
      expect(await lighter('image', 'show', 'own')).toMatch(/properties:\n {2}c: d\n/u);
      await expect(lighter('image', 'refresh', 'own')).rejects.toThrow('Image source not found');
      await lighter('image', 'delete', 'own');
      await lxc('delete', '-f', 'c3');
    });

    it('refuses what it cannot or must not pack, and leaves nothing', async () => {
      const before = (await readdir(join(daemon.root, 'images'))).toSorted();
      await daemon.launch('running');
      const source = { type: 'container', name: 'running' };

      await expect(daemon.operate('POST', '/1.0/images', { source })).rejects.toThrow(
        'Cannot export a running instance as an image',
      );
      await expect(daemon.operate('POST', '/1.0/images', { source: { ...source, name: 'nobody' } })).rejects.toThrow(
        'Instance not found',
      );
      for (const compression of ['rm -rf /', 'gzip -S/etc', 'squashfs ../x']) {
        const body = { source: { type: 'instance', name: 'c1' }, compression_algorithm: compression };
        await expect(daemon.operate('POST', '/1.0/images', body)).rejects.toThrow('Invalid compression algorithm');
      }
      await expect(
        daemon.operate('POST', '/1.0/images', { source: { type: 'instance', name: 'c1' }, aliases: [{ name: 'bb' }] }),
      ).rejects.toThrow('Alias already exists: bb');
      expect((await readdir(join(daemon.root, 'images'))).toSorted()).toEqual(before);
    });

    it('leaves nothing when it is killed while it packs', async () => {
      const before = (await readdir(join(daemon.root, 'images'))).toSorted();
      const body = { source: { type: 'instance', name: 'c1' }, compression_algorithm: 'xz -9' };
      await daemon.call('POST', '/1.0/images', body);
      await expect
        .poll(async () => (await readdir(join(daemon.root, 'images'))).length, { timeout: 10_000 })
        .toBeGreaterThan(before.length);

      await daemon.kill();
      await daemon.boot();

      expect((await readdir(join(daemon.root, 'images'))).toSorted()).toEqual(before);
      await lxc('start', 'c1');
      await lxc('stop', '-f', 'c1');
    });
  },
);
