/* oxlint-disable max-lines -- a table of data */
// Every configuration key of an instance and what its value may be (lxd-engine-contract section 3.1).
import { AppError } from '#src/lib/errors.ts';
import { cron } from '../snapshots/cron.ts';
import { expressionsOf } from '../snapshots/schedule.ts';
import { idMapFromJson } from './idmap.ts';
import { swapLimit } from './limits.ts';
import { parseRawIdMap } from './raw-idmap.ts';
import {
  isCpuCount,
  parseBoolean,
  parseCpuAllowance,
  parseCpuList,
  parseInteger,
  parseMemory,
  parseSize,
} from './values.ts';

/** Throws AppError 'invalid' when the value is malformed. Never called with an empty value. */
export type ValueCheck = (value: string) => void;

const any: ValueCheck = () => undefined;
const boolean: ValueCheck = (value) => void parseBoolean(value);
const integer: ValueCheck = (value) => void parseInteger(value);
const size: ValueCheck = (value) => void parseSize(value);

const uint32: ValueCheck = (value) => {
  if (!/^\d+$/.test(value)) {
    throw new AppError(
      'invalid',
      `Invalid value for uint32 "${value}": strconv.ParseUint: parsing "${value}": invalid syntax`,
    );
  }
  if (Number(value) > 0xffffffff) {
    throw new AppError(
      'invalid',
      `Invalid value for uint32 "${value}": strconv.ParseUint: parsing "${value}": value out of range`,
    );
  }
};

const idMapSize: ValueCheck = (value) => {
  if (value !== 'auto') uint32(value);
};

/** What an instance has on the host is read back from these. */
const idMap: ValueCheck = (value) => void idMapFromJson(value);

function oneOf(...allowed: readonly string[]): ValueCheck {
  return (value) => {
    if (!allowed.includes(value))
      throw new AppError('invalid', `Invalid value "${value}" (not one of [${allowed.join(' ')}])`);
  };
}

function priority(value: string): void {
  const number = parseInteger(value);
  if (number < 0 || number > 10)
    throw new AppError('invalid', `Invalid value for a limit '${value}'. Must be between 0 and 10`);
}

const memory: ValueCheck = (value) => void parseMemory(value, Number.MAX_SAFE_INTEGER);

const cpu: ValueCheck = (value) => {
  if (!isCpuCount(value)) parseCpuList(value);
};

const SCHEDULE_ALIASES = [
  '@hourly',
  '@daily',
  '@midnight',
  '@weekly',
  '@monthly',
  '@annually',
  '@yearly',
  '@startup',
  '@never',
];

const schedule: ValueCheck = (value) => {
  for (const part of expressionsOf(value)) {
    if (SCHEDULE_ALIASES.includes(part)) continue;
    if (part.split(/\s+/).length !== 5 || !cron().validate(part)) {
      throw new AppError(
        'invalid',
        'Schedule must be of the form: <minute> <hour> <day-of-month> <month> <day-of-week>',
      );
    }
  }
};

const expiry: ValueCheck = (value) => {
  const parts = value.trim().split(/\s+/);
  if (!parts.every((part) => /^\d+[MHdwmy]$/.test(part))) throw new AppError('invalid', 'Invalid expiry expression');
};

const kernelModules: ValueCheck = (value) => {
  if (!value.split(',').every((name) => /^[\w-]+$/.test(name.trim())))
    throw new AppError('invalid', `Invalid value: ${value}`);
};

const NO = new Set(['false', '0', 'no', 'off']);

/** Understood and refused: this server cannot do it. Not to want it is fine. */
const unsupported = (key: string): ValueCheck => {
  return (value) => {
    if (NO.has(value.toLowerCase())) return;
    throw new AppError('invalid', `${key} is not supported by this server`);
  };
};

const unsupportedKeys = (...keys: readonly string[]): Record<string, ValueCheck> =>
  Object.fromEntries(keys.map((key) => [key, unsupported(key)]));

export const CONFIG_KEYS: Readonly<Record<string, ValueCheck>> = {
  'boot.autostart': boolean,
  'boot.autostart.delay': integer,
  'boot.autostart.priority': integer,
  'boot.host_shutdown_timeout': integer,
  'boot.stop.priority': integer,
  'cloud-init.network-config': any,
  'cloud-init.user-data': any,
  'cloud-init.vendor-data': any,
  'cluster.evacuate': oneOf('auto', 'migrate', 'live-migrate', 'stop'),
  // ours: whether a paused instance answers nobody on the network
  'lighter.pause.silent': boolean,
  // ours: whether an instance has a view of /sys/block of its own
  'lighter.sysfs.block': boolean,
  'limits.cpu': cpu,
  'limits.cpu.allowance': (value) => void parseCpuAllowance(value),
  'limits.cpu.priority': priority,
  'limits.disk.priority': priority,
  'limits.hugepages.64KB': size,
  'limits.hugepages.1MB': size,
  'limits.hugepages.2MB': size,
  'limits.hugepages.1GB': size,
  'limits.memory': memory,
  'limits.memory.enforce': oneOf('soft', 'hard'),
  'limits.memory.swap': (value) => void swapLimit(value),
  'limits.memory.swap.priority': priority,
  'limits.network.priority': priority,
  'limits.processes': integer,
  'linux.kernel_modules': kernelModules,
  'raw.apparmor': any,
  'raw.idmap': (value) => void parseRawIdMap(value),
  'raw.lxc': any,
  'raw.seccomp': any,
  'security.devlxd': boolean,
  'security.devlxd.images': boolean,
  'security.idmap.base': uint32,
  'security.idmap.isolated': boolean,
  'security.idmap.size': idMapSize,
  'security.nesting': boolean,
  'security.privileged': boolean,
  'security.protection.delete': boolean,
  'security.protection.shift': boolean,
  'security.syscalls.allow': any,
  'security.syscalls.blacklist': any,
  'security.syscalls.blacklist_compat': boolean,
  'security.syscalls.blacklist_default': boolean,
  'security.syscalls.deny': any,
  'security.syscalls.deny_compat': boolean,
  'security.syscalls.deny_default': boolean,
  'security.syscalls.intercept.mknod': boolean,
  'security.syscalls.intercept.setxattr': boolean,
  'security.syscalls.whitelist': any,
  'snapshots.expiry': expiry,
  'snapshots.pattern': any,
  'snapshots.schedule': schedule,
  'snapshots.schedule.stopped': boolean,
  ...unsupportedKeys(
    'migration.incremental.memory',
    'migration.incremental.memory.goal',
    'migration.incremental.memory.iterations',
    'nvidia.driver.capabilities',
    'nvidia.require.cuda',
    'nvidia.require.driver',
    'nvidia.runtime',
    'security.syscalls.intercept.bpf',
    'security.syscalls.intercept.bpf.devices',
    'security.syscalls.intercept.mount',
    'security.syscalls.intercept.mount.allowed',
    'security.syscalls.intercept.mount.fuse',
    'security.syscalls.intercept.mount.shift',
    'security.syscalls.intercept.sched_setscheduler',
  ),
  'volatile.apply_quota': any,
  'volatile.apply_template': any,
  'volatile.base_image': any,
  'volatile.cloud-init.instance-id': any,
  'volatile.evacuate.origin': any,
  'volatile.idmap.base': uint32,
  'volatile.idmap.current': idMap,
  'volatile.idmap.next': idMap,
  'volatile.last_state.idmap': idMap,
  'volatile.last_state.power': any,
  'volatile.uuid': any,
  // of LXD after 5.0.2, in its backups
  'volatile.uuid.generation': any,
  'volatile.vsock_id': any,
};

/** Namespaces with free names. */
export const FREE_PREFIXES = ['user.', 'image.', 'environment.', 'linux.sysctl.', 'limits.kernel.'];

/** volatile.DEVICE.SUFFIX. */
export const VOLATILE_SUFFIXES = [
  '.apply_quota',
  '.ceph_rbd',
  '.host_name',
  '.hwaddr',
  '.id',
  '.last_state.created',
  '.last_state.hwaddr',
  '.last_state.mtu',
  '.mig.uuid',
  '.name',
  '.vgpu.uuid',
];
