// Which of the keys that an instance keeps for itself go when its configuration changes.
import type { ConfigMap, DeviceMap } from '../types.ts';

/**
 * Without what was remembered of devices and is no more: all of one that goes or becomes something else, and the address and name
 * of a nic that is given others.
 */
export function withoutStale(config: ConfigMap, before: DeviceMap, after: DeviceMap): ConfigMap {
  const stale = Object.entries(before).flatMap(([device, old]) => {
    const now = after[device];
    const isAnother = now?.['type'] !== old['type'] || now?.['nictype'] !== old['nictype'];
    const prefix = `volatile.${device}.`;
    return Object.keys(config).filter((key) => {
      const option = key.startsWith(prefix) ? key.slice(prefix.length) : '';
      const isGiven = ['hwaddr', 'name'].includes(option) && (now?.[option] ?? '') !== '';
      return option !== '' && (isAnother || isGiven);
    });
  });
  const gone = new Set(stale);
  return Object.fromEntries(Object.entries(config).filter(([key]) => !gone.has(key)));
}

/** The keys that `volatile` empties are gone. */
export function withoutEmpty(config: ConfigMap, volatile: ConfigMap): ConfigMap {
  return Object.fromEntries(Object.entries(config).filter(([key]) => volatile[key] !== ''));
}
