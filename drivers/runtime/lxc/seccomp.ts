// System call policies in libseccomp's version 2 text, as liblxc reads them (lxd-engine-contract section 4.4).
import { dirname, join } from 'node:path';
import type { InterceptedCall, RuntimeContainer, RuntimeSeccomp, RuntimeSpec } from '../driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { HostFeatures } from './config.ts';

const DENY_DEFAULT = [
  '[all]',
  'reject_force_umount  # comment this to allow umount -f;  not recommended',
  '[all]',
  'kexec_load errno 38',
  'open_by_handle_at errno 38',
  'init_module errno 38',
  'finit_module errno 38',
  'delete_module errno 38',
];

/** 32-bit and x32 entry points that have no use but attacks on a 64-bit container. */
const DENY_COMPAT = [
  '[%s]',
  'compat_sys_rt_sigaction errno 38',
  'stub_x32_rt_sigreturn errno 38',
  'compat_sys_ioctl errno 38',
  'compat_sys_readv errno 38',
  'compat_sys_writev errno 38',
  'compat_sys_recvfrom errno 38',
  'compat_sys_sendmsg errno 38',
  'compat_sys_recvmsg errno 38',
  'stub_x32_execve errno 38',
  'compat_sys_ptrace errno 38',
  'compat_sys_rt_sigpending errno 38',
  'compat_sys_rt_sigtimedwait errno 38',
  'compat_sys_rt_sigqueueinfo errno 38',
  'compat_sys_sigaltstack errno 38',
  'compat_sys_timer_create errno 38',
  'compat_sys_mq_notify errno 38',
  'compat_sys_kexec_load errno 38',
  'compat_sys_waitid errno 38',
  'compat_sys_set_robust_list errno 38',
  'compat_sys_get_robust_list errno 38',
  'compat_sys_vmsplice errno 38',
  'compat_sys_move_pages errno 38',
  'compat_sys_preadv64 errno 38',
  'compat_sys_pwritev64 errno 38',
  'compat_sys_rt_tgsigqueueinfo errno 38',
  'compat_sys_recvmmsg errno 38',
  'compat_sys_sendmmsg errno 38',
  'compat_sys_process_vm_readv errno 38',
  'compat_sys_process_vm_writev errno 38',
  'compat_sys_setsockopt errno 38',
  'compat_sys_getsockopt errno 38',
  'compat_sys_io_setup errno 38',
  'compat_sys_io_submit errno 38',
  'stub_x32_execveat errno 38',
];

/** By the type of a node, and by the length of a value: what else they are called with is refused or done by the kernel. */
const NOTIFY: Readonly<Record<InterceptedCall, readonly string[]>> = {
  mknod: ['mknod notify [1,8192,SCMP_CMP_MASKED_EQ,61440]', 'mknodat notify [2,8192,SCMP_CMP_MASKED_EQ,61440]'],
  setxattr: ['setxattr notify [3,1,SCMP_CMP_EQ]', 'lsetxattr notify [3,1,SCMP_CMP_EQ]'],
};
/** The kernel has one listener for a process: a filter of the container's own that wants another is refused as by an older kernel. */
const ONE_LISTENER = 'seccomp errno 22 [1,8,SCMP_CMP_MASKED_EQ,8]';

/** AppError 'unsupported' when calls are to be intercepted and this kernel cannot. */
export function checkInterception(
  seccomp: RuntimeSeccomp,
  { interceptsCalls }: Pick<HostFeatures, 'interceptsCalls'>,
): void {
  if (!intercepts(seccomp) || interceptsCalls) return;
  throw new AppError('unsupported', "System calls are intercepted on Linux 5.5 or later with seccomp's user_notif");
}

/** Whether somebody has to be there who does calls for the container. */
export function intercepts({ intercept }: RuntimeSeccomp): boolean {
  return intercept.length > 0;
}

const policyPath = ({ configPath }: RuntimeContainer): string => join(dirname(configPath), 'seccomp');

/** Of the policy; undefined when there is none. */
export function seccompPath(container: RuntimeContainer, { seccomp, architecture }: RuntimeSpec): string | undefined {
  return seccompPolicy(seccomp, architecture) === undefined ? undefined : policyPath(container);
}

/** Paths and contents of what belongs to a configuration. */
export function policyFiles(container: RuntimeContainer, spec: RuntimeSpec): readonly (readonly [string, string])[] {
  const policy = seccompPolicy(spec.seccomp, spec.architecture);
  return policy === undefined ? [] : [[policyPath(container), policy]];
}

/** undefined: the container runs without a filter. */
export function seccompPolicy(seccomp: RuntimeSeccomp, architecture: string): string | undefined {
  if (seccomp.raw !== undefined) return withNewline(seccomp.raw);
  const intercept = intercepted(seccomp);
  if (seccomp.allow.length > 0) return lines(['2', 'allowlist', '[all]', ...seccomp.allow, ...intercept]);
  const rules = [
    ...(seccomp.denyDefault ? DENY_DEFAULT : []),
    ...(intercept.length > 0 ? ['[all]', ...intercept] : []),
    ...(seccomp.deny.length > 0 ? ['[all]', ...seccomp.deny] : []),
    ...(seccomp.denyCompat ? DENY_COMPAT.map((line) => line.replace('%s', architecture)) : []),
  ];
  return rules.length > 0 ? lines(['2', 'denylist', ...rules]) : undefined;
}

function intercepted({ intercept }: RuntimeSeccomp): readonly string[] {
  const held = intercept.flatMap((call) => NOTIFY[call]);
  return held.length === 0 ? [] : [ONE_LISTENER, ...held];
}

function lines(all: readonly string[]): string {
  return `${all.join('\n')}\n`;
}

function withNewline(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`;
}
