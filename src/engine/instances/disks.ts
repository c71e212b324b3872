// The root disk: the storage driver's (lxd-engine-contract section 3.2).
import { THROTTLE_CHECKS, THROTTLE_OPTIONS } from '#drivers/devices/disk/throttle.ts';
import { checkOptions, uint32 } from '#drivers/devices/common/options.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { parseSize } from './values.ts';

const anything = (): void => undefined;
const ROOT_CHECKS = { path: anything, pool: anything, size: anything, 'boot.priority': uint32, ...THROTTLE_CHECKS };
/** Options of a root disk that a running container takes. */
export const LIVE_ROOT_OPTIONS = ['size', 'boot.priority', ...THROTTLE_OPTIONS];

export function isRoot(device: ConfigMap): boolean {
  return device['type'] === 'disk' && device['path'] === '/' && (device['source'] ?? '') === '';
}

export function validateRoot(device: ConfigMap): void {
  checkOptions(device, ROOT_CHECKS);
  if ((device['pool'] ?? '') === '') throw new AppError('invalid', 'Root disk entry must have a "pool" property set');
  if ((device['size'] ?? '') === '') return;
  try {
    parseSize(device['size'] ?? '');
  } catch (cause) {
    throw new AppError('invalid', `Invalid value for device option "size": Invalid value: ${device['size']}`, {
      cause,
    });
  }
}

export interface RootDisk {
  readonly device: string;
  readonly pool: string;
  readonly sizeBytes?: number;
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
  return roots.map(([device, { size = '', pool = '' }]) => {
    return { device, pool, ...(size !== '' && { sizeBytes: parseSize(size) }) };
  });
}
