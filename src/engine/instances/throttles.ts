// Limits of all disks of an instance together, by block device.
import { join } from 'node:path';
import { diskThrottles } from '#drivers/devices/disk/throttle.ts';
import type { RuntimeThrottle } from '#drivers/runtime/driver.ts';
import type { EngineContext } from '../context.ts';
import type { DeviceMap } from '../types.ts';
import type { InstanceDevices } from './devices.ts';
import { isRoot } from './disks.ts';

export interface ThrottleParts {
  readonly context: Pick<EngineContext, 'host' | 'paths'>;
  readonly devices: Pick<InstanceDevices, 'throttlesOf'>;
}

/** Several disks on one block device share the average of their limits, as LXD has it. */
export async function diskThrottlesOf(
  { context, devices }: ThrottleParts,
  { pool }: { readonly pool: string },
  all: DeviceMap,
): Promise<Readonly<Record<string, RuntimeThrottle>>> {
  const found: (readonly [string, RuntimeThrottle])[] = [];
  for (const [name, config] of Object.entries(all)) {
    if (config['type'] !== 'disk') continue;
    // What lies on a pool is limited on the disks of the pool.
    const ofPool = isRoot(config) ? pool : (config['pool'] ?? '');
    const throttles =
      ofPool !== ''
        ? await diskThrottles(context.host, config, join(context.paths.storagePools, ofPool))
        : await devices.throttlesOf(name, config);
    found.push(...Object.entries(throttles ?? {}));
  }
  const byDevice = Map.groupBy(found, ([device]) => device);
  return Object.fromEntries([...byDevice].map(([device, ones]) => [device, average(ones.map(([, one]) => one))]));
}

const FIELDS = ['readBytes', 'writeBytes', 'readOperations', 'writeOperations'] as const;

function average(throttles: readonly RuntimeThrottle[]): RuntimeThrottle {
  const fields = FIELDS.flatMap((field) => {
    const values = throttles.flatMap((throttle) => throttle[field] ?? []);
    const sum = values.reduce((total, value) => total + value, 0);
    return values.length === 0 ? [] : [[field, Math.floor(sum / values.length)] as const];
  });
  return Object.fromEntries(fields);
}
