// raw.lxc (lxd-engine-contract section 3.1): lines `key = value`. What the engine owns is refused, and what liblxc does not know: the
// container would not start with it.
import { AppError } from '#src/lib/errors.ts';

const FORBIDDEN = new Set(['lxc.logfile', 'lxc.log.file', 'lxc.syslog', 'lxc.ephemeral']);
const NETWORK = /^lxc\.net\.\d+\.(ipv4|ipv6)\.(address|gateway)$/;

/** Keys of liblxc 5 and 6. */
const KEYS = new Set(
  `arch apparmor.allow_incomplete apparmor.allow_nesting apparmor.profile apparmor.raw autodev autodev.tmpfs.size cap.drop cap.keep
  cgroup.dir cgroup.dir.container cgroup.dir.container.inner cgroup.dir.monitor cgroup.dir.monitor.pivot cgroup.relative
  console.buffer.size console.logfile console.path console.rotate console.size environment environment.hooks environment.runtime
  execute.cmd group hook hook.autodev hook.clone hook.destroy hook.mount hook.post-stop hook.pre-mount hook.pre-start hook.start
  hook.start-host hook.stop hook.version idmap include init.cmd init.cwd init.gid init.groups init.uid keyring.session log.level
  log.syslog monitor.signal.pdeath monitor.unshare mount.auto mount.entry mount.fstab namespace.clone namespace.keep no_new_privs
  proc pty.max rootfs.managed rootfs.mount rootfs.options rootfs.path sched.core seccomp.allow_nesting seccomp.notify.cookie
  seccomp.notify.proxy seccomp.profile selinux.context selinux.context.keyring signal.halt signal.reboot signal.stop start.auto
  start.delay start.order time.offset.boot time.offset.monotonic tty.dir tty.max uts.name`
    .split(/\s+/)
    .map((key) => `lxc.${key}`),
);
const PREFIXES = ['lxc.cgroup.', 'lxc.cgroup2.', 'lxc.net.', 'lxc.namespace.share.', 'lxc.proc.', 'lxc.sysctl.'];

/** AppError 'invalid'. */
export function validateRawConfig(raw: string): void {
  for (const text of raw.split('\n')) {
    const trimmed = text.split('#', 1)[0]?.trim() ?? '';
    if (trimmed === '') continue;
    const separator = trimmed.indexOf('=');
    if (separator < 0) throw new AppError('invalid', `Invalid raw.lxc line: ${trimmed}`);
    validateKey(trimmed.slice(0, separator).trim().toLowerCase());
  }
}

function validateKey(key: string): void {
  if (FORBIDDEN.has(key)) throw new AppError('invalid', `Setting ${key} is not allowed`);
  if (key.startsWith('lxc.prlimit.')) {
    throw new AppError(
      'invalid',
      'Process limits should be set via "limits.kernel.[limit name]" and not directly via "lxc.prlimit.[limit name]"',
    );
  }
  if (key.startsWith('lxc.net.') && !NETWORK.test(key)) {
    throw new AppError('invalid', 'Only interface-specific ipv4/ipv6 lxc.net.* keys are allowed');
  }
  if (KEYS.has(key) || PREFIXES.some((prefix) => key.startsWith(prefix) && key.length > prefix.length)) return;
  throw new AppError('invalid', `Failed to set config item: unknown key ${key} in raw.lxc`);
}
