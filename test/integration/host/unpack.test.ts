// Unpacking archives that want to do harm, and honest ones that are hard to keep.
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kindOf } from '#src/lib/errors.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { unpackImage, unpackRootfs } from '#src/host/unpack/image.ts';
import { readMember } from '#src/host/unpack/read-member.ts';
import { unpackArchive, type UnpackReport } from '#src/host/unpack/unpack.ts';
import { describeWith } from '#test/integration/support.ts';
import { type Member, pax, tar } from './tar-writer.ts';

const host = new LinuxHost();
const LIMITS = { maxBytes: 10 * 2 ** 20, maxEntries: 1000 };
const MAP = { uidBase: 100_000, gidBase: 200_000, size: 65_536 };
const signal = () => AbortSignal.timeout(60_000);

let base: string;
let target: string;
let outside: string;

/** Everything outside of the target that an escape might change. */
async function surroundings(): Promise<string> {
  const skipped = ['-path', target, '-prune', '-o', '-path', join(base, 'archive'), '-prune', '-o'];
  const { stdout } = await host.run(['find', base, ...skipped, '-printf', '%p %m %U %n %y %l\n']);
  const etc = (await host.run(['find', '/etc', '-newermt', started, '-name', 'evil*'])).stdout;
  const shared = (await readdir('/tmp')).filter((name) => name.startsWith('evil'));
  return [stdout, await readFile(join(outside, 'secret'), 'utf8'), etc, ...shared].join('\n');
}

let started: string;

async function archive(content: Buffer, name = 'archive'): Promise<string> {
  const path = join(base, name);
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

async function unpack(content: Buffer, limits = LIMITS): Promise<UnpackReport> {
  return await unpackArchive(
    host,
    await archive(content),
    { directory: target, owners: null },
    { limits, signal: signal() },
  );
}

/** How unpacking ended: 'unpacked', or the kind of the failure. */
async function outcome(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => 'unpacked',
    (error: unknown) => kindOf(error),
  );
}

describeWith(
  { root: true, commands: ['tar', 'unsquashfs', 'mksquashfs', 'nsenter', 'unshare', 'prlimit', 'xz', 'zstd', 'bzip2'] },
  'unpacking',
  () => {
    beforeEach(async () => {
      base = await mkdtemp(join(tmpdir(), 'lighter-unpack-'));
      target = join(base, 'target');
      outside = join(base, 'outside');
      started = new Date(Date.now() - 1000).toISOString();
      await mkdir(target, { mode: 0o755 });
      await mkdir(outside, { mode: 0o777 });
      await host.setMode(outside, 0o777);
      await host.setMode(base, 0o711);
      await writeFile(join(outside, 'secret'), 'untouched', { mode: 0o666 });
      await host.setMode(join(outside, 'secret'), 0o666); // not even what everybody may write is touched
    });

    afterEach(async () => {
      expect(await host.mounts.mountsUnder(base)).toEqual([]);
      await host.removeTree(base);
    });

    describe('of hostile tar files', () => {
      const link = (name: string, to: string): Member => ({ name, type: '2', link: to });
      const file = (name: string, data = 'evil'): Member => ({ name, data });
      const escapes: Record<string, () => readonly Member[]> = {
        'an absolute member': () => [file(join(outside, 'evil'))],
        'a member with ".."': () => [file('../outside/evil')],
        'a member with ".." in the middle': () => [{ name: 'a', type: '5', mode: 0o755 }, file('a/../../outside/evil')],
        'a link to an absolute folder and a member through it': () => [link('l', outside), file('l/evil')],
        'a link with ".." and a member through it': () => [link('l', '../outside'), file('l/evil')],
        'a chain of links that leads out': () => [link('a', 'b'), link('b', '..'), file('a/outside/evil')],
        'a link named as a folder that comes again': () => [
          { name: 'd', type: '5', mode: 0o755 },
          link('d', outside),
          file('d/evil'),
        ],
        'a member twice, first as a link to a file outside': () => [link('f', join(outside, 'secret')), file('f')],
        'a folder member over a link that leads out': () => [
          link('d', outside),
          { name: 'd/', type: '5', mode: 0o777 },
          file('d/evil'),
        ],
        'a hard link to a file outside': () => [{ name: 'h', type: '1', link: join(outside, 'secret') }, file('h')],
        'a hard link with ".." to a file outside': () => [
          { name: 'h', type: '1', link: '../outside/secret' },
          file('h'),
        ],
        'a hard link through a link that leads out': () => [
          link('l', outside),
          { name: 'h', type: '1', link: 'l/secret' },
          file('h'),
        ],
        'a link to itself': () => [link('l', 'l'), file('l/evil')],
        'a pax path that leads out': () => [pax({ path: '../outside/evil' }), file('innocent')],
        'a pax link path that leads out': () => [pax({ linkpath: outside }), link('l', 'innocent'), file('l/evil')],
        'the directory itself as a link': () => [link('.', outside), file('evil')],
        'a rootfs that is a link to the host': () => [link('rootfs', '/'), file('rootfs/tmp/evil')],
        'a name with a newline': () => [
          file('a\n-rw-r--r-- 0/0 1 2026-01-01 00:00 b'),
          link('l', outside),
          file('l/evil'),
        ],
        'a device node of a disk': () => [
          { name: 'disk', type: '4', device: [8, 0], mode: 0o666 },
          { name: 'mem', type: '3', device: [1, 1], mode: 0o666 },
        ],
        'a whiteout of overlayfs': () => [{ name: 'etc', type: '3', device: [0, 0], mode: 0o666 }],
      };

      it.each(Object.keys(escapes))('touches nothing outside: %s', async (name) => {
        const before = await surroundings();

        const result = await outcome(unpack(tar(escapes[name]?.() ?? [])));

        expect(['unpacked', 'invalid']).toContain(result);
        expect(await surroundings()).toBe(before);
        const { stdout } = await host.run(['find', target, '(', '-type', 'b', '-o', '-type', 'c', ')']);
        expect(stdout).toBe('');
      });

      it('counts the device nodes that it leaves out, and keeps the rest', async () => {
        const nodes: Member[] = [
          { name: 'null', type: '3', device: [1, 3] },
          { name: 'sda', type: '4', device: [8, 0] },
          { name: 'white', type: '3', device: [0, 0] },
          { name: 'dev/', type: '5', mode: 0o755 },
          { name: 'dev/zero', type: '3', device: [1, 5] },
          { name: 'pipe', type: '6' },
          { name: 'file', data: 'x' },
        ];

        const { devicesSkipped } = await unpack(tar(nodes));

        expect(devicesSkipped).toBe(3);
        expect((await readdir(target)).sort()).toEqual(['dev', 'file', 'pipe']);
      });

      it('keeps a link that points out of the root as it is', async () => {
        await unpack(tar([link('mtab', '/proc/mounts'), link('up', '../../x')]));

        expect(await readlink(join(target, 'mtab'))).toBe('/proc/mounts');
        expect(await readlink(join(target, 'up'))).toBe('../../x');
      });
    });

    describe('of bombs and damaged files', () => {
      it('stops at the bytes of a compressed bomb', async () => {
        const zeros = { name: 'zeros', data: '\0'.repeat(30 * 2 ** 20) };

        expect(await outcome(unpack(gzipSync(tar([zeros]))))).toBe('invalid');
      });

      it('stops at what comes after the end of the archive', async () => {
        const endless = Buffer.concat([tar([{ name: 'a', data: 'a' }]), Buffer.alloc(60 * 2 ** 20)]);

        const result = await outcome(unpack(gzipSync(endless)));

        expect(['invalid', 'unpacked']).toContain(result);
        expect((await host.run(['du', '-sb', target])).stdout.split('\t')[0]).not.toMatch(/\d{7}/);
      });

      it('stops at the number of entries', async () => {
        const members = Array.from({ length: 1500 }, (_none, index) => ({ name: `f${index}` }));

        expect(await outcome(unpack(tar(members)))).toBe('invalid');
        expect((await readdir(target)).length).toBeLessThan(1500);
      });

      it('stops at a huge file that is all hole', async () => {
        const sparse = join(base, 'sparse');
        await writeFile(sparse, 'x');
        await truncate(sparse, 2 ** 40);
        await host.run(['tar', '--sparse', '-C', base, '-cf', join(base, 'sparse.tar'), 'sparse']);

        const work = unpackArchive(
          host,
          join(base, 'sparse.tar'),
          { directory: target, owners: null },
          { limits: LIMITS, signal: signal() },
        );

        expect(await outcome(work)).toBe('invalid');
      });

      it('stops at a member that claims more than there is', async () => {
        expect(await outcome(unpack(tar([{ name: 'f', data: 'x', size: 2 ** 32 }])))).toBe('invalid');
      });

      it.each(['gzip', 'bzip2', 'xz', 'zstd'] as const)('refuses half of a %s file', async (program) => {
        const plain = await archive(
          tar(
            Array.from({ length: 50 }, (_none, index) => ({
              name: `f${index}`,
              data: Math.random().toString().repeat(200),
            })),
          ),
        );
        await host.run(['sh', '-c', `${program} -c ${plain} > ${plain}.half`]);
        await truncate(`${plain}.half`, Math.floor((await stat(`${plain}.half`)).size / 2));

        const work = unpackArchive(
          host,
          `${plain}.half`,
          { directory: target, owners: null },
          { limits: LIMITS, signal: signal() },
        );

        expect(await outcome(work)).toBe('invalid');
      });

      it.each([
        ['between two members', tar([{ name: 'a', data: 'a' }], { end: false })],
        ['inside a member', tar([{ name: 'a', data: 'a'.repeat(4000) }]).subarray(0, 2000)],
        ['inside a header', tar([{ name: 'a', data: 'a' }, { name: 'b' }]).subarray(0, 1200)],
      ])('refuses a plain tar that ends %s', async (_where, content) => {
        expect(await outcome(unpack(content))).toBe('invalid');
      });

      it('refuses garbage, an empty file, and a damaged squashfs', async () => {
        expect(await outcome(unpack(Buffer.from('hello world')))).toBe('invalid');
        expect(await outcome(unpack(Buffer.alloc(0)))).toBe('invalid');
        expect(await outcome(unpack(Buffer.concat([Buffer.from('hsqs'), Buffer.alloc(4096, 7)])))).toBe('invalid');
      });

      it('stops when it is told to', async () => {
        const path = await archive(tar([{ name: 'a', data: 'a' }]));

        const work = unpackArchive(
          host,
          path,
          { directory: target, owners: null },
          { limits: LIMITS, signal: AbortSignal.abort() },
        );

        await expect(work).rejects.toThrow('abort');
        expect(await readdir(target)).toEqual([]);
      });
    });

    describe('of squashfs', () => {
      async function squashed(make: (folder: string) => Promise<void>, extra: readonly string[] = []): Promise<string> {
        const folder = join(base, 'tree');
        await mkdir(folder);
        await make(folder);
        await host.run([
          'mksquashfs',
          folder,
          join(base, 'image.squashfs'),
          '-quiet',
          '-no-progress',
          '-noappend',
          ...extra,
        ]);
        return join(base, 'image.squashfs');
      }
      const options = () => ({ limits: LIMITS, signal: signal() });

      it('unpacks owners, modes, links, capabilities, and leaves devices out', async () => {
        const path = await squashed(async (folder) => {
          await writeFile(join(folder, 'su'), 'x');
          await host.run(['chown', '5:6', join(folder, 'su')]);
          await host.run(['chmod', '4711', join(folder, 'su')]);
          await writeFile(join(folder, 'ping'), 'x');
          await host.run(['setcap', 'cap_net_raw+ep', join(folder, 'ping')]);
          await host.run(['ln', '-s', '/etc/passwd', join(folder, 'link')]);
          await host.run(['mknod', join(folder, 'null'), 'c', '1', '3']);
          await host.run(['mknod', join(folder, 'white'), 'c', '0', '0']);
        });

        const report = await unpackArchive(host, path, { directory: target, owners: null }, options());

        const su = await stat(join(target, 'su'));
        expect([su.uid, su.gid, su.mode & 0o7777]).toEqual([5, 6, 0o4711]);
        expect(await readlink(join(target, 'link'))).toBe('/etc/passwd');
        expect((await host.run(['getcap', '-n', join(target, 'ping')])).stdout).toContain('cap_net_raw=ep');
        expect((await readdir(target)).sort()).toEqual(['link', 'ping', 'su']);
        expect(report.devicesSkipped).toBe(2);
      });

      it('stops at bytes and entries before it writes anything', async () => {
        const path = await squashed(async (folder) => {
          await writeFile(join(folder, 'big'), 'x');
          await truncate(join(folder, 'big'), 2 ** 30);
        });

        const work = unpackArchive(host, path, { directory: target, owners: null }, options());

        expect(await outcome(work)).toBe('invalid');
        expect(await readdir(target)).toEqual([]);
      });

      it('writes nothing outside with a link in the place of a folder', async () => {
        const before = await surroundings();
        const path = await squashed(
          async (folder) => {
            await mkdir(join(folder, 'd'));
            await host.run(['ln', '-s', outside, join(folder, 'l')]);
          },
          ['-p', 'l/evil f 644 0 0 echo evil'],
        ).catch(() => join(base, 'none'));

        if (await host.exists(path))
          await outcome(unpackArchive(host, path, { directory: target, owners: null }, options()));

        await host.removeTree(join(base, 'tree'));
        await host.removeTree(path);
        expect(await surroundings()).toBe(before);
      });

      it('reads a file that only root may read', async () => {
        const path = await squashed((folder) => writeFile(join(folder, 'a'), 'a'));
        await host.setMode(path, 0o600);

        await unpackArchive(host, path, { directory: target, owners: null }, options());

        expect(await readFile(join(target, 'a'), 'utf8')).toBe('a');
      });
    });

    describe('of honest archives', () => {
      async function tree(): Promise<string> {
        const folder = join(base, 'tree');
        await mkdir(join(folder, 'bin'), { recursive: true });
        await writeFile(join(folder, 'bin', 'ping'), 'ping');
        await host.run(['setcap', 'cap_net_raw+ep', join(folder, 'bin', 'ping')]);
        await writeFile(join(folder, 'bin', 'su'), 'su');
        await host.run(['chmod', '6755', join(folder, 'bin', 'su')]);
        await host.run(['ln', join(folder, 'bin', 'su'), join(folder, 'bin', 'sudo')]);
        await writeFile(join(folder, 'owned'), 'x');
        await host.run(['chown', '33:44', join(folder, 'owned')]);
        return folder;
      }

      it.each([
        ['tar', []],
        ['gzip', ['--gzip']],
        ['bzip2', ['--bzip2']],
        ['xz', ['--xz']],
        ['zstd', ['--zstd']],
        ['lzma', ['--lzma']],
      ])('unpacks %s', async (_name, flags) => {
        await host.run(['tar', '-C', await tree(), ...flags, '-cf', join(base, 'a'), '.']);

        await unpackArchive(
          host,
          join(base, 'a'),
          { directory: target, owners: null },
          { limits: LIMITS, signal: signal() },
        );

        expect(await readFile(join(target, 'bin', 'ping'), 'utf8')).toBe('ping');
      });

      it.each([
        ['unmapped', null],
        ['mapped', MAP],
      ])('keeps owners, setuid, hard links and capabilities (%s)', async (_name, owners) => {
        await host.run(['tar', '--xattrs', '--xattrs-include=*', '-C', await tree(), '-cf', join(base, 'a'), '.']);

        await unpackArchive(host, join(base, 'a'), { directory: target, owners }, { limits: LIMITS, signal: signal() });

        const [su, sudo] = [await stat(join(target, 'bin', 'su')), await stat(join(target, 'bin', 'sudo'))];
        expect([su.mode & 0o7777, su.uid, su.gid, su.ino]).toEqual([
          0o6755,
          owners?.uidBase ?? 0,
          owners?.gidBase ?? 0,
          sudo.ino,
        ]);
        const owned = await stat(join(target, 'owned'));
        expect([owned.uid, owned.gid]).toEqual([(owners?.uidBase ?? 0) + 33, (owners?.gidBase ?? 0) + 44]);
        const caps = (await host.run(['getcap', '-n', join(target, 'bin', 'ping')])).stdout;
        expect(caps).toContain(owners ? `cap_net_raw=ep [rootid=${owners.uidBase}]` : 'cap_net_raw=ep');
      });

      it('keeps ACLs, mapped', async () => {
        const acl = 'user::rw-\nuser:7:r--\ngroup::r--\nmask::r--\nother::r--\n';
        await unpackArchive(
          host,
          await archive(tar([pax({ 'SCHILY.acl.access': acl }), { name: 'f', data: 'x' }])),
          { directory: target, owners: MAP },
          { limits: LIMITS, signal: signal() },
        );

        const script =
          'import os,sys,struct; v=os.getxattr(sys.argv[1],"system.posix_acl_access"); print([struct.unpack_from("<HHI",v,4+i*8)[2] for i in range((len(v)-4)//8)])';
        const { stdout } = await host.run(['python3', '-c', script, join(target, 'f')]);
        expect(stdout).toContain(String(MAP.uidBase + 7));
      });

      const image = (extra: readonly Member[] = []) =>
        tar([
          { name: 'metadata.yaml', data: 'architecture: x86_64\n' },
          { name: 'templates/', type: '5', mode: 0o755 },
          { name: 'templates/hostname.tpl', data: 'x' },
          { name: 'rootfs/', type: '5', mode: 0o755 },
          { name: 'rootfs/a', data: 'a' },
          ...extra,
        ]);
      const unpackUnified = async (content: Buffer) =>
        await unpackImage(
          host,
          { metadata: await archive(content) },
          { directory: target, owners: null },
          { limits: LIMITS, signal: signal() },
        );

      it('unpacks a unified image, and drops what does not belong in one', async () => {
        await unpackUnified(
          image([
            { name: 'backup.yaml', data: 'x' },
            { name: './', type: '5', mode: 0o777, uid: 7 },
          ]),
        );

        expect((await readdir(target)).sort()).toEqual(['metadata.yaml', 'rootfs', 'templates']);
        const { mode, uid } = await stat(target);
        expect([mode & 0o777, uid]).toEqual([0o755, 0]);
      });

      it('unpacks a split image with a root file system of each kind', async () => {
        const metadata = await archive(tar([{ name: 'metadata.yaml', data: 'architecture: x86_64\n' }]), 'meta');
        await host.run(['mksquashfs', await tree(), join(base, 'root'), '-quiet', '-no-progress']);

        await unpackImage(
          host,
          { metadata, rootfs: join(base, 'root') },
          { directory: target, owners: null },
          { limits: LIMITS, signal: signal() },
        );

        expect(await readFile(join(target, 'rootfs', 'bin', 'ping'), 'utf8')).toBe('ping');
      });

      it('unpacks a root tarball alone', async () => {
        await unpackRootfs(
          host,
          await archive(tar([{ name: 'a', data: 'a' }])),
          { directory: target, owners: MAP },
          { limits: LIMITS, signal: signal() },
        );

        expect((await stat(join(target, 'rootfs'))).uid).toBe(MAP.uidBase);
        expect((await stat(join(target, 'rootfs', 'a'))).uid).toBe(MAP.uidBase);
      });

      it.each([
        [
          'metadata that is a link',
          [
            { name: 'metadata.yaml', type: '2', link: '/etc/passwd' },
            { name: 'rootfs/', type: '5', mode: 0o755 },
          ],
        ],
        [
          'a rootfs that is a link',
          [
            { name: 'metadata.yaml', data: 'a: 1\n' },
            { name: 'rootfs', type: '2', link: '/' },
          ],
        ],
        [
          'a template that is a link',
          [
            { name: 'metadata.yaml', data: 'a: 1\n' },
            { name: 'rootfs/', type: '5', mode: 0o755 },
            { name: 'templates/x', type: '2', link: '/etc/shadow' },
          ],
        ],
        ['no metadata', [{ name: 'rootfs/', type: '5', mode: 0o755 }]],
        ['no rootfs', [{ name: 'metadata.yaml', data: 'a: 1\n' }]],
        [
          'metadata that is no YAML',
          [
            { name: 'metadata.yaml', data: '{' },
            { name: 'rootfs/', type: '5', mode: 0o755 },
          ],
        ],
      ] satisfies [string, Member[]][])('refuses an image with %s', async (_what, members) => {
        expect(await outcome(unpackUnified(tar(members)))).toBe('invalid');
      });

      it('reads the metadata of an image without unpacking it', async () => {
        const path = await archive(gzipSync(image()));
        const question = { maxBytes: 1000, signal: signal() };

        expect(await readMember(host, path, { ...question, name: 'metadata.yaml' })).toBe('architecture: x86_64\n');
        expect(await readMember(host, path, { ...question, name: 'absent' })).toBeUndefined();
        expect(await outcome(readMember(host, path, { ...question, name: 'metadata.yaml', maxBytes: 3 }))).toBe(
          'invalid',
        );
        expect((await lstat(target)).isDirectory()).toBe(true);
      });
    });
  },
);
