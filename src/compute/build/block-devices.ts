// Names of an instance's block devices (section 5.2 step 10). Nova wants the root named as well.
import type { NovaObject } from '#src/nova/objects/object.ts';
import { chooseDeviceName, FIRST_NAME } from '../volumes/device-names.ts';

type BlockDevice = NovaObject<'BlockDeviceMapping'>;

/** Gives the root and all other devices a name where they have none; sets root_device_name. Returns what is to be saved. */
export function nameBlockDevices(
  instance: NovaObject<'Instance'>,
  devices: readonly BlockDevice[],
): readonly BlockDevice[] {
  const root = devices.find((device) => device.find('boot_index') === 0);
  if (root === undefined) return [];
  const rootName = root.find('device_name') ?? instance.find('root_device_name') ?? FIRST_NAME;
  instance.set('root_device_name', rootName);
  const unnamed = devices.filter((device) => (device.find('device_name') ?? null) === null);
  for (const device of unnamed) {
    device.set('device_name', device === root ? rootName : chooseDeviceName(instance, devices, null));
  }
  return unnamed;
}
