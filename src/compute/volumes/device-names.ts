// Names of an instance's block devices: /dev/sda is the root, and the guest finds its volumes at the others.
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';

type BlockDevice = NovaObject<'BlockDeviceMapping'>;

export const FIRST_NAME = '/dev/sda';
const NAME = /^(?:\/dev\/)?(?<prefix>sd|vd|xvd|hd)(?<letters>[a-z]{1,2})$/;
const LETTERS = Array.from({ length: 26 }, (_letter, index) => String.fromCharCode('a'.charCodeAt(0) + index));
const SUFFIXES: readonly string[] = [...LETTERS, ...LETTERS.flatMap((first) => LETTERS.map((next) => first + next))];

/** The name wanted, with the prefix of the root, or the next one that is free. Rejects as Nova does when it cannot be. */
export function chooseDeviceName(
  instance: NovaObject<'Instance'>,
  devices: readonly BlockDevice[],
  wanted: string | null,
): string {
  const root = instance.find('root_device_name') ?? FIRST_NAME;
  const ephemeral = instance.find('default_ephemeral_device') ?? '';
  const names = [root, ephemeral, ...devices.map((device) => device.find('device_name') ?? '')];
  const taken = new Set(names.map((name) => partOf(name, 'letters')));
  const prefix = partOf(root, 'prefix') || 'sd';
  if (!wanted) return `/dev/${prefix}${freeLetters(taken)}`;
  const letters = partOf(wanted, 'letters');
  if (letters === '') throw novaException('InvalidDevicePath', { path: wanted });
  if (taken.has(letters)) throw novaException('DevicePathInUse', { path: wanted });
  return `/dev/${prefix}${letters}`;
}

/** Empty when it is no name of a device. */
function partOf(name: string, part: 'prefix' | 'letters'): string {
  return NAME.exec(name)?.groups?.[part] ?? '';
}

function freeLetters(taken: ReadonlySet<string>): string {
  const free = SUFFIXES.find((letters) => !taken.has(letters));
  if (free !== undefined) return free;
  throw novaException('TooManyDiskDevices', { maximum: SUFFIXES.length });
}

/** Whether a guest may have a device node of that name. */
export function isDeviceName(name: string | null | undefined): name is string {
  return typeof name === 'string' && name.startsWith('/dev/') && NAME.test(name);
}
