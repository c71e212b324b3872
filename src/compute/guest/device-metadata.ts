// What a guest is told of its tagged devices (Instance.device_metadata): interfaces by their MAC addresses, volumes by their ids and
// names. A container has no bus that they are on, and is told of none.
import { createObject, isA, type NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import { type Asking, findInstance, type Instance } from '../records.ts';
import type { BlockDevice } from '../volumes/block-devices.ts';
import { isDeviceName } from '../volumes/device-names.ts';
import { isRoot } from '../volumes/root-volume.ts';
import { hasTags } from '../build/refusals.ts';

type TaggedRequest = Parameters<typeof hasTags>[0] & { readonly instance: Instance };
type Devices = NovaObject<'InstanceDeviceMetadata'>;
type Device = ReturnType<typeof interfaceMetadata> | ReturnType<typeof diskMetadata>;

export function interfaceMetadata(macAddress: string, tag: string): NovaObject<'NetworkInterfaceMetadata'> {
  return createObject('NetworkInterfaceMetadata', { mac: macAddress, tags: [tag] });
}

/** `serial`: by which a volume is found again; a disk of the host has none. */
export function diskMetadata(device: BlockDevice, tag: string): NovaObject<'DiskMetadata'> {
  const serial = device.find('volume_id') ?? null;
  const path = device.find('device_name') ?? null;
  // what is mounted, as a root is, is no device of that name in the guest
  return createObject('DiskMetadata', {
    serial,
    ...(serial !== null && !isRoot(device) && isDeviceName(path) && { path }),
    tags: [tag],
  });
}

/** Of an instance that is being made; to be saved with the end of that. */
export async function tagDevices(asking: Asking, request: TaggedRequest): Promise<void> {
  const { instance, blockDevices } = request;
  if (hasTags(request)) instance.set('device_metadata', await deviceMetadata(asking, instance, blockDevices));
  else instance.load('device_metadata', null);
}

async function deviceMetadata(
  { conductor, context }: Asking,
  instance: Instance,
  blockDevices: readonly BlockDevice[],
): Promise<Devices | null> {
  const call = {
    object: 'VirtualInterfaceList',
    method: 'get_by_instance_uuid',
    args: [instance.get('uuid')],
  } as const;
  const rows = expectList(await conductor.classMethod(context, call), 'VirtualInterfaceList');
  const interfaces = rows.flatMap((row) => {
    const tag = row.find('tag') ?? '';
    // Nova keeps the port's id beside the address, since addresses are to be unique
    const [address = ''] = (row.find('address') ?? '').split('/');
    return tag === '' ? [] : [interfaceMetadata(address, tag)];
  });
  const disks = blockDevices.flatMap((device) => {
    const tag = device.find('tag') ?? '';
    return tag === '' ? [] : [diskMetadata(device, tag)];
  });
  const devices = [...interfaces, ...disks];
  return devices.length === 0 ? null : createObject('InstanceDeviceMetadata', { devices });
}

/** Unsaved. */
export async function tellOfDevice(asking: Asking, instance: Instance, device: Device): Promise<void> {
  const present = (await loaded(asking, instance))?.find('devices') ?? [];
  instance.set('device_metadata', createObject('InstanceDeviceMetadata', { devices: [...present, device] }));
}

/** Unsaved; true when that changed anything. */
export async function forgetInterface(asking: Asking, instance: Instance, macAddress: string): Promise<boolean> {
  const address = macAddress.toLowerCase();
  const isGone = (device: KnownDevice): boolean =>
    isA(device, 'NetworkInterfaceMetadata') && device.find('mac')?.toLowerCase() === address;
  return await forget(asking, instance, isGone);
}

/** Unsaved; true when that changed anything. */
export async function forgetDisk(asking: Asking, instance: Instance, volumeId: string): Promise<boolean> {
  const isGone = (device: KnownDevice): boolean => isA(device, 'DiskMetadata') && device.find('serial') === volumeId;
  return await forget(asking, instance, isGone);
}

type KnownDevice = ReturnType<Devices['get']>[number];

async function forget(asking: Asking, instance: Instance, isGone: (device: KnownDevice) => boolean): Promise<boolean> {
  const present = (await loaded(asking, instance))?.find('devices') ?? [];
  const devices = present.filter((device) => !isGone(device));
  if (devices.length === present.length) return false;
  instance.set('device_metadata', createObject('InstanceDeviceMetadata', { devices }));
  return true;
}

/** Messages seldom have it. */
async function loaded(asking: Asking, instance: Instance): Promise<Devices | null> {
  const known = instance.find('device_metadata');
  if (known !== undefined) return known;
  const found = await findInstance(asking, instance.get('uuid'), ['device_metadata']);
  const metadata = found?.find('device_metadata') ?? null;
  instance.load('device_metadata', metadata);
  return metadata;
}
