// Whether the kernel can hold a system call until somebody else has looked at it.
import type { Host } from '../host.ts';
import { readIfPresent } from '../read-if-present.ts';

/** Since Linux 5.5 a held call can go on in the kernel. */
const SINCE = [5, 5] as const;

/** By what seccomp says it can do, and the release. */
export async function canIntercept(host: Host): Promise<boolean> {
  const actions = (await readIfPresent(host, '/proc/sys/kernel/seccomp/actions_avail')) ?? '';
  return actions.split(/\s+/u).includes('user_notif') && isRecent(await host.readFile('/proc/sys/kernel/osrelease'));
}

function isRecent(release: string): boolean {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return major > SINCE[0] || (major === SINCE[0] && minor >= SINCE[1]);
}
