// Names of an instance's block devices (section 5.2 step 10). A container has no such devices; Nova wants them named.
import type { NovaObject } from '#src/nova/objects/object.ts';

type BlockDevice = NovaObject<'BlockDeviceMapping'>;

const FIRST_NAME = '/dev/sda';

/** Gives the root and all other devices a name where they have none; sets root_device_name. Returns what is to be saved. */
export function nameBlockDevices(
  instance: NovaObject<'Instance'>,
  devices: readonly BlockDevice[],
): readonly BlockDevice[] {
  const root = devices.find((device) => device.find('boot_index') === 0);
  if (root === undefined) return [];
  const rootName = root.find('device_name') ?? instance.find('root_device_name') ?? FIRST_NAME;
  instance.set('root_device_name', rootName);
  const taken = new Set(devices.flatMap((device) => device.find('device_name') ?? []).concat(rootName));
  const unnamed = devices.filter((device) => (device.find('device_name') ?? null) === null);
  for (const device of unnamed) device.set('device_name', device === root ? rootName : nextName(taken));
  return unnamed;
}

function nextName(taken: Set<string>): string {
  for (let code = 'b'.charCodeAt(0); code <= 'z'.charCodeAt(0); code += 1) {
    const name = `/dev/sd${String.fromCharCode(code)}`;
    if (!taken.has(name)) {
      taken.add(name);
      return name;
    }
  }
  return `/dev/sd${taken.size}`;
}
