// The machine itself, as its firmware names it.
import type { SysTree } from './sys-tree.ts';

const DMI = '/sys/class/dmi/id';
const CONTAINER_MARKS = ['/run/systemd/container', '/run/host/container-manager', '/run/.containerenv', '/.dockerenv'];
/** SMBIOS' types of chassis, by number. */
const CHASSIS: readonly string[] = [
  '',
  'Other',
  'Unknown',
  'Desktop',
  'Low Profile Desktop',
  'Pizza Box',
  'Mini Tower',
  'Tower',
  'Portable',
  'Laptop',
  'Notebook',
  'Hand Held',
  'Docking Station',
  'All In One',
  'Sub Notebook',
  'Space-saving',
  'Lunch Box',
  'Main Server Chassis',
  'Expansion Chassis',
  'Sub Chassis',
  'Bus Expansion Chassis',
  'Peripheral Chassis',
  'RAID Chassis',
  'Rack Mount Chassis',
  'Sealed-case PC',
  'Multi-system',
  'CompactPCI',
  'AdvancedTCA',
  'Blade',
  'Blade Enclosing',
  'Tablet',
  'Convertible',
  'Detachable',
  'IoT Gateway',
  'Embedded PC',
  'Mini PC',
  'Stick PC',
];

export function readSystem(tree: SysTree): object {
  const dmi = (file: string) => tree.text(`${DMI}/${file}`);
  const hasFirmware = tree.has(DMI);
  return {
    uuid: dmi('product_uuid'),
    vendor: dmi('sys_vendor'),
    product: dmi('product_name'),
    family: dmi('product_family'),
    version: dmi('product_version'),
    sku: dmi('product_sku'),
    serial: dmi('product_serial'),
    type: systemType(tree),
    firmware: hasFirmware ? { vendor: dmi('bios_vendor'), date: dmi('bios_date'), version: dmi('bios_version') } : null,
    chassis: hasFirmware
      ? {
          vendor: dmi('chassis_vendor'),
          type: CHASSIS[Number(dmi('chassis_type'))] ?? '',
          serial: dmi('chassis_serial'),
          version: dmi('chassis_version'),
        }
      : null,
    motherboard: hasFirmware
      ? {
          vendor: dmi('board_vendor'),
          product: dmi('board_name'),
          serial: dmi('board_serial'),
          version: dmi('board_version'),
        }
      : null,
  };
}

function systemType(tree: SysTree): string {
  const isContainer =
    CONTAINER_MARKS.some((mark) => tree.has(mark)) ||
    tree
      .text('/proc/1/environ')
      .split('\0')
      .some((one) => one.startsWith('container='));
  if (isContainer) return 'container';
  const isGuest = tree.has('/sys/hypervisor/type') || /^flags\s*:.*\bhypervisor\b/m.test(tree.text('/proc/cpuinfo'));
  return isGuest ? 'virtual-machine' : 'physical';
}
