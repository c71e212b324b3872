// What root of an unprivileged container tries with the kernel: nothing of it reaches the host, or a neighbour.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { describeWith } from '../support.ts';
import { HOSTILE_DRIVER, TestDaemon } from './daemon-support.ts';
import { HostileGuest, hostSettings, python, TOOLS } from './hostile-support.ts';

/** Each must fail: exit code 0 means that the attack went through. */
const SHELL: Readonly<Record<string, string>> = {
  'crash the host by sysrq': 'echo h >/proc/sysrq-trigger',
  'choose what handles core dumps of the host': "echo '|/tmp/evil' >/proc/sys/kernel/core_pattern",
  'choose the program that loads modules': 'echo /tmp/evil >/proc/sys/kernel/modprobe',
  'choose the program that hears of devices': 'echo /tmp/evil >/sys/kernel/uevent_helper',
  'make the host panic': 'echo 1 >/proc/sys/kernel/panic',
  'change how the host gives memory': 'echo 2 >/proc/sys/vm/overcommit_memory',
  'drop the caches of the host': 'echo 3 >/proc/sys/vm/drop_caches',
  'send events of devices': 'echo add >/sys/class/mem/null/uevent',
  'suspend the host': 'echo mem >/sys/power/state',
  'write to the log of the kernel': 'test -c /dev/kmsg && echo evil >/dev/kmsg',
  'clear the log of the kernel': 'dmesg -c >/dev/null',
  'read the memory of the kernel': 'head -c 1 /proc/kcore | grep -q .',
  'make a node of a disk': 'mknod /tmp/disk b 8 0',
  'make a node of the memory': 'mknod /tmp/mem c 1 1',
  'make a node in the /dev that it was given': 'mknod /dev/disk b 8 0',
  'mount devices': 'mkdir -p /tmp/m && mount -t devtmpfs none /tmp/m',
  'mount a disk of the host': 'mkdir -p /tmp/m && mount -t ext4 /dev/vda /tmp/m || mount -t ext4 /dev/sda /tmp/m',
  'mount a file as a disk':
    'mkdir -p /tmp/m && dd if=/dev/zero of=/tmp/img bs=1M count=1 2>/dev/null && mount -o loop /tmp/img /tmp/m',
  'mount the debug file system': 'mkdir -p /tmp/m && mount -t debugfs none /tmp/m',
  'mount the trace file system': 'mkdir -p /tmp/m && mount -t tracefs none /tmp/m',
  'mount the security file system': 'mkdir -p /tmp/m && mount -t securityfs none /tmp/m',
  'write to the tools that are lent to it': 'touch /opt/usr/evil',
  'make the tools that are lent to it writable': 'mount -o remount,rw,bind /opt/usr && touch /opt/usr/evil',
  'name a program that is run when its group is empty':
    'd=$(ls -d /sys/fs/cgroup/memory /sys/fs/cgroup | head -n 1); echo /tmp/evil >$d/release_agent',
  'mount control groups of version 1 with such a program':
    'mkdir -p /tmp/cg && mount -t cgroup -o memory none /tmp/cg && echo /tmp/evil >/tmp/cg/release_agent',
  'leave its limit of processes':
    'for f in /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; do [ -e $f ] && echo max >$f && exit 0; done; exit 1',
  'leave its limit of memory':
    'for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do [ -e $f ] && echo 9000000000 >$f && exit 0; done; exit 1',
  'kill the processes of the host': 'kill -9 $HOST_PID',
  'see the processes of the host': 'grep -l "[h]ostile-canary" /proc/[0-9]*/cmdline',
  'take the files of the host by its first process': 'ls /proc/1/root$OUTSIDE',
  'be the last that the host kills when its memory is full': 'echo -1000 >/proc/1/oom_score_adj',
};

const C = 'import ctypes,os,sys\nl=ctypes.CDLL(None,use_errno=True)\n';
const fails = (call: string) => `${C}sys.exit(0 if ${call} >= 0 else 1)`;
/** The same. */
const CALLS: Readonly<Record<string, string>> = {
  'load another kernel': fails('l.syscall(246, 0, 0, 0, 0)'),
  'load a module': fails('l.syscall(175, b"x", 1, b"")'),
  'load a module from a file': fails('l.syscall(313, os.open("/bin/busybox", 0), b"", 0)'),
  'remove a module': fails('l.syscall(176, b"loop", 0)'),
  'load a program of bpf': fails('l.syscall(321, 5, ctypes.create_string_buffer(128), 128)'),
  'open files by their handles': fails(
    'l.open_by_handle_at(os.open("/", 0), ctypes.create_string_buffer(bytes([8,0,0,0,1,0,0,0,2]+[0]*32)), 0)',
  ),
  'set the clock': fails('l.clock_settime(0, ctypes.create_string_buffer(bytes(16)))'),
  'swap on a file': fails('l.swapon(b"/tmp/img", 0)'),
  'account for processes': fails('l.acct(b"/tmp/acct")'),
  'reach the ports of the machine': fails('l.iopl(3)'),
  'watch all processors': `${C}a=ctypes.create_string_buffer(128);a[4]=128\nsys.exit(0 if l.syscall(298,a,-1,0,-1,0)>=0 else 1)`,
  'lock keys of the session of others': fails(
    'l.syscall(250, 3, -3, 0x3f010000, 0, 0) and l.syscall(250, 5, 1, 0, 0) or l.syscall(250, 5, 1, 0, 0)',
  ),
  'get out by chroot': `import os\nos.makedirs("/tmp/jail",exist_ok=True)\nfd=os.open("/",0)\nos.chroot("/tmp/jail")\nos.fchdir(fd)\nfor _ in range(64): os.chdir("..")\nos.chroot(".")\nos.stat(os.environ["OUTSIDE"])`,
  'enter namespaces of the host': `${C}own={n:os.readlink("/proc/self/ns/"+n) for n in os.listdir("/proc/self/ns")}\nfound=0\nfor p in os.listdir("/proc"):\n  if p.isdigit():\n    for n in ("mnt","net","pid"):\n      try:\n        if os.readlink(f"/proc/{p}/ns/{n}") != own[n]: found=1\n      except OSError: pass\nsys.exit(0 if found else 1)`,
  'read what descriptors it was given': `import os,sys\nbad=[l for l in (os.readlink(f"/proc/1/fd/{f}") for f in os.listdir("/proc/1/fd")) if os.environ["OUTSIDE"] in l or "lighter" in l and "console" not in l]\nprint(bad)\nsys.exit(0 if bad else 1)`,
};

describeWith(
  { root: true, commands: ['lxc-start', 'busybox', 'python3'] },
  'root of an unprivileged container cannot',
  () => {
    let daemon: TestDaemon;
    let guest: HostileGuest;
    let canary: ChildProcess;
    let outside: string;
    let environment: Readonly<Record<string, string>>;

    beforeAll(async () => {
      daemon = await TestDaemon.start(HOSTILE_DRIVER);
      outside = join(daemon.root, 'outside');
      await mkdir(outside, { mode: 0o777 });
      await writeFile(join(outside, 'secret'), 'of the host', { mode: 0o666 });
      canary = spawn('sleep', ['3600'], { argv0: 'hostile-canary', stdio: 'ignore' });
      environment = { OUTSIDE: outside, HOST_PID: String(canary.pid) };
      await daemon.addImage();
      const config = { 'limits.processes': '200', 'limits.memory': '256MiB' };
      await daemon.launch('k1', { config, devices: { tools: TOOLS } });
      await daemon.ready('k1');
      guest = new HostileGuest(daemon, 'k1');
    });
    afterAll(async () => {
      canary.kill();
      await daemon[Symbol.asyncDispose]();
    });

    async function attack(command: readonly string[]): Promise<void> {
      const before = await hostSettings();

      const { code, output } = await guest.exec(command, { environment });

      expect(code, output).not.toBe(0);
      expect(await hostSettings()).toEqual(before);
      expect(await readdir(outside)).toEqual(['secret']);
      expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('of the host');
      expect(canary.exitCode ?? canary.signalCode).toBeNull();
      expect((await guest.sh('true')).code).toBe(0);
    }

    it.each(Object.keys(SHELL))('%s', (name) => attack(['sh', '-c', SHELL[name] ?? '']));

    it('call anything: its Python works', async () => {
      expect(await guest.exec(python('import ctypes; print(ctypes.CDLL(None).getpid() > 0)'))).toEqual({
        code: 0,
        output: 'True\n',
      });
    });

    const isNumbered = process.arch === 'x64'; // the numbers of system calls
    it.runIf(isNumbered).each(Object.keys(CALLS))('%s', (name) => attack(python(CALLS[name] ?? '')));
  },
);
