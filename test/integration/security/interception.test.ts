// System calls that are done for an unprivileged container (security.syscalls.intercept), by what its root gets of them.
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { HOSTILE_DRIVER, run, TestDaemon } from '../instances/daemon-support.ts';
import { HostileGuest, python, TOOLS } from '../instances/hostile-support.ts';
import { describeWith } from '../support.ts';
import { JobGuest } from './job-guest.ts';

const INTERCEPT = {
  'security.syscalls.intercept.mknod': 'true',
  'security.syscalls.intercept.setxattr': 'true',
};
const MARK = 'trusted.overlay.opaque';

/** Prints "done", or the error of a call of Python's os. */
const call = (expression: string): readonly string[] =>
  python(`
import os, stat
try:
  ${expression}
  print('done')
except OSError as error:
  print(error.errno)
`);

const EPERM = '1\n';
const ENOENT = '2\n';
const EACCES = '13\n';
const EEXIST = '17\n';
const DONE = 'done\n';

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'python3'] }, 'intercepted system calls', () => {
  let daemon: TestDaemon;
  let guest: JobGuest;

  beforeAll(async () => {
    daemon = await TestDaemon.start(HOSTILE_DRIVER);
    await daemon.addImage();
    await mkdir(ofHost().source);
    await chmod(ofHost().source, 0o775);
    guest = await launch('held', INTERCEPT);
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  const launch = (name: string, config: Readonly<Record<string, string>>) =>
    JobGuest.launch(daemon, name, { config, devices: { tools: TOOLS, host: ofHost() } });

  const ofHost = () => ({ type: 'disk', source: join(daemon.root, 'of-host'), path: '/mnt/of-host' });
  const sh = async (script: string): Promise<string> => (await guest.sh(script)).output;
  const py = async (expression: string): Promise<string> => (await guest.exec(call(expression))).output;

  describe('mknod', () => {
    it('makes the devices that harm nobody, which can be used, as root of the container', async () => {
      await sh('mkdir -p /root/d');
      const made = await sh('cd /root/d && mknod -m 666 null c 1 3 && mknod -m 600 /root/d/zero c 1 5 && ls -ln');

      expect(made).toMatch(/^crw-rw-rw-\s+1 0\s+0\s+1,\s+3 .* null$/mu);
      expect(made).toMatch(/^crw-------\s+1 0\s+0\s+1,\s+5 .* zero$/mu);
      expect(await sh('echo lost >/root/d/null; head -c 3 /root/d/zero | od -An -tx1')).toBe(' 00 00 00\n');
    });

    it('heeds the umask, other directories, other users and links', async () => {
      expect(await sh('cd /root/d && umask 077 && mknod full c 1 7 && stat -c %a full')).toBe('600\n');
      expect(
        await py("os.mknod('at', stat.S_IFCHR | 0o644, os.makedev(1, 9), dir_fd=os.open('/root/d', os.O_RDONLY))"),
      ).toBe(DONE);
      expect(await sh('ln -s /root/d /tmp/link; mknod /tmp/link/../d/tty c 5 0 && stat -c %t:%T /root/d/tty')).toBe(
        '5:0\n',
      );
      // its ids are not those of root here, but its rights are
      expect(
        await sh('mkdir /tmp/of; chown 7:7 /tmp/of; chmod 755 /tmp/of; mknod /tmp/of/r c 1 8; stat -c %u:%g /tmp/of/r'),
      ).toBe('0:0\n');
    });

    it('puts the device of the host where nodes are of no use', async () => {
      expect(await sh('mknod /dev/held-null c 1 3; echo lost >/dev/held-null && ls -ln /dev/held-null')).toMatch(
        /^crw-rw-rw-\s.* 1,\s+3 /u,
      );
      expect(
        await sh(
          'mkdir -p /tmp/t && mount -t tmpfs none /tmp/t && mknod /tmp/t/zero c 1 5 && head -c 2 /tmp/t/zero | od -An -tx1',
        ),
      ).toBe(' 00 00\n');
    });

    it('says what the kernel says of a path', async () => {
      expect(await py("os.mknod('/root/d/null', stat.S_IFCHR | 0o600, os.makedev(1, 3))")).toBe(EEXIST);
      expect(await py("os.mknod('/nowhere/null', stat.S_IFCHR | 0o600, os.makedev(1, 3))")).toBe(ENOENT);
      expect(
        await sh('mkdir -p /tmp/ro && mount -t tmpfs -o ro none /tmp/ro && mknod /tmp/ro/null c 1 3 2>&1'),
      ).toContain('Read-only file system');
    });

    it('makes no other device, and none for who is not root there', async () => {
      for (const [major, minor] of [
        [1, 1],
        [1, 11],
        [5, 1],
        [10, 229],
        [4, 0],
      ]) {
        expect(await py(`os.mknod('/root/x', stat.S_IFCHR | 0o600, os.makedev(${major}, ${minor}))`)).toBe(EPERM);
      }
      expect(await py("os.mknod('/root/x', stat.S_IFBLK | 0o600, os.makedev(7, 0))")).toBe(EPERM);
      expect(
        await py(
          "os.chmod('/tmp', 0o1777); os.setuid(1000); os.mknod('/tmp/x', stat.S_IFCHR | 0o600, os.makedev(1, 3))",
        ),
      ).toBe(EPERM);
      // a user namespace of its own has root, too
      const nested = await guest.sh('unshare -Ur mknod /tmp/nested c 1 3 2>&1');
      expect(nested.code).not.toBe(0);
      expect(await sh('ls /root/x /tmp/x /tmp/nested 2>/dev/null')).toBe('');
    });

    it('makes nothing in directories of the host that the container may not write to', async () => {
      // /usr of the host, read-only; and /sys, whose files are the host's
      expect(await py("os.mknod('/opt/usr/held', stat.S_IFCHR | 0o600, os.makedev(1, 3))")).toMatch(/^(13|30)\n$/u);
      expect([EPERM, EACCES]).toContain(
        await py("os.mknod('/sys/kernel/held', stat.S_IFCHR | 0o600, os.makedev(1, 3))"),
      );
      // of the host's group of root, which is nobody's here
      expect(await py("os.mknod('/mnt/of-host/held', stat.S_IFCHR | 0o600, os.makedev(1, 3))")).toBe(EACCES);
      // a link of /proc leads out of the paths of a container, if only to itself
      expect(await py("os.mknod('/proc/self/root/root/d/by-proc', stat.S_IFCHR | 0o600, os.makedev(1, 3))")).not.toBe(
        DONE,
      );
    });
  });

  describe('setxattr', () => {
    const mark = (path: string, value = "b'y'") => py(`os.setxattr('${path}', '${MARK}', ${value})`);

    it('marks a directory of the container as opaque, and sets nothing else', async () => {
      await sh('mkdir -p /root/o && touch /root/o/file');

      expect(await mark('/root/o')).toBe(DONE);
      const rootfs = join(daemon.root, 'storage-pools/default/containers/held/rootfs/root/o');
      const { stdout } = await run('getfattr', ['--absolute-names', '--only-values', '-n', MARK, rootfs]);
      expect(stdout).toBe('y');
      expect(await mark('/root/o', "b'x'")).toBe(EPERM);
      expect(await py(`os.setxattr('/root/o', 'trusted.other', b'y')`)).toBe(EPERM);
      expect(await mark('/opt/usr')).not.toBe(DONE);
      expect(await py(`os.setuid(1000); os.setxattr('/root/o', '${MARK}', b'y')`)).toBe(EPERM);
    });

    it('takes a value that nothing ends but its size', async () => {
      await sh('mkdir -p /root/o2');
      const set = `ctypes.CDLL(None, use_errno=True).setxattr(b'/root/o2', b'${MARK}', b'yz', 1, 0) and exit(ctypes.get_errno())`;
      expect((await guest.exec(python(`import ctypes\n${set}`))).code).toBe(0);
    });

    it('does not change what the container may do itself', async () => {
      expect(
        await py("os.setxattr('/root/o/file', 'user.a', b'y'); assert os.getxattr('/root/o/file', 'user.a') == b'y'"),
      ).toBe(DONE);
    });
  });

  it('is for what exec starts, too', async () => {
    const attached = new HostileGuest(daemon, 'held');
    // liblxc may lose such a process, and says so: it is gone then
    const made = () => attached.sh('mknod /root/d/attached c 1 3 || ls /root/d/attached').catch(() => undefined);
    const { code } = await poll(made, 20, AbortSignal.timeout(10_000 * timeFactor()));

    expect(code).toBe(0);
    expect(await sh('stat -c %t:%T /root/d/attached')).toBe('1:3\n');
  });

  it('goes on while the daemon is away, and after its server was killed', async () => {
    const script =
      'i=0; while [ ! -e /root/enough ]; do i=$((i + 1)); mknod /root/n$i c 1 3 && echo $i >/root/new && mv /root/new /root/made; sleep 0.1; done 2>/root/errors';
    await guest.sh(`(${script}) </dev/null >/dev/null 2>&1 &`);
    const made = async () => Number((await daemon.call('GET', '/1.0/instances/held/files?path=/root/made')).text);
    const more = async (before: number) => ((await made()) > before ? true : undefined);
    const goesOn = async () => poll(() => made().then(more), 50, AbortSignal.timeout(10_000 * timeFactor()));
    await goesOn();

    const former = await serverPid(daemon.pid);
    await daemon.kill();
    const log = join(daemon.root, 'storage-pools/default/containers/held/rootfs/root/made');
    const before = Number(await readFile(log, 'utf8'));
    const beyond = async () => (Number(await readFile(log, 'utf8')) > before + 2 ? true : undefined);
    await poll(beyond, 50, AbortSignal.timeout(10_000 * timeFactor()));
    await daemon.boot(HOSTILE_DRIVER);
    await goesOn();
    await poll(
      async () => ((await isThere(former)) ? undefined : true),
      20,
      AbortSignal.timeout(10_000 * timeFactor()),
    );
    expect(await sh('cat /root/errors')).toBe('');

    process.kill(await serverPid(daemon.pid), 'SIGKILL');
    expect((await guest.sh('mknod /root/after c 1 3')).code).toBe(0);
    await goesOn();
    // the one that it was at, at most
    expect((await sh('cat /root/errors')).split('\n').length).toBeLessThanOrEqual(2);
    await sh('touch /root/enough');
  });

  it('is for unprivileged containers alone, and off without being asked for', async () => {
    const plain = await launch('plain', {});
    expect((await plain.sh('mknod /root/null c 1 3')).code).not.toBe(0);
    const all = await launch('all', { ...INTERCEPT, 'security.privileged': 'true' });
    expect((await all.sh('mknod /root/null c 1 3 && echo lost >/root/null')).code).toBe(0);
    const bad = daemon.operate('PATCH', '/1.0/instances/plain', {
      config: { 'security.syscalls.intercept.mount': 'true' },
    });
    await expect(bad).rejects.toThrow('security.syscalls.intercept.mount is not supported by this server');
  });

  it('needs no server longer than a container', async () => {
    const pid = await serverPid(daemon.pid);
    await daemon.kill('SIGTERM');
    expect(await isThere(pid)).toBe(true);
    await daemon.boot(HOSTILE_DRIVER);
    const next = await serverPid(daemon.pid);
    await daemon.operate('PUT', '/1.0/instances/held/state', { action: 'stop', force: true });
    expect(await isThere(next)).toBe(true);
    await daemon.kill('SIGTERM');
    const gone = async () => ((await isThere(next)) ? undefined : true);
    await poll(gone, 20, AbortSignal.timeout(5000 * timeFactor()));
    await daemon.boot(HOSTILE_DRIVER);
  });
});

async function serverPid(daemonPid: number): Promise<number> {
  const { stdout } = await run('ps', ['-o', 'pid=,args=', '--ppid', String(daemonPid)]);
  const line = stdout.split('\n').find((one) => one.includes('system-call-server'));
  return Number.parseInt(line ?? '', 10);
}

function isThere(pid: number): Promise<boolean> {
  return readFile(`/proc/${pid}/comm`).then(
    () => true,
    () => false,
  );
}
