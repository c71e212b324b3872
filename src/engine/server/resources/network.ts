// Network cards, their ports and virtual functions.
import type { Ethtool, LinkSettings } from '#src/host/ethtool.ts';
import { type Driver, driverOf, numaNodeOf, placeOf } from './bus.ts';
import type { HardwareNames } from './hardware-names.ts';
import { pciDevice, type PciIds, pciIds } from './pci.ts';
import { filled, type SysTree } from './sys-tree.ts';

const INTERFACES = '/sys/class/net';
const PCI = '/sys/bus/pci/devices';
/** PCI's class of network controllers, in the highest byte. */
const NETWORK_CLASS = /^0x02/;
const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'ethernet', 19: 'ATM', 32: 'infiniband' };

type Card = Partial<Driver & PciIds> & {
  readonly ports?: readonly object[];
  readonly sriov?: object;
  readonly numa_node: number;
  readonly pci_address?: string;
  readonly firmware_version?: string;
  readonly usb_address?: string;
};

/** One for each device; of functions that belong to another card, that card speaks. */
export function readNetwork(tree: SysTree, names: HardwareNames, ethtool: Ethtool): object {
  const byDevice = Map.groupBy(
    tree.list(INTERFACES).filter((name) => tree.has(`${INTERFACES}/${name}/device`)),
    (name) => deviceOf(tree, name),
  );
  for (const address of tree.list(PCI)) {
    const device = pciDevice(address);
    if (NETWORK_CLASS.test(tree.text(`${device}/class`)) && !byDevice.has(device)) byDevice.set(device, []);
  }
  const card = (device: string) =>
    readCard({ tree, names, ethtool }, { device, interfaces: byDevice.get(device) ?? [] });
  const functions = new Map<string, readonly Card[]>();
  for (const device of byDevice.keys()) {
    const found = virtualFunctions(tree, device).filter((one) => byDevice.has(one));
    if (found.length > 0) functions.set(device, found.map(card));
  }
  const owned = new Set([...byDevice.keys()].filter((device) => tree.has(`${device}/physfn`)));
  const cards = [...byDevice.keys()]
    .filter((device) => !owned.has(device))
    .map((device) => ({ ...card(device), ...sriov(tree, device, functions.get(device) ?? []) }));
  const total = cards.length + [...functions.values()].flat().length;
  return { cards, total };
}

/** The device of the nearest bus: a virtio interface belongs to the PCI device that it is on. */
function deviceOf(tree: SysTree, name: string): string {
  const { pciAddress, usbAddress } = placeOf(tree, `${INTERFACES}/${name}/device`);
  return pciAddress === '' || usbAddress !== '' ? `${INTERFACES}/${name}/device` : pciDevice(pciAddress);
}

interface Sources {
  readonly tree: SysTree;
  readonly names: HardwareNames;
  readonly ethtool: Ethtool;
}

function readCard(
  { tree, names, ethtool }: Sources,
  { device, interfaces }: { readonly device: string; readonly interfaces: readonly string[] },
): Card {
  const { pciAddress, usbAddress } = placeOf(tree, device);
  const [first] = interfaces;
  const driver = driverOf(tree, first === undefined ? device : `${INTERFACES}/${first}/device`);
  const ports = interfaces.map((name) => readPort(tree, ethtool, name));
  return {
    ...filled(driver),
    ...(ports.length > 0 && { ports }),
    numa_node: numaNodeOf(tree, device),
    ...filled({ pci_address: pciAddress }),
    ...(pciAddress !== '' && usbAddress === '' ? filled({ ...pciIds(tree, names, device) }) : {}),
    ...filled({ firmware_version: first === undefined ? '' : ethtool.firmwareVersion(first), usb_address: usbAddress }),
  };
}

function readPort(tree: SysTree, ethtool: Ethtool, id: string): object {
  const path = `${INTERFACES}/${id}`;
  const isUp = tree.number(`${path}/carrier`) === 1;
  const speed = tree.number(`${path}/speed`) ?? 0;
  const duplex = tree.text(`${path}/duplex`);
  const settings = ethtool.linkSettings(id);
  return {
    id,
    ...filled({ address: tree.text(`${path}/address`) }),
    port: tree.number(`${path}/dev_port`) ?? 0,
    protocol: PROTOCOLS[tree.number(`${path}/type`) ?? 0] ?? 'unknown',
    ...(settings && settingsView(settings)),
    auto_negotiation: settings?.isNegotiating ?? false,
    link_detected: isUp,
    ...(isUp && filled({ link_speed: Math.max(0, speed), link_duplex: duplex === 'unknown' ? '' : duplex })),
  };
}

function settingsView({ supportedModes, supportedPorts, portType, transceiverType }: LinkSettings): object {
  return {
    ...(supportedModes.length > 0 && { supported_modes: supportedModes }),
    ...(supportedPorts.length > 0 && { supported_ports: supportedPorts }),
    ...filled({ port_type: portType, transceiver_type: transceiverType }),
  };
}

function virtualFunctions(tree: SysTree, device: string): readonly string[] {
  return tree
    .list(device)
    .filter((name) => /^virtfn\d+$/.test(name))
    .map((name) => pciDevice(tree.target(`${device}/${name}`)));
}

function sriov(tree: SysTree, device: string, vfs: readonly Card[]): { readonly sriov?: object } {
  const maximum = tree.number(`${device}/sriov_totalvfs`);
  if (maximum === undefined) return {};
  return { sriov: { current_vfs: tree.number(`${device}/sriov_numvfs`) ?? 0, maximum_vfs: maximum, vfs } };
}
