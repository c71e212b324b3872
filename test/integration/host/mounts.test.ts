// Mounts, id maps and re-owning on the real kernel.
import { mkdir, mkdtemp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { kindOf } from '#src/lib/errors.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { describeWith } from '#test/integration/support.ts';

const host = new LinuxHost();
const MAP = { uidBase: 100_000, gidBase: 200_000, size: 65_536 };
const signal = () => AbortSignal.timeout(60_000);
let base: string;

describeWith({ root: true, commands: ['unshare', 'nsenter', 'setcap', 'getcap', 'chattr'] }, 'the real machine', () => {
  beforeEach(async () => {
    base = await mkdtemp('/var/tmp/lighter-mounts-');
    await mkdir(join(base, 'source', 'sub'), { recursive: true });
    await mkdir(join(base, 'target'));
  });

  afterEach(async () => {
    for (const mounted of await host.mounts.mountsUnder(base)) await host.mounts.unmount(mounted);
    await host.removeTree(base);
  });

  describe('mounts', () => {
    it('shows a tree through an id map, without touching it', async () => {
      await host.mounts.bindMapped(join(base, 'source'), join(base, 'target'), MAP);

      const seen = await stat(join(base, 'target', 'sub'));
      expect([seen.uid, seen.gid]).toEqual([100_000, 200_000]);
      expect((await stat(join(base, 'source', 'sub'))).uid).toBe(0);
    });

    it('unmounts what is busy, what is not mounted and what is absent', async () => {
      await host.mounts.bindMapped(join(base, 'source'), join(base, 'target'), MAP);
      const stop = new AbortController();
      const user = host.start(['sleep', '60'], { cwd: join(base, 'target'), signal: stop.signal });

      for (const path of ['target', 'target', 'absent']) await host.mounts.unmount(join(base, path));

      expect(await host.mounts.mountsUnder(base)).toEqual([]);
      stop.abort();
      await user.done.catch(() => {});
    });

    it('knows mount points, also of bind mounts, and with spaces in their names', async () => {
      const target = join(base, 'with space');
      await mkdir(target);
      await host.mounts.mount({ source: join(base, 'source'), target, type: 'none', flags: ['bind'] });

      expect(await host.mounts.isMountPoint(target)).toBe(true);
      expect(await host.mounts.isMountPoint(join(base, 'source'))).toBe(false);
      expect(await host.mounts.isMountPoint(join(base, 'absent'))).toBe(false);
      expect(await host.mounts.mountsUnder(base)).toEqual([target]);
    });

    it('names source and target of a mount that fails', async () => {
      const request = { source: '/none', target: join(base, 'absent'), type: 'ext4' };

      await expect(host.mounts.mount(request)).rejects.toThrow(/\/none \(ext4\) on .*absent: .*ENOENT/);
    });

    it('says which file systems take id maps', async () => {
      expect(await host.mounts.canMapIds(base)).toBe(true);
      expect(await host.mounts.canMapIds('/proc')).toBe(false);
    });

    it('makes one user namespace per map', async () => {
      const [one, two] = await Promise.all([host.mounts.userNamespace(MAP), host.mounts.userNamespace({ ...MAP })]);

      expect(one.path).toBe(two.path);
      const { stdout } = await host.run([
        'nsenter',
        `--user=${one.path}`,
        '--',
        'cat',
        '/proc/self/uid_map',
        '/proc/self/gid_map',
      ]);
      expect(stdout.trim().split(/\s+/)).toEqual(['0', '100000', '65536', '0', '200000', '65536']);
    });

    it('lets a program without power write as root into a tree that is mounted nowhere', async () => {
      using tree = await host.mounts.openMapped(join(base, 'source'), MAP);
      const { path } = await host.mounts.userNamespace(MAP);

      await host.run(['nsenter', `--user=${path}`, '--', 'touch', 'made'], { cwd: tree.path });

      expect((await stat(join(base, 'source', 'made'))).uid).toBe(0);
      await expect(
        host.run(['nsenter', `--user=${path}`, '--', 'touch', join(base, 'source', 'other')]),
      ).rejects.toThrow('denied');
    });

    it('refuses writes to a tree that was opened for reading', async () => {
      using tree = await host.mounts.openMapped(join(base, 'source'), MAP, { readonly: true });

      await expect(host.run(['touch', 'made'], { cwd: tree.path })).rejects.toThrow('Read-only');
    });
  });

  describe('removeTree', () => {
    it('touches nothing while something is mounted in the tree', async () => {
      await writeFile(join(base, 'source', 'precious'), 'x');
      await host.mounts.mount({
        source: join(base, 'source'),
        target: join(base, 'target'),
        type: 'none',
        flags: ['bind'],
      });

      expect(await host.removeTree(base).catch(kindOf)).toBe('conflict');

      expect(await readFile(join(base, 'source', 'precious'), 'utf8')).toBe('x');
    });

    it('removes immutable files', async () => {
      await writeFile(join(base, 'source', 'immutable'), 'x');
      await host.run(['chattr', '+i', join(base, 'source', 'immutable')]);

      await host.removeTree(join(base, 'source'));

      expect(await host.exists(join(base, 'source'))).toBe(false);
    });
  });

  describe('shiftOwners', () => {
    it('moves owners there and back, keeping setuid, capabilities, hard links and strange names', async () => {
      const path = (name: string) => join(base, 'source', name);
      await writeFile(path('su'), 'x');
      await host.run(['chmod', '6755', path('su')]);
      await host.run(['ln', path('su'), path('sub/sudo')]);
      await host.run(['ln', '-s', '/etc/passwd', path('link')]);
      await writeFile(path('ping'), 'x');
      await host.run(['setcap', 'cap_net_raw+ep', path('ping')]);
      await host.run(['python3', '-c', 'import os,sys; open(os.fsencode(sys.argv[1])+b"/\\xff\\xfe","w")', path('')]);
      const passwd = await stat('/etc/passwd');

      await host.shiftOwners(join(base, 'source'), { from: null, to: MAP }, signal());

      const su = await stat(path('su'));
      expect([su.uid, su.gid, su.mode & 0o7777]).toEqual([100_000, 200_000, 0o6755]);
      expect((await host.run(['getcap', '-n', path('ping')])).stdout).toContain('[rootid=100000]');
      expect((await host.run(['find', join(base, 'source'), '!', '-uid', '100000'])).stdout).toBe('');
      expect((await stat('/etc/passwd')).uid).toBe(passwd.uid);
      await host.shiftOwners(join(base, 'source'), { from: MAP, to: null }, signal());
      expect((await host.run(['find', join(base, 'source'), '!', '-uid', '0'])).stdout).toBe('');
      expect((await host.run(['getcap', '-n', path('ping')])).stdout).toMatch(/cap_net_raw=ep\n/);
    });

    it('stops when it is told to', async () => {
      const work = host.shiftOwners('/usr', { from: null, to: null }, AbortSignal.abort());

      await expect(work).rejects.toThrow('abort');
    });

    it('says what could not be re-owned', async () => {
      await expect(host.shiftOwners(join(base, 'absent'), { from: null, to: MAP }, signal())).rejects.toThrow(
        /absent.*ENOENT/,
      );
    });
  });
});
