// What a custom volume's configuration may say (lxd-engine-contract section 3.4), in LXD's words when it is wrong.
import { AppError } from '#src/lib/errors.ts';
import { parseBoolean, parseSize } from '../instances/values.ts';
import { endOf } from '../server/expiry.ts';
import type { ConfigMap } from '../types.ts';

const anything = (): void => undefined;
const boolean = (value: string): void => void parseBoolean(value);

type Checks = Readonly<Record<string, (value: string) => void>>;

const CHECKS: Checks = {
  size: (value) => void parseSize(value),
  'security.shifted': boolean,
  'security.unmapped': boolean,
  'snapshots.expiry': (value) => void endOf(value, new Date()),
  'snapshots.pattern': anything,
  'snapshots.schedule': anything,
  'volatile.idmap.last': anything,
  'volatile.idmap.next': anything,
};

/** What pools of every driver give to new volumes, as `volume.KEY`. */
export const GIVEN_BY_POOLS = [
  'size',
  'security.shifted',
  'security.unmapped',
  'snapshots.expiry',
  'snapshots.pattern',
  'snapshots.schedule',
] as const;

/** The `volume.*` of a pool's configuration. AppError 'invalid'. */
export function checkVolumeDefaults(config: ConfigMap): void {
  for (const key of GIVEN_BY_POOLS) {
    const value = config[`volume.${key}`] ?? '';
    if (value === '') continue;
    try {
      CHECKS[key]?.(value);
    } catch (cause) {
      throw new AppError('invalid', `Invalid value for option "volume.${key}": Invalid value "${value}"`, { cause });
    }
  }
}

/** `own`: keys of the pool's driver. */
export function validateVolumeConfig(name: string, config: ConfigMap, own: Checks): void {
  const checks: Checks = { ...own, ...CHECKS };
  for (const [key, value] of Object.entries(config)) {
    if (key.startsWith('user.')) continue;
    const check = Object.hasOwn(checks, key) ? checks[key] : undefined;
    if (!check) throw new AppError('invalid', `Invalid option for volume "${name}" option "${key}"`);
    if (value === '') continue;
    try {
      check(value);
    } catch (cause) {
      throw new AppError('invalid', `Invalid option for volume "${name}" option "${key}": Invalid value "${value}"`, {
        cause,
      });
    }
  }
  if (parseBoolean(config['security.shifted']) && parseBoolean(config['security.unmapped'])) {
    throw new AppError('invalid', 'security.shifted and security.unmapped are mutually exclusive');
  }
}

/** AppError 'invalid' for what cannot be the name of a volume. */
export function validateVolumeName(name: string): void {
  if (name === '') throw new AppError('invalid', 'No name provided');
  if (name.includes('/')) throw new AppError('invalid', 'Storage volume names may not contain slashes');
  // oxlint-disable-next-line no-control-regex -- those are meant
  if (name === '.' || name === '..' || name.length > 180 || /[\u0000-\u0020\u007f?&+@#]/u.test(name)) {
    throw new AppError('invalid', `Invalid volume name "${name}"`);
  }
}

/** The part of a configuration that the driver is told. */
export function driverConfig(config: ConfigMap, own: Checks): ConfigMap {
  return Object.fromEntries(Object.entries(config).filter(([key]) => Object.hasOwn(own, key)));
}

/** What a volume of one driver has, without what means nothing to the other. */
export function withoutForeign(
  config: ConfigMap,
  { from, to }: { readonly from: Checks; readonly to: Checks },
): ConfigMap {
  const isForeign = (key: string): boolean => Object.hasOwn(from, key) && !Object.hasOwn(to, key);
  return Object.fromEntries(Object.entries(config).filter(([key]) => !isForeign(key)));
}

export function sizeOf(config: ConfigMap): number | undefined {
  const { size = '' } = config;
  return size === '' ? undefined : parseSize(size);
}

/** What of a peer's configuration means something here: what it cannot have is left out. */
export function acceptableConfig(config: ConfigMap, own: Checks): ConfigMap {
  const isAcceptable = (key: string, value: string): boolean => {
    try {
      validateVolumeConfig('', { [key]: value }, own);
      return true;
    } catch {
      return false; // the peer's drivers have other keys, and other values
    }
  };
  return Object.fromEntries(Object.entries(config).filter(([key, value]) => isAcceptable(key, value)));
}
