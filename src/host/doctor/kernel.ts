// What the kernel gives containers: namespaces, control groups, file systems, id maps.
import type { Finding } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';
import { parseMountInfo } from '../mount-info.ts';
import { readIfPresent } from '../read-if-present.ts';
import { findProgram } from './tools.ts';

const NAMESPACES = ['user', 'pid', 'mnt', 'net', 'ipc', 'uts', 'cgroup'];
/** Controllers, and what is not held without them. */
const CONTROLLERS: Readonly<Record<string, string>> = {
  memory: 'limits.memory',
  cpu: 'limits.cpu.allowance',
  cpuset: 'limits.cpu',
  pids: 'limits.processes',
  devices: 'the devices that a container may open (version 1; version 2 does it by eBPF)',
  freezer: 'pause (version 1; version 2 has it always)',
  blkio: 'rates of disks',
  hugetlb: 'limits.hugepages',
};
/** In version 2 they have other names, or are no controllers. */
const ALWAYS_IN_V2 = new Set(['devices', 'freezer']);
const WITHOUT_PRIORITIES = 'version 2 (has no limits.network.priority and no limits.memory.swap.priority)';
const FILE_SYSTEMS: Readonly<Record<string, string>> = {
  overlay: 'the default pool (driver overlay)',
  btrfs: 'pools of the driver btrfs',
  zfs: 'pools of the driver zfs (or zfs-fuse)',
};

export async function examineKernel(host: Host, stateFolder: string): Promise<readonly Finding[]> {
  const [release, ...rest] = await Promise.all([
    host.readFile('/proc/sys/kernel/osrelease'),
    namespaces(host),
    idMaps(host, stateFolder),
    seccomp(host),
    appArmor(host),
    deviceMapper(host),
  ]);
  return [finding('version', 'ok', release.trim()), ...rest];
}

function finding(what: string, state: Finding['state'], found: string, advice = ''): Finding {
  return { area: 'kernel', what, state, found, advice };
}

async function namespaces(host: Host): Promise<Finding> {
  const there = new Set(await host.list('/proc/self/ns'));
  const missing = NAMESPACES.filter((name) => !there.has(name));
  if (missing.length > 0) {
    return finding('namespaces', 'bad', `without ${missing.join(', ')}`, 'boot a kernel that has them');
  }
  const limit = Number(await readIfPresent(host, '/proc/sys/user/max_user_namespaces'));
  if (limit > 0) return finding('namespaces', 'ok', 'all');
  return finding('namespaces', 'bad', 'no user namespaces allowed', 'raise user.max_user_namespaces (sysctl)');
}

async function idMaps(host: Host, stateFolder: string): Promise<Finding> {
  if (!(await host.exists(stateFolder))) {
    return finding('id-mapped mounts', 'ok', `not known before ${stateFolder} is there: start lighterd once`);
  }
  if (await host.mounts.canMapIds(stateFolder)) return finding('id-mapped mounts', 'ok', 'yes');
  return finding(
    'id-mapped mounts',
    'note',
    `not on the file system of ${stateFolder}`,
    'the owners of files are changed one by one instead: slower; ext4, xfs or btrfs on Linux 5.12 and later can',
  );
}

async function seccomp(host: Host): Promise<Finding> {
  const actions = await readIfPresent(host, '/proc/sys/kernel/seccomp/actions_avail');
  if (actions !== undefined) return finding('seccomp', 'ok', 'yes');
  return finding('seccomp', 'note', 'no', 'system calls of containers are not filtered: boot a kernel that can');
}

export async function hasAppArmor(host: Host): Promise<boolean> {
  return (await readIfPresent(host, '/sys/module/apparmor/parameters/enabled'))?.trim() === 'Y';
}

/** liblxc makes a profile for each container and has it loaded by the parser. */
async function appArmor(host: Host): Promise<Finding> {
  if (!(await hasAppArmor(host)))
    return finding('AppArmor', 'ok', 'off (containers are confined by their user namespace)');
  if ((await findProgram(host, 'apparmor_parser')) === undefined) {
    const advice = 'apt install apparmor: no container starts without it on this kernel';
    return finding('AppArmor', 'bad', 'on, without apparmor_parser', advice);
  }
  if (await host.exists('/sys/kernel/security/apparmor/profiles')) return finding('AppArmor', 'ok', 'on');
  const advice = 'mount -t securityfs securityfs /sys/kernel/security: no container starts without it on this kernel';
  return finding('AppArmor', 'bad', 'on, without /sys/kernel/security', advice);
}

async function deviceMapper(host: Host): Promise<Finding> {
  const devices = (await readIfPresent(host, '/proc/misc')) ?? '';
  if (/\sdevice-mapper$/mu.test(devices)) return finding('device mapper', 'ok', 'yes');
  const advice = 'modprobe dm_thin_pool, or a kernel that has it: needed for pools of the driver lvm';
  return finding('device mapper', 'note', 'not in the running kernel', advice);
}

export async function examineCgroups(host: Host): Promise<readonly Finding[]> {
  const mounts = parseMountInfo(await host.readFile('/proc/self/mountinfo'));
  const isV1 = mounts.some(({ type }) => type === 'cgroup');
  const unified = mounts.find(({ type }) => type === 'cgroup2')?.target;
  if (!isV1 && unified === undefined) {
    return [cgroup('layout', 'bad', 'none mounted', 'mount cgroup2 on /sys/fs/cgroup')];
  }
  const layout = isV1 ? (unified === undefined ? 'version 1' : 'hybrid') : WITHOUT_PRIORITIES;
  const controllers = isV1 ? await firstVersion(host) : await secondVersion(host, unified ?? '');
  const missing = Object.entries(CONTROLLERS).filter(([name]) => !controllers.has(name));
  return [
    cgroup('layout', 'ok', layout),
    ...missing.map(([name, use]) => cgroup(name, 'note', 'not there', `does not hold: ${use}`)),
    ...(missing.length === 0 ? [cgroup('controllers', 'ok', Object.keys(CONTROLLERS).join(', '))] : []),
  ];
}

function cgroup(what: string, state: Finding['state'], found: string, advice = ''): Finding {
  return { area: 'cgroups', what, state, found, advice };
}

/** Lines of `name hierarchy cgroups enabled`. */
async function firstVersion(host: Host): Promise<ReadonlySet<string>> {
  const lines = (await host.readFile('/proc/cgroups')).split('\n').filter((line) => !line.startsWith('#'));
  const enabled = lines.map((line) => line.split(/\s+/)).filter((fields) => fields[3] === '1');
  return new Set(enabled.map(([name = '']) => name));
}

async function secondVersion(host: Host, folder: string): Promise<ReadonlySet<string>> {
  const names = ((await readIfPresent(host, `${folder}/cgroup.controllers`)) ?? '').trim().split(/\s+/);
  const known = names.map((name) => (name === 'io' ? 'blkio' : name));
  return new Set([...known, ...ALWAYS_IN_V2]);
}

export async function examineFileSystems(host: Host): Promise<readonly Finding[]> {
  const known = new Set((await host.readFile('/proc/filesystems')).split('\n').map((line) => line.split('\t').at(-1)));
  return Object.entries(FILE_SYSTEMS).map(([name, use]) => ({
    area: 'file systems',
    what: name,
    state: known.has(name) ? 'ok' : 'note',
    found: known.has(name) ? 'yes' : 'not in the running kernel',
    advice: known.has(name) ? '' : `modprobe ${name}: needed for ${use}`,
  }));
}
