// Filters of system calls, by what root of an unprivileged container gets for an answer.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HOSTILE_DRIVER, TestDaemon } from '../instances/daemon-support.ts';
import { HostileGuest, python, TOOLS } from '../instances/hostile-support.ts';
import { describeWith } from '../support.ts';

const EACCES = 13;
const ENOSYS = 38;
const EOPNOTSUPP = 95;
const KILLED_BY_FILTER = 128 + 31;

/** Prints what each call answers: 0 or an errno. The numbers are those of x86_64. */
const ANSWERS = python(`
import ctypes, json
libc = ctypes.CDLL(None, use_errno=True)
def answer(*call):
  return ctypes.get_errno() if libc.syscall(*call) < 0 else 0
print('answers', json.dumps(dict(
  kexec_load=answer(246, 0, 0, 0, 0),
  open_by_handle_at=answer(304, -1, ctypes.create_string_buffer(bytes([8,0,0,0,1,0,0,0]+[0]*32)), 0),
  init_module=answer(175, b"x", 1, b""),
  finit_module=answer(313, -1, b"", 0),
  delete_module=answer(176, b"loop", 0),
  force_umount=answer(166, b"/tmp", 1),
  mkdir=answer(83, b"/tmp/made", 0o700),
  keyctl=answer(250, 1, b"own"),
)))`);

/** What busybox needs to be a container. */
const ENOUGH =
  `read write open openat openat2 close stat fstat lstat newfstatat statx poll ppoll lseek mmap mprotect munmap brk rt_sigaction
rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait ioctl pread64 pwrite64 readv writev access faccessat faccessat2 pipe pipe2 select
pselect6 sched_yield mremap madvise dup dup2 dup3 pause nanosleep clock_nanosleep getpid socket connect accept sendto recvfrom sendmsg
recvmsg shutdown bind listen getsockname getpeername setsockopt getsockopt clone clone3 fork vfork execve exit exit_group wait4 waitid kill
uname fcntl flock fsync truncate ftruncate getdents getdents64 getcwd chdir fchdir rename renameat unlink unlinkat readlink readlinkat chmod
fchmod fchmodat chown fchown lchown fchownat umask gettimeofday getrlimit getrusage sysinfo times getuid getgid setuid setgid geteuid
getegid setpgid getppid getpgrp setsid setgroups getgroups setresuid getresuid setresgid getresgid getpgid sigaltstack statfs fstatfs
prctl arch_prctl setrlimit prlimit64 sync mount umount2 sethostname gettid tkill tgkill time futex set_tid_address clock_gettime
clock_getres set_robust_list rseq getrandom epoll_create1 epoll_ctl epoll_wait eventfd2 signalfd4 socketpair utimensat reboot`.split(
    /\s+/,
  );

const isNumbered = process.arch === 'x64';

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'python3'] }, 'filters of system calls', () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    daemon = await TestDaemon.start(HOSTILE_DRIVER);
    await daemon.addImage();
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  async function launch(name: string, config: Readonly<Record<string, string>>): Promise<HostileGuest> {
    await daemon.launch(name, { config, devices: { tools: TOOLS } });
    await daemon.ready(name);
    return new HostileGuest(daemon, name);
  }

  async function answers(name: string, config: Readonly<Record<string, string>>): Promise<Record<string, number>> {
    const guest = await launch(name, config);
    const { code, output } = await guest.exec(ANSWERS);
    expect(code, output).toBe(0);
    return JSON.parse(output.slice(output.indexOf('{'))) as Record<string, number>;
  }

  const DENIED = {
    kexec_load: ENOSYS,
    open_by_handle_at: ENOSYS,
    init_module: ENOSYS,
    finit_module: ENOSYS,
    delete_module: ENOSYS,
    force_umount: EACCES,
  };

  it.runIf(isNumbered)('deny what LXD denies by default, and nothing else', async () => {
    expect(await answers('default', {})).toEqual({ ...DENIED, mkdir: 0, keyctl: expect.any(Number) });
    expect((await answers('compat', { 'security.syscalls.deny_compat': 'true' }))['kexec_load']).toBe(ENOSYS);
  });

  it.runIf(isNumbered)('are off when they are switched off, and the kernel decides', async () => {
    const found = await answers('off', { 'security.syscalls.deny_default': 'false' });

    expect(found['open_by_handle_at']).not.toBe(ENOSYS);
    expect(found['force_umount']).not.toBe(EACCES);
    expect(found['kexec_load']).not.toBe(0);
    const { output } = await new HostileGuest(daemon, 'off').sh('grep ^Seccomp: /proc/1/status');
    expect(output).toBe('Seccomp:\t0\n');
  });

  it.runIf(isNumbered)('deny more beside the default, by both names', async () => {
    const more = { ...DENIED, mkdir: EOPNOTSUPP };
    expect(await answers('deny', { 'security.syscalls.deny': 'mkdir errno 95' })).toMatchObject(more);
    expect(await answers('black', { 'security.syscalls.blacklist': 'mkdir errno 95' })).toMatchObject(more);
  });

  it.runIf(isNumbered)('are replaced by a policy of one own', async () => {
    const found = await answers('raw', { 'raw.seccomp': '2\ndenylist\n[all]\nmkdir errno 95' });

    expect(found).toMatchObject({ mkdir: EOPNOTSUPP });
    expect(found['open_by_handle_at']).not.toBe(ENOSYS);
  });

  it.runIf(isNumbered)('end who calls what is not allowed', async () => {
    const guest = await launch('allow', { 'security.syscalls.allow': ENOUGH.join('\n') });
    expect((await guest.sh('mkdir /tmp/made')).code).toBe(KILLED_BY_FILTER);
    expect((await guest.sh('ls -d /tmp')).output).toBe('/tmp\n');

    const more = await launch('allow-more', { 'security.syscalls.allow': [...ENOUGH, 'mkdir'].join('\n') });
    expect((await more.sh('mkdir /tmp/made')).code).toBe(0);
  });
});
