// Restrictions of a project: what its instances and profiles may not say (lxd-engine-contract section 3.6).
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { ownValue } from '#src/lib/own-value.ts';
import { swapLimit } from '../instances/limits.ts';
import { parseBoolean } from '../instances/values.ts';
import type { ConfigMap } from '../types.ts';
import type { Candidate, ProjectEntities } from './entities.ts';

/** What holds in a restricted project that says nothing else; absent: block. */
const DEFAULTS: ConfigMap = {
  'restricted.containers.privilege': 'unprivileged',
  'restricted.devices.nic': 'managed',
  'restricted.devices.disk': 'managed',
  'restricted.devices.disk.paths': '',
  'restricted.idmap.uid': '',
  'restricted.idmap.gid': '',
  'restricted.networks.access': '',
};

export function isRestricted(config: ConfigMap): boolean {
  return parseBoolean(config['restricted']);
}

export function restriction(config: ConfigMap, key: string): string {
  const value = config[key] ?? '';
  return value === '' ? (DEFAULTS[key] ?? 'block') : value;
}

const LOW_LEVEL = new Set([
  'boot.host_shutdown_timeout',
  'linux.kernel_modules',
  'raw.apparmor',
  'raw.idmap',
  'raw.lxc',
  'raw.seccomp',
  'security.devlxd.images',
  'security.idmap.base',
  'security.idmap.size',
]);
const INTERCEPTION = new Set([
  'security.syscalls.intercept.bpf',
  'security.syscalls.intercept.bpf.devices',
  'security.syscalls.intercept.mknod',
  'security.syscalls.intercept.mount',
  'security.syscalls.intercept.mount.fuse',
  'security.syscalls.intercept.setxattr',
]);
/** Of virtual machines; a profile may be used by one. */
const LOW_LEVEL_OF_MACHINES = new Set([
  'boot.host_shutdown_timeout',
  'limits.memory.hugepages',
  'raw.idmap',
  'raw.qemu',
]);

/** Devices that are allowed or not, by type. */
const DEVICES: Readonly<Record<string, readonly [key: string, complaint: string]>> = {
  'unix-char': ['restricted.devices.unix-char', 'Unix character devices are forbidden'],
  'unix-block': ['restricted.devices.unix-block', 'Unix block devices are forbidden'],
  'unix-hotplug': ['restricted.devices.unix-hotplug', 'Unix hotplug devices are forbidden'],
  infiniband: ['restricted.devices.infiniband', 'Infiniband devices are forbidden'],
  gpu: ['restricted.devices.gpu', 'GPU devices are forbidden'],
  usb: ['restricted.devices.usb', 'USB devices are forbidden'],
  pci: ['restricted.devices.pci', 'PCI devices are forbidden'],
  proxy: ['restricted.devices.proxy', 'Proxy devices are forbidden'],
};

type Kind = 'container' | 'profile';

/** AppError with LXD's text for the first thing that is forbidden. */
export function checkRestrictions({ project, instances, profiles }: ProjectEntities): void {
  for (const instance of instances) checkOne(project, 'container', instance);
  for (const profile of profiles) checkOne(project, 'profile', profile);
}

function checkOne(project: ProjectEntities['project'], kind: Kind, { name, config, devices }: Candidate): void {
  const rules = project.config;
  const where = `${kind} "${name}" of project "${project.name}"`;
  for (const [key, value] of Object.entries(config)) {
    checkLowLevel(rules, kind, { key, value, where });
    const complaint = configComplaint(rules, key, value);
    if (complaint === undefined) continue;
    throw new AppError('forbidden', `Invalid value "${value}" for config "${key}" on ${where}: ${complaint}`);
  }
  for (const [device, options] of Object.entries(devices)) {
    const complaint = deviceComplaint(rules, options);
    if (complaint === undefined) continue;
    throw new AppError('forbidden', `Invalid device "${device}" on ${where}: ${complaint}`);
  }
}

interface Setting {
  readonly key: string;
  readonly value: string;
  readonly where: string;
}

function checkLowLevel(rules: ConfigMap, kind: Kind, { key, value, where }: Setting): void {
  const containers = restriction(rules, 'restricted.containers.lowlevel') === 'allow';
  const machines = restriction(rules, 'restricted.virtual-machines.lowlevel') === 'allow';
  if (kind === 'container' ? containers : containers && machines) return;
  if (key === 'raw.idmap') return checkRawIdMap(rules, value, where);
  const forbidden = isLowLevel(key, value) || (kind === 'profile' && LOW_LEVEL_OF_MACHINES.has(key));
  if (!forbidden) return;
  throw new AppError('forbidden', `Use of low-level config "${key}" on ${where} is forbidden`);
}

function isLowLevel(key: string, value: string): boolean {
  // memory that a limit of the project does not count
  if (key === 'limits.memory.swap') return typeof swapLimit(value) === 'number';
  const isIntercept = key.startsWith('security.syscalls.intercept') && !INTERCEPTION.has(key);
  return isIntercept || LOW_LEVEL.has(key);
}

function checkRawIdMap(rules: ConfigMap, value: string, where: string): void {
  const lines = value.split('\n').filter((line) => line.trim() !== '');
  for (const [index, line] of lines.entries()) {
    const [kind = '', host = ''] = line.trim().split(/\s+/u);
    const kinds = kind === 'both' ? ['uid', 'gid'] : [kind];
    if (kinds.every((id) => covers(rules[`restricted.idmap.${id}`] ?? '', host))) continue;
    throw new AppError('forbidden', `Use of low-level "raw.idmap" element ${index} on ${where} is forbidden`);
  }
}

/** Whether ranges "100-200,300" hold all of "150-160". */
function covers(allowed: string, wanted: string): boolean {
  const range = (text: string) => {
    const [first = Number.NaN, last = first] = text.trim().split('-').map(Number);
    return { first, last };
  };
  const { first, last } = range(wanted);
  return allowed
    .split(',')
    .filter((part) => part.trim() !== '')
    .map(range)
    .some((one) => one.first <= first && last <= one.last);
}

/** Keys of a container that are allowed or not, by what they are set to. */
const SETTINGS: Readonly<Record<string, (rules: ConfigMap, value: string) => string | undefined>> = {
  'security.nesting': (rules, value) => {
    const blocked = restriction(rules, 'restricted.containers.nesting') === 'block' && isTrue(value);
    return blocked ? 'Container nesting is forbidden' : undefined;
  },
  'security.privileged': (rules, value) => {
    const allowed = restriction(rules, 'restricted.containers.privilege') === 'allow';
    return !allowed && isTrue(value) ? 'Privileged containers are forbidden' : undefined;
  },
  'security.idmap.isolated': (rules, value) => {
    const isolated = restriction(rules, 'restricted.containers.privilege') === 'isolated';
    return isolated && !isTrue(value) ? 'Non-isolated containers are forbidden' : undefined;
  },
};

function configComplaint(rules: ConfigMap, key: string, value: string): string | undefined {
  const setting = Object.hasOwn(SETTINGS, key) ? SETTINGS[key] : undefined;
  if (setting) return setting(rules, value);
  if (!INTERCEPTION.has(key) || !isTrue(value)) return undefined;
  const allowed = restriction(rules, 'restricted.containers.interception') === 'allow';
  return allowed ? undefined : 'Container syscall interception is forbidden';
}

/** What the rules of values have refused already is not ours to judge. */
function isTrue(value: string): boolean {
  return ['true', '1', 'yes', 'on'].includes(value.toLowerCase());
}

function deviceComplaint(rules: ConfigMap, device: ConfigMap): string | undefined {
  const type = device['type'] ?? '';
  if (type === 'nic') return nicComplaint(rules, device);
  if (type === 'disk') return diskComplaint(rules, device);
  const [key, complaint] = ownValue(DEVICES, type) ?? [];
  return key !== undefined && restriction(rules, key) === 'block' ? complaint : undefined;
}

function nicComplaint(rules: ConfigMap, { network = '', parent = '' }: ConfigMap): string | undefined {
  const mode = restriction(rules, 'restricted.devices.nic');
  if (mode === 'block') return 'Network devices are forbidden';
  if (mode === 'managed' && network === '') return 'Only managed network devices are allowed';
  const name = network === '' ? parent : network;
  if (name !== '' && !networkAllowed(rules, name)) return 'Network not allowed in project';
  return undefined;
}

/** Whether a client of a project sees a network or interface; `isManaged`: by the engine. */
export function networkVisible(rules: ConfigMap, name: string, isManaged: boolean): boolean {
  if (!isRestricted(rules)) return true;
  const mode = restriction(rules, 'restricted.devices.nic');
  if (mode === 'block' || (mode === 'managed' && !isManaged)) return false;
  return networkAllowed(rules, name);
}

function networkAllowed(rules: ConfigMap, name: string): boolean {
  const access = restriction(rules, 'restricted.networks.access');
  return access === '' || access.split(',').some((one) => one.trim() === name);
}

/** What of the host a disk shows; undefined: nothing but a pool's. A root on a device is as much as a disk that comes from there. */
function hostSource({ pool = '', source = '', 'lighter.block': block = '' }: ConfigMap): string | undefined {
  if (block !== '') return block;
  return pool === '' ? source : undefined;
}

function diskComplaint(rules: ConfigMap, disk: ConfigMap): string | undefined {
  const mode = restriction(rules, 'restricted.devices.disk');
  const source = hostSource(disk);
  if (source === undefined && disk['path'] === '/') return undefined;
  if (mode === 'block') return 'Disk devices are forbidden';
  if (source === undefined) return undefined;
  if (mode === 'managed') return 'Attaching disks not backed by a pool is forbidden';
  return pathAllowed(rules, source) ? undefined : `Disk source path "${source}" not allowed`;
}

function pathAllowed(rules: ConfigMap, source: string): boolean {
  return restriction(rules, 'restricted.devices.disk.paths') === '' || allowedParent(rules, source) !== undefined;
}

/** The directory that disks of the project may come from and `source` is in by its name; links are another matter. */
export function allowedParent(rules: ConfigMap, source: string): string | undefined {
  const parents = restriction(rules, 'restricted.devices.disk.paths').split(',');
  const allowed = parents.map((parent) => join('/', parent.trim(), '/'));
  return allowed.find((parent) => join('/', source, '/').startsWith(parent));
}

const SAFE_VOLATILE = /^volatile\.(apply_template|base_image|last_state\.power|.*\.apply_quota|.*\.hwaddr)$/u;

/** Volatile keys that clients of a restricted project may not set: what the engine keeps for itself. */
export function checkVolatile(
  project: ProjectEntities['project'],
  { name, config }: Pick<Candidate, 'name' | 'config'>,
  current: ConfigMap,
): void {
  if (!isRestricted(project.config)) return;
  if (restriction(project.config, 'restricted.containers.lowlevel') === 'allow') return;
  for (const [key, value] of Object.entries(config)) {
    if (!key.startsWith('volatile.') || SAFE_VOLATILE.test(key) || current[key] === value) continue;
    const what = Object.hasOwn(current, key) ? 'Changing' : 'Setting';
    throw new AppError(
      'forbidden',
      `${what} "${key}" on container "${name}" in project "${project.name}" is forbidden`,
    );
  }
}

/** AppError with LXD's words when the project may not make backups or snapshots. */
export function checkAllowed(project: ProjectEntities['project'], what: 'backups' | 'snapshots'): void {
  if (!isRestricted(project.config) || restriction(project.config, `restricted.${what}`) !== 'block') return;
  const kind = what === 'backups' ? 'backup' : 'snapshot';
  throw new AppError('forbidden', `Project "${project.name}" doesn't allow for ${kind} creation`);
}
