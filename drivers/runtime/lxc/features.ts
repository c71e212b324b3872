// What the host offers to containers: cgroups, AppArmor, and the files of it that they may see.
import type { Host } from '#src/host/host.ts';
import { LXCFS } from '#src/host/lxcfs.ts';
import { canIntercept } from '#src/host/system-calls/support.ts';
import type { Log } from '#src/lib/log.ts';
import type { RuntimeMount } from '../driver.ts';
import { probeSwapAccounting, readCgroupLayout } from './cgroups.ts';
import type { HostFeatures } from './config.ts';

/** Host path → how it is mounted (lxd-engine-contract section 4.1). */
const CANDIDATES: readonly (readonly [path: string, options: readonly string[]])[] = [
  ['/dev/fuse', ['bind', 'create=file', 'optional']],
  ['/dev/net/tun', ['bind', 'create=file', 'optional']],
  ['/dev/mqueue', ['rbind', 'create=dir', 'optional']],
  ['/proc/sys/fs/binfmt_misc', ['rbind', 'create=dir', 'optional']],
  ['/sys/firmware/efi/efivars', ['rbind', 'create=dir', 'optional']],
  ['/sys/fs/fuse/connections', ['rbind', 'create=dir', 'optional']],
  ['/sys/fs/pstore', ['rbind', 'create=dir', 'optional']],
  ['/sys/kernel/config', ['rbind', 'create=dir', 'optional']],
  ['/sys/kernel/debug', ['rbind', 'create=dir', 'optional']],
  ['/sys/kernel/security', ['rbind', 'create=dir', 'optional']],
  ['/sys/kernel/tracing', ['rbind', 'create=dir', 'optional']],
];

export async function readHostFeatures(host: Host): Promise<HostFeatures> {
  const cgroups = await probeSwapAccounting(host, await readCgroupLayout(host));
  const apparmor = await host.readFile('/sys/module/apparmor/parameters/enabled').catch(() => 'N');
  const present: RuntimeMount[] = [];
  for (const [path, options] of CANDIDATES) {
    if (await host.exists(path)) present.push({ source: path, target: path.slice(1), type: 'none', options });
  }
  const interceptsCalls = await canIntercept(host);
  return { cgroups, apparmor: apparmor.trim() === 'Y', interceptsCalls, extraMounts: present };
}

/** lxcfs shows a container its own limits in /proc; only where it runs. A container starts without it as well. */
export async function lxcfsMounts(host: Host, log: Log): Promise<readonly RuntimeMount[]> {
  try {
    return await readLxcfs(host);
  } catch (error) {
    log.warn('lxcfs does not answer: containers see the memory and the CPUs of the host', { error });
    return [];
  }
}

async function readLxcfs(host: Host): Promise<readonly RuntimeMount[]> {
  const files = await host.list(`${LXCFS}/proc`);
  const mounts = files.map((file) => ({
    source: `${LXCFS}/proc/${file}`,
    target: `proc/${file}`,
    type: 'none',
    options: ['bind', 'optional'],
  }));
  const cpus = `${LXCFS}/sys/devices/system/cpu`;
  if (!(await host.exists(cpus))) return mounts;
  return [...mounts, { source: cpus, target: 'sys/devices/system/cpu', type: 'none', options: ['rbind', 'optional'] }];
}
