// Hardware of this host as sysfs tells it, for devices that are named by what they are.
import { readdir, readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { OptionCheck } from './options.ts';
import type { Node } from './nodes.ts';

export interface Hardware {
  readonly vendor: string;
  readonly product: string;
  readonly node: Node;
}

export const hardwareId: OptionCheck = (value) => {
  if (/^[0-9a-f]{4}$/.test(value)) return;
  throw new AppError('invalid', 'Invalid value, must be four lower case hex characters');
};

/** '' when there is no such file: a device may go at any time. */
export async function attribute(directory: string, name: string): Promise<string> {
  return readFile(join(directory, name), 'utf8').then(
    (text) => text.trim(),
    () => '',
  );
}

export async function entries(directory: string): Promise<readonly string[]> {
  return readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
}

/** "189:1" → [189, 1]; undefined for anything else. */
export function numbersOf(text: string): { readonly major: number; readonly minor: number } | undefined {
  const match = /^(\d+):(\d+)$/.exec(text);
  return match ? { major: Number(match[1]), minor: Number(match[2]) } : undefined;
}

const DIGITS = 3;

/** Every USB device with its node of usbfs. */
export async function usbDevices(sysfs: string): Promise<readonly Hardware[]> {
  const root = join(sysfs, 'bus/usb/devices');
  const found = (await entries(root)).map(async (name) => {
    const read = (file: string) => attribute(join(root, name), file);
    const [vendor, product, bus, number, dev] = await Promise.all(
      ['idVendor', 'idProduct', 'busnum', 'devnum', 'dev'].map(read),
    );
    const numbers = numbersOf(dev ?? '');
    if (!vendor || !product || !bus || !number || !numbers) return []; // an interface of one, or gone meanwhile
    const path = `/dev/bus/usb/${bus.padStart(DIGITS, '0')}/${number.padStart(DIGITS, '0')}`;
    return [{ vendor, product, node: { kind: 'char' as const, ...numbers, path } }];
  });
  return (await Promise.all(found)).flat();
}

/** Every device node that a driver made for a USB device: serial lines, disks, input devices … */
export async function nodesOfUsbDevices(sysfs: string): Promise<readonly Hardware[]> {
  const kinds = (['char', 'block'] as const).map(async (kind) => {
    const root = join(sysfs, 'dev', kind);
    return Promise.all((await entries(root)).map((numbers) => nodeOfUsbDevice(sysfs, { root, kind, numbers })));
  });
  return (await Promise.all(kinds)).flat(2);
}

async function nodeOfUsbDevice(
  sysfs: string,
  { root, kind, numbers: text }: { readonly root: string; readonly kind: Node['kind']; readonly numbers: string },
): Promise<readonly Hardware[]> {
  const numbers = numbersOf(text);
  const directory = await realpath(join(root, text)).catch(() => undefined);
  if (!numbers || directory === undefined || !directory.includes('/usb')) return [];
  const subsystem = await realpath(join(directory, 'subsystem')).catch(() => '');
  const name = /^DEVNAME=(.+)$/m.exec(await attribute(directory, 'uevent'))?.[1];
  if (name === undefined || basename(subsystem) === 'usb') return [];
  for (let at = directory; at.length > sysfs.length; at = dirname(at)) {
    const vendor = await attribute(at, 'idVendor');
    if (vendor === '') continue;
    const product = await attribute(at, 'idProduct');
    return [{ vendor, product, node: { kind, ...numbers, path: `/dev/${name}` } }];
  }
  return [];
}
