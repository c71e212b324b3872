// Devices of the PCI bus.
import { driverOf, idText, numaNodeOf } from './bus.ts';
import type { HardwareNames } from './hardware-names.ts';
import type { SysTree } from './sys-tree.ts';

const DEVICES = '/sys/bus/pci/devices';

export interface PciIds {
  readonly vendor: string;
  readonly vendor_id: string;
  readonly product: string;
  readonly product_id: string;
}

export function readPci(tree: SysTree, names: HardwareNames): object {
  const devices = tree.list(DEVICES).map((address) => {
    const device = `${DEVICES}/${address}`;
    return {
      ...driverOf(tree, device),
      numa_node: numaNodeOf(tree, device),
      pci_address: address,
      ...pciIds(tree, names, device),
      iommu_group: Number(tree.target(`${device}/iommu_group`)) || 0,
      // Reading vital product data takes seconds on some cards, and hangs on others.
      vpd: {},
    };
  });
  return { devices, total: devices.length };
}

/** Of a directory with `vendor` and `device`. */
export function pciIds(tree: SysTree, names: HardwareNames, device: string): PciIds {
  const vendorId = idText(tree.text(`${device}/vendor`));
  const productId = idText(tree.text(`${device}/device`));
  const { vendor, product } = names.find('pci.ids', vendorId, productId);
  return { vendor, vendor_id: vendorId, product, product_id: productId };
}

/** The directory of a device at that address. */
export function pciDevice(address: string): string {
  return `${DEVICES}/${address}`;
}
