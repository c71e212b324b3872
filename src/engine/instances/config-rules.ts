// Checks whole configurations and device maps, of instances and of profiles, and says what is wrong in LXD's words.
import type { DeviceDriver } from '#drivers/devices/driver.ts';
import type { NicDriver } from '#drivers/nic/driver.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { ownValue } from '#src/lib/own-value.ts';
import type { NetworkAccess } from '../context.ts';
import type { ConfigMap, DeviceMap, InstanceRules } from '../types.ts';
import { CONFIG_KEYS, FREE_PREFIXES, VOLATILE_SUFFIXES } from './config-keys.ts';
import { isOfInstance, isRoot, validateRoot } from './disks.ts';
import { isLentRoot } from './lent-roots.ts';
import { checkUnprivileged } from './unprivileged-only.ts';

export interface RuleParts {
  readonly nics: Readonly<Record<string, NicDriver>>;
  /** By type. */
  readonly devices: Readonly<Record<string, DeviceDriver>>;
  readonly networks: Pick<NetworkAccess, 'check' | 'expand'>;
  /** Checks raw.lxc. */
  readonly validateRaw: (raw: string) => void;
  /** No container may have the host's root as its own. */
  readonly unprivilegedOnly: boolean;
}

export function createRules(parts: RuleParts): InstanceRules {
  const { validateRaw, unprivilegedOnly } = parts;
  return {
    validateConfig(config, { profile }) {
      for (const [key, value] of Object.entries(config)) validateKey(key, value, profile);
      validateTogether(config);
      if (unprivilegedOnly) checkUnprivileged(config);
      if ((config['raw.lxc'] ?? '') !== '') validateRaw(config['raw.lxc'] ?? '');
    },
    validateDevices(devices, { profile, project }) {
      for (const [name, device] of Object.entries(devices)) {
        try {
          if (profile && isLentRoot(device)) {
            throw new AppError(
              'invalid',
              'The root of an instance can only be a disk of an instance, not of a profile',
            );
          }
          if (profile && isOfInstance(device)) {
            throw new AppError('invalid', 'The root of an instance is a device of the host by its own settings alone');
          }
          if (profile) checkOwnPath(device, devices);
          validateDevice(name, device, { ...parts, project });
        } catch (cause) {
          const text = `Device validation failed for "${name}": ${messageOf(cause)}`;
          throw new AppError('invalid', text, { cause });
        }
      }
    },
  };
}

function validateKey(key: string, value: string, profile: boolean): void {
  if (profile && key.startsWith('volatile.'))
    throw new AppError('invalid', 'Volatile keys can only be set on instances');
  if (profile && key.startsWith('image.')) throw new AppError('invalid', 'Image keys can only be set on instances');
  const check = ownValue(CONFIG_KEYS, key);
  if (check === undefined && !isFree(key)) throw new AppError('invalid', `Unknown configuration key: ${key}`);
  if (check !== undefined && value !== '') check(value);
}

function isFree(key: string): boolean {
  if (FREE_PREFIXES.some((prefix) => key.startsWith(prefix) && key.length > prefix.length)) return true;
  return key.startsWith('volatile.') && VOLATILE_SUFFIXES.some((suffix) => key.endsWith(suffix));
}

const SYSCALL_PAIRS = [
  ['security.syscalls.whitelist', 'security.syscalls.blacklist'],
  ['security.syscalls.allow', 'security.syscalls.deny'],
] as const;

function validateTogether(config: ConfigMap): void {
  const isSet = (key: string): boolean => (config[key] ?? '') !== '';
  for (const [allow, deny] of SYSCALL_PAIRS) {
    const denies = Object.keys(config).some((key) => key.startsWith(deny) && isSet(key));
    if (isSet(allow) && denies) throw new AppError('invalid', `${allow} is mutually exclusive with ${deny}*`);
  }
  const seccomp = SYSCALL_PAIRS.flat().some((key) => isSet(key));
  if (isSet('raw.seccomp') && seccomp) {
    throw new AppError('invalid', 'raw.seccomp is mutually exclusive with security.syscalls*');
  }
}

const DEVICE_NAME = /^[A-Za-z0-9/:_-][A-Za-z0-9/.:_-]{0,62}$/;

type DeviceRules = Omit<RuleParts, 'validateRaw' | 'unprivilegedOnly'> & { readonly project: string };

function validateDevice(name: string, device: ConfigMap, rules: DeviceRules): void {
  if (!DEVICE_NAME.test(name)) throw new AppError('invalid', `Invalid device name "${name}"`);
  if (device['type'] === 'nic') return validateNic(name, device, rules);
  if (isRoot(device)) return validateRoot(device);
  return deviceDriverOf(name, device, rules.devices).validate(device);
}

function validateNic(name: string, device: ConfigMap, { project, networks, nics }: DeviceRules): void {
  try {
    networks.check(project, device);
  } catch (cause) {
    if (kindOf(cause) !== 'not_found') throw cause;
    throw new AppError('invalid', `Failed loading device "${name}": ${messageOf(cause)}`, { cause });
  }
  const whole = networks.expand(project, device);
  nicDriverOf(name, whole, nics).validate(whole);
}

/** AppError 'invalid' when there is no driver for the type. */
export function deviceDriverOf(name: string, device: ConfigMap, drivers: RuleParts['devices']): DeviceDriver {
  const type = device['type'] ?? '';
  const driver = Object.hasOwn(drivers, type) ? drivers[type] : undefined;
  if (!driver) throw new AppError('invalid', `Failed loading device "${name}": Unsupported device type`);
  return driver;
}

/** AppError 'invalid' when there is no driver for the nictype. */
export function nicDriverOf(name: string, device: ConfigMap, nics: RuleParts['nics']): NicDriver {
  const nictype = device['nictype'] ?? '';
  const driver = Object.hasOwn(nics, nictype) ? nics[nictype] : undefined;
  if (!driver) throw new AppError('invalid', `Failed loading device "${name}": Unsupported device type`);
  return driver;
}

/** What only shows when profiles and instance are put together. */
export function validateExpanded(devices: DeviceMap): void {
  checkDiskPaths(devices);
  checkGateways(devices);
  const names = new Map<string, string>();
  for (const [device, { type, name }] of Object.entries(devices)) {
    if (type !== 'nic' || name === undefined || name === '') continue;
    const other = names.get(name);
    if (other !== undefined)
      throw new AppError('invalid', `Duplicate NIC name "${name}" of devices "${other}" and "${device}"`);
    names.set(name, device);
  }
}

/** Two default routes of a family cannot be. */
function checkGateways(devices: DeviceMap): void {
  const routed = Object.entries(devices).filter(([, { type, nictype }]) => type === 'nic' && nictype === 'routed');
  for (const key of ['ipv4.gateway', 'ipv6.gateway']) {
    const [first, second] = routed.filter(([, device]) => ['', 'auto'].includes(device[key] ?? ''));
    if (!first || !second) continue;
    const text = `Existing NIC "${first[0]}" already uses "${key}" in auto mode`;
    throw new AppError('invalid', `Device validation failed for "${second[0]}": ${text}`);
  }
}

/** Within one profile, where devices cannot replace each other, not even the root. */
function checkOwnPath({ type, path = '' }: ConfigMap, devices: DeviceMap): void {
  if (type !== 'disk' || path === '') return;
  const same = Object.values(devices).filter((other) => other['type'] === 'disk' && other['path'] === path);
  if (same.length > 1) throw new AppError('invalid', `More than one disk device uses the same path "${path}"`);
}

function checkDiskPaths(devices: DeviceMap): void {
  const paths = new Set<string>();
  for (const { type, path = '' } of Object.values(devices)) {
    if (type !== 'disk' || path === '/') continue;
    const plain = path.split('/').filter(Boolean).join('/');
    if (paths.has(plain)) throw new AppError('invalid', `More than one disk device uses the same path "${path}"`);
    paths.add(plain);
  }
}
