// Names of an instance's block devices: /dev/sda is the root, and the guest finds its volumes at the others.
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';

type BlockDevice = NovaObject<'BlockDeviceMapping'>;

export const FIRST_NAME = '/dev/sda';
const NAME = /^(?:\/dev\/)?(?<prefix>sd|vd|xvd|hd)(?<letters>[a-z]{1,2})$/;
const LETTERS = [...'abcdefghijklmnopqrstuvwxyz'];
const SUFFIXES: readonly string[] = [...LETTERS, ...LETTERS.flatMap((first) => LETTERS.map((next) => first + next))];

/** The name wanted, with the prefix of the root, or the next one that is free. Rejects as Nova does when it cannot be. */
export function chooseDeviceName(
  instance: NovaObject<'Instance'>,
  devices: readonly BlockDevice[],
  wanted: string | null,
): string {
  const root = instance.find('root_device_name') ?? FIRST_NAME;
  const prefix = NAME.exec(root)?.groups?.['prefix'] ?? 'sd';
  const names = [root, ...devices.map((device) => device.find('device_name') ?? '')];
  const taken = new Set(names.map((name) => NAME.exec(name)?.groups?.['letters'] ?? ''));
  if (wanted === null || wanted === '') {
    const free = SUFFIXES.find((letters) => !taken.has(letters));
    if (free === undefined) throw novaException('TooManyDiskDevices', { maximum: SUFFIXES.length });
    return `/dev/${prefix}${free}`;
  }
  const letters = NAME.exec(wanted)?.groups?.['letters'];
  if (letters === undefined) throw novaException('InvalidDevicePath', { path: wanted });
  if (taken.has(letters)) throw novaException('DevicePathInUse', { path: wanted });
  return `/dev/${prefix}${letters}`;
}

/** Whether a guest may have a device node of that name. */
export function isDeviceName(name: string | null | undefined): name is string {
  return typeof name === 'string' && name.startsWith('/dev/') && NAME.test(name);
}
