// Graphics cards.
import { driverOf, numaNodeOf, placeOf } from './bus.ts';
import type { HardwareNames } from './hardware-names.ts';
import { pciDevice, pciIds } from './pci.ts';
import { filled, type SysTree } from './sys-tree.ts';

const DRM = '/sys/class/drm';
const PCI = '/sys/bus/pci/devices';
const DISPLAY_CLASS = /^0x03/;

export function readGpu(tree: SysTree, names: HardwareNames): object {
  const drawn = new Map(
    tree
      .list(DRM)
      .filter((name) => /^card\d+$/.test(name))
      .map((name) => [placeOf(tree, `${DRM}/${name}/device`).pciAddress || name, name] as const),
  );
  const bare = tree.list(PCI).filter((address) => DISPLAY_CLASS.test(tree.text(`${pciDevice(address)}/class`)));
  // A card that only shows what another one drew comes with neither.
  const cards = [...new Set([...bare, ...drawn.keys()])].map((key) =>
    readCard(tree, names, { key, drm: drawn.get(key) }),
  );
  return { cards, total: cards.length };
}

function readCard(
  tree: SysTree,
  names: HardwareNames,
  { key, drm }: { readonly key: string; readonly drm: string | undefined },
): object {
  const device = drm === key ? `${DRM}/${key}/device` : pciDevice(key);
  const { pciAddress, usbAddress } = placeOf(tree, device);
  return {
    ...filled({ ...driverOf(tree, device) }),
    ...(drm !== undefined && { drm: readDrm(tree, drm) }),
    ...sriov(tree, device),
    numa_node: numaNodeOf(tree, device),
    ...filled({ pci_address: pciAddress }),
    ...(pciAddress !== '' && filled({ ...pciIds(tree, names, pciDevice(pciAddress)) })),
    ...filled({ usb_address: usbAddress }),
  };
}

function readDrm(tree: SysTree, card: string): object {
  const siblings = tree.list(`${DRM}/${card}/device/drm`);
  const node = (kind: string) => {
    const name = kind === 'card' ? card : siblings.find((one) => one.startsWith(kind));
    return name === undefined
      ? {}
      : { [`${NODE_KEYS[kind]}_name`]: name, [`${NODE_KEYS[kind]}_device`]: tree.text(`${DRM}/${name}/dev`) };
  };
  return { id: Number(card.slice('card'.length)), ...node('card'), ...node('controlD'), ...node('renderD') };
}

const NODE_KEYS: Readonly<Record<string, string>> = { card: 'card', controlD: 'control', renderD: 'render' };

function sriov(tree: SysTree, device: string): { readonly sriov?: object } {
  const maximum = tree.number(`${device}/sriov_totalvfs`);
  if (maximum === undefined) return {};
  return { sriov: { current_vfs: tree.number(`${device}/sriov_numvfs`) ?? 0, maximum_vfs: maximum, vfs: [] } };
}
