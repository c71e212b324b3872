// Configuration as it is kept: a key without a value is a key that is not set, as LXD has it.
import type { ConfigMap, DeviceMap } from './types.ts';

export function withoutEmpty(config: ConfigMap): ConfigMap {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== ''));
}

/** The same with the options of each device. */
export function devicesWithoutEmpty(devices: DeviceMap): DeviceMap {
  return Object.fromEntries(Object.entries(devices).map(([name, options]) => [name, withoutEmpty(options)]));
}
