// Every configuration key of a project and what its value may be (lxd-engine-contract section 3.6).
import { isIP } from 'node:net';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { parseBoolean, parseInteger, parseSize } from '../instances/values.ts';
import type { ConfigMap } from '../types.ts';

type Check = (value: string) => void;

const boolean: Check = (value) => void parseBoolean(value);
const integer: Check = (value) => void parseInteger(value);
const any: Check = () => undefined;

const count: Check = (value) => {
  const problem = /^\d+$/u.test(value) ? 'value out of range' : 'invalid syntax';
  if (problem === 'value out of range' && Number(value) <= 0xffffffff) return;
  throw new AppError(
    'invalid',
    `Invalid value for uint32 "${value}": strconv.ParseUint: parsing "${value}": ${problem}`,
  );
};

const size: Check = (value) => void parseSize(value);

function oneOf(...allowed: readonly string[]): Check {
  return (value) => {
    if (allowed.includes(value)) return;
    throw new AppError('invalid', `Invalid value "${value}" (not one of [${allowed.join(' ')}])`);
  };
}

function listOf(check: Check): Check {
  return (value) => {
    for (const item of value.split(',')) check(item.trim());
  };
}

const absolutePath: Check = (value) => {
  if (!value.startsWith('/')) throw new AppError('invalid', `Must be an absolute file path: "${value}"`);
};

const idRange: Check = (value) => {
  if (!/^\d+(-\d+)?$/u.test(value)) throw new AppError('invalid', `Invalid range "${value}"`);
};

const subnet: Check = (value) => {
  const [, uplink = '', address = '', bits = ''] = /^([^:]+):(.+)\/(\d+)$/u.exec(value) ?? [];
  if (uplink !== '' && isIP(address) !== 0 && Number(bits) <= (isIP(address) === 4 ? 32 : 128)) return;
  throw new AppError('invalid', `Subnet "${value}" invalid, must be in the format of "<uplink network>:<subnet>"`);
};

const ARCHITECTURES = ['i686', 'x86_64', 'armv7l', 'aarch64', 'ppc', 'ppc64', 'ppc64le', 's390x', 'mips', 'mips64'];

/** A program, maybe with options. */
const compression: Check = (value) => {
  const [program = ''] = value.trim().split(/\s+/u);
  oneOf('bzip2', 'gzip', 'lzma', 'xz', 'zstd', 'none', 'squashfs', 'lz4')(program);
};

const gate = oneOf('block', 'allow');
const managed = oneOf('block', 'allow', 'managed');

export const PROJECT_FEATURES = [
  'features.images',
  'features.networks',
  'features.profiles',
  'features.storage.volumes',
] as const;

const KEYS: Readonly<Record<string, Check>> = {
  'backups.compression_algorithm': compression,
  'features.images': boolean,
  'features.networks': boolean,
  'features.profiles': boolean,
  'features.storage.volumes': boolean,
  'images.auto_update_cached': boolean,
  'images.auto_update_interval': integer,
  'images.compression_algorithm': compression,
  'images.default_architecture': oneOf(...ARCHITECTURES),
  'images.remote_cache_expiry': integer,
  'limits.containers': count,
  'limits.cpu': count,
  'limits.disk': size,
  'limits.instances': count,
  'limits.memory': size,
  'limits.networks': count,
  'limits.processes': count,
  'limits.virtual-machines': count,
  restricted: boolean,
  'restricted.backups': gate,
  'restricted.cluster.groups': any,
  'restricted.cluster.target': gate,
  'restricted.containers.interception': oneOf('allow', 'block', 'full'),
  'restricted.containers.lowlevel': gate,
  'restricted.containers.nesting': gate,
  'restricted.containers.privilege': oneOf('allow', 'unprivileged', 'isolated'),
  'restricted.devices.disk': managed,
  'restricted.devices.disk.paths': listOf(absolutePath),
  'restricted.devices.gpu': gate,
  'restricted.devices.infiniband': gate,
  'restricted.devices.nic': managed,
  'restricted.devices.pci': gate,
  'restricted.devices.proxy': gate,
  'restricted.devices.unix-block': gate,
  'restricted.devices.unix-char': gate,
  'restricted.devices.unix-hotplug': gate,
  'restricted.devices.usb': gate,
  'restricted.idmap.gid': listOf(idRange),
  'restricted.idmap.uid': listOf(idRange),
  'restricted.networks.access': any,
  'restricted.networks.subnets': listOf(subnet),
  'restricted.networks.uplinks': any,
  'restricted.networks.zones': any,
  'restricted.snapshots': gate,
  'restricted.virtual-machines.lowlevel': gate,
};

/** AppError 'invalid' with LXD's text. */
export function validateProjectConfig(config: ConfigMap): void {
  for (const [key, value] of Object.entries(config)) {
    if (key.startsWith('user.')) continue;
    const check = Object.hasOwn(KEYS, key) ? KEYS[key] : undefined;
    if (!check) throw new AppError('invalid', `Invalid project configuration key "${key}"`);
    try {
      if (value !== '') check(value);
    } catch (cause) {
      throw new AppError('invalid', `Invalid project configuration key "${key}" value: ${messageOf(cause)}`, { cause });
    }
  }
  if (parseBoolean(config['restricted']) && !parseBoolean(config['features.profiles'])) {
    throw new AppError('invalid', 'Projects without their own profiles cannot be restricted');
  }
}

/** AppError 'invalid' with LXD's text. */
export function validateProjectName(name: string): void {
  const problem = nameProblem(name);
  if (problem !== undefined) throw new AppError('invalid', problem);
}

function nameProblem(name: string): string | undefined {
  if (name === '') return 'No name provided';
  if (name.includes('/')) return 'Project names may not contain slashes';
  if (/[\s\0]/u.test(name)) return 'Project names may not contain spaces';
  if (name.includes('_')) return 'Project names may not contain underscores';
  if (/['"]/u.test(name)) return 'Project names may not contain quotes';
  if (name === '*') return 'Reserved project name';
  return name === '.' || name === '..' ? `Invalid project name "${name}"` : undefined;
}
