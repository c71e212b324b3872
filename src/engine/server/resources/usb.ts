// Devices of the USB busses, hubs aside.
import { driverOf, idText } from './bus.ts';
import type { HardwareNames } from './hardware-names.ts';
import { filled, type SysTree } from './sys-tree.ts';

const DEVICES = '/sys/bus/usb/devices';
const HUB = 9;
/** Of interfaces: the names that usb.ids has for them. */
const CLASSES: Readonly<Record<number, string>> = {
  0: '(Defined at Interface level)',
  1: 'Audio',
  2: 'Communications',
  3: 'Human Interface Device',
  5: 'Physical Interface Device',
  6: 'Imaging',
  7: 'Printer',
  8: 'Mass Storage',
  9: 'Hub',
  10: 'CDC Data',
  11: 'Chip/SmartCard',
  13: 'Content Security',
  14: 'Video',
  15: 'Personal Healthcare',
  220: 'Diagnostic',
  224: 'Wireless',
  239: 'Miscellaneous Device',
  254: 'Application Specific Interface',
  255: 'Vendor Specific Class',
};

export function readUsb(tree: SysTree, names: HardwareNames): object {
  const devices = tree
    .list(DEVICES)
    .filter((name) => !name.includes(':') && hexadecimal(tree, `${DEVICES}/${name}/bDeviceClass`) !== HUB)
    .map((name) => readDevice(tree, names, name));
  return { devices, total: devices.length };
}

function readDevice(tree: SysTree, names: HardwareNames, name: string): object {
  const device = `${DEVICES}/${name}`;
  const vendorId = idText(tree.text(`${device}/idVendor`));
  const productId = idText(tree.text(`${device}/idProduct`));
  const known = names.find('usb.ids', vendorId, productId);
  const interfaces = tree.list(device).filter((entry) => entry.startsWith(`${name}:`));
  return {
    bus_address: tree.number(`${device}/busnum`) ?? 0,
    device_address: tree.number(`${device}/devnum`) ?? 0,
    interfaces: interfaces.map((entry) => readInterface(tree, `${device}/${entry}`)),
    vendor: known.vendor || tree.text(`${device}/manufacturer`),
    vendor_id: vendorId,
    product: known.product || tree.text(`${device}/product`),
    product_id: productId,
    speed: Number(tree.text(`${device}/speed`)) || 0,
  };
}

function readInterface(tree: SysTree, path: string): object {
  const kind = hexadecimal(tree, `${path}/bInterfaceClass`);
  return {
    class: CLASSES[kind] ?? '',
    class_id: kind,
    ...filled(driverOf(tree, path)),
    number: hexadecimal(tree, `${path}/bInterfaceNumber`),
    subclass: tree.text(`${path}/interface`),
    subclass_id: hexadecimal(tree, `${path}/bInterfaceSubClass`),
  };
}

function hexadecimal(tree: SysTree, path: string): number {
  return Number.parseInt(tree.text(path), 16) || 0;
}
