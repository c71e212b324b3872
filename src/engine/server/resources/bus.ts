// What all devices have: a driver, a place on a bus, a node of memory.
import { basename, dirname } from 'node:path';
import type { SysTree } from './sys-tree.ts';

const PCI_ADDRESS = /^[\da-f]{4,}:[\da-f]{2}:[\da-f]{2}\.[\da-f]$/i;
const USB_DEVICE = /^\d+-[\d.]+$/;

export interface Driver {
  readonly driver: string;
  readonly driver_version: string;
}

/** The module's version, or the kernel's when the module has none. */
export function driverOf(tree: SysTree, device: string): Driver {
  const driver = tree.target(`${device}/driver`);
  if (driver === '') return { driver: '', driver_version: '' };
  const version = tree.text(`${device}/driver/module/version`);
  return { driver, driver_version: version === '' ? tree.text('/proc/sys/kernel/osrelease') : version };
}

export function numaNodeOf(tree: SysTree, device: string): number {
  return Math.max(0, tree.number(`${device}/numa_node`) ?? 0);
}

/** A directory of /sys, and the nearest devices of a bus that it is in. */
export interface Place {
  /** Empty: none. */
  readonly pciAddress: string;
  /** BUS:DEVICE; empty: none. */
  readonly usbAddress: string;
}

/** Of a directory (links are followed). */
export function placeOf(tree: SysTree, device: string): Place {
  const parts: string[] = [];
  for (let at = tree.real(device) ?? '/'; at !== '/' && at !== '.'; at = dirname(at)) parts.push(at);
  const usb = parts.find((path) => USB_DEVICE.test(basename(path)));
  const pci = parts.map((path) => basename(path)).find((name) => PCI_ADDRESS.test(name));
  return { pciAddress: pci ?? '', usbAddress: usb === undefined ? '' : usbAddressOf(tree, basename(usb)) };
}

export function usbAddressOf(tree: SysTree, name: string): string {
  const device = `/sys/bus/usb/devices/${name}`;
  return `${tree.number(`${device}/busnum`) ?? 0}:${tree.number(`${device}/devnum`) ?? 0}`;
}

/** Four hexadecimal digits. */
export function idText(text: string): string {
  return text.replace(/^0x/i, '').toLowerCase();
}
