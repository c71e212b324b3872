// Ephemeral disks of an instance: those that its user divided the flavor's room into, or one of all of it.
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { Asking } from '../records.ts';
import { type BlockDevice, blockDevicesOf } from './block-devices.ts';

/** Disks of this host that begin empty. */
export function blanksAmong(devices: readonly BlockDevice[]): readonly BlockDevice[] {
  return devices.filter(
    (device) => device.find('source_type') === 'blank' && device.find('destination_type') !== 'volume',
  );
}

function isSwap(device: BlockDevice): boolean {
  return device.find('guest_format') === 'swap';
}

/** In the order in which they were asked for. */
export function ephemeralsAmong(devices: readonly BlockDevice[]): readonly BlockDevice[] {
  const ephemerals = blanksAmong(devices).filter((device) => !isSwap(device));
  return ephemerals.toSorted((left, right) => (left.find('id') ?? 0) - (right.find('id') ?? 0));
}

/** GiB of each. */
export function ephemeralSizes(
  flavor: NovaObject<'Flavor'> | undefined,
  devices: readonly BlockDevice[],
): readonly number[] {
  const roomGib = flavor?.find('ephemeral_gb') ?? 0;
  if (roomGib <= 0) return [];
  const divided = ephemeralsAmong(devices).map((device) => device.find('volume_size') ?? roomGib);
  return divided.length > 0 ? divided : [roomGib];
}

/** MiB; of less than the flavor allows when that was asked for. */
export function swapSize(flavor: NovaObject<'Flavor'>, devices: readonly BlockDevice[]): number {
  return blanksAmong(devices).find(isSwap)?.find('volume_size') ?? flavor.get('swap');
}

/** The same, of an instance whose devices are not at hand. No request for a flavor without any. */
export async function readEphemeralSizes(
  asking: Asking,
  instanceUuid: string,
  flavor: NovaObject<'Flavor'>,
): Promise<readonly number[]> {
  if ((flavor.find('ephemeral_gb') ?? 0) <= 0) return [];
  return ephemeralSizes(flavor, await blockDevicesOf(asking, instanceUuid));
}
