// The root disk: the storage driver's (lxd-engine-contract section 3.2).
import { normalize } from 'node:path';
import { THROTTLE_CHECKS, THROTTLE_OPTIONS } from '#drivers/devices/disk/throttle.ts';
import { boolean, checkOptions, isTrue, uint32 } from '#drivers/devices/common/options.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { parseSize } from './values.ts';

const anything = (): void => undefined;
/** Path of the device or file of the host that the root lies on, instead of in its pool. */
const BLOCK = 'lighter.block';
const FILL = 'lighter.block.fill';
const ROOT_CHECKS = {
  path: anything,
  pool: anything,
  size: anything,
  'boot.priority': uint32,
  [BLOCK]: absolutePath,
  [FILL]: boolean,
  ...THROTTLE_CHECKS,
};
/** Options of a root disk that a running container takes. */
export const LIVE_ROOT_OPTIONS = ['size', 'boot.priority', ...THROTTLE_OPTIONS];

export function isRoot(device: ConfigMap): boolean {
  return device['type'] === 'disk' && device['path'] === '/' && (device['source'] ?? '') === '';
}

export function validateRoot(device: ConfigMap): void {
  checkOptions(device, ROOT_CHECKS);
  if ((device['pool'] ?? '') === '') throw new AppError('invalid', 'Root disk entry must have a "pool" property set');
  checkBlock(device);
  if ((device['size'] ?? '') === '') return;
  try {
    parseSize(device['size'] ?? '');
  } catch (cause) {
    throw new AppError('invalid', `Invalid value for device option "size": Invalid value: ${device['size']}`, {
      cause,
    });
  }
}

function checkBlock(device: ConfigMap): void {
  const isBlock = (device[BLOCK] ?? '') !== '';
  if (isTrue(device, FILL) && !isBlock) throw new AppError('invalid', `"${FILL}" needs "${BLOCK}"`);
  if (isBlock && (device['size'] ?? '') !== '')
    throw new AppError('invalid', `The root is a device of the host ("${BLOCK}"), which has a size of its own`);
}

function absolutePath(value: string): void {
  if (!value.startsWith('/') || value !== normalize(value) || value.endsWith('/') || /[\0\n]/u.test(value))
    throw new AppError('invalid', `Invalid value "${value}" (not an absolute path of a device or file)`);
}

/** Whether a device has keys that an instance alone may have: of a profile, several would share one device. */
export function isOfInstance(device: ConfigMap): boolean {
  return (device[BLOCK] ?? '') !== '' || (device[FILL] ?? '') !== '';
}

/** The same devices when the one of the root is filled. */
export function filled(devices: DeviceMap): DeviceMap {
  return Object.fromEntries(
    Object.entries(devices).map(([name, device]) => {
      const { [FILL]: _done, ...rest } = device;
      return [name, rest];
    }),
  );
}

export interface RootDisk {
  readonly device: string;
  readonly pool: string;
  readonly sizeBytes?: number;
  /** Path on the host of what the root lies on, instead of in the pool. */
  readonly block?: string;
  /** The block is to be filled at the creation. */
  readonly fill?: true;
}

/** The one disk with path "/". AppError with LXD's text when there is none, or more. */
export function rootDisk(devices: DeviceMap): RootDisk {
  const [first, second] = rootDisks(devices);
  if (!first) throw new AppError('invalid', 'No root device could be found');
  if (second) throw new AppError('invalid', 'More than one root device found');
  return first;
}

/** All disks with path "/": a profile may have brought an existing instance another, or have taken the one that it had. */
export function rootDisks(devices: DeviceMap): readonly RootDisk[] {
  const roots = Object.entries(devices).filter(([, device]) => isRoot(device));
  return roots.map(([device, options]) => {
    const { size = '', pool = '', [BLOCK]: block = '' } = options;
    return {
      device,
      pool,
      ...(size !== '' && { sizeBytes: parseSize(size) }),
      ...(block !== '' && { block }),
      ...(isTrue(options, FILL) && { fill: true }),
    };
  });
}
