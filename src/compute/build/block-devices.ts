// Names of an instance's block devices (section 5.2 step 10). Nova wants the root named as well.
import type { NovaObject } from '#src/nova/objects/object.ts';
import { ephemeralsAmong } from '../volumes/ephemerals.ts';
import { chooseDeviceName, FIRST_NAME } from '../volumes/device-names.ts';

type BlockDevice = NovaObject<'BlockDeviceMapping'>;

/** Where nobody divided the flavor's ephemeral room, its one disk is no block device of Nova's. */
function nameDefaultEphemeral(instance: NovaObject<'Instance'>, devices: readonly BlockDevice[]): void {
  if (ephemeralsAmong(devices).length > 0 || (instance.find('default_ephemeral_device') ?? null) !== null) return;
  if ((instance.find('flavor')?.find('ephemeral_gb') ?? 0) <= 0) return;
  instance.set('default_ephemeral_device', chooseDeviceName(instance, devices, null));
}

/** Gives the root and all other devices a name where they have none; sets root_device_name. Returns what is to be saved. */
export function nameBlockDevices(
  instance: NovaObject<'Instance'>,
  devices: readonly BlockDevice[],
): readonly BlockDevice[] {
  const root = devices.find((device) => device.find('boot_index') === 0);
  if (root === undefined) return [];
  const rootName = root.find('device_name') ?? instance.find('root_device_name') ?? FIRST_NAME;
  instance.set('root_device_name', rootName);
  nameDefaultEphemeral(instance, devices);
  const unnamed = devices.filter((device) => (device.find('device_name') ?? null) === null);
  for (const device of unnamed) {
    device.set('device_name', device === root ? rootName : chooseDeviceName(instance, devices, null));
  }
  return unnamed;
}
