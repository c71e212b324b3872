// Disks and their partitions.
import { numaNodeOf, placeOf } from './bus.ts';
import { pciDevice } from './pci.ts';
import { filled, type SysTree } from './sys-tree.ts';

const BLOCKS = '/sys/class/block';
const SECTOR_BYTES = 512;
const UDEV = '/run/udev/data';

export function readStorage(tree: SysTree): object {
  // What has no device under it is made of others, or of memory.
  const names = tree.list(BLOCKS).filter((name) => tree.has(`${BLOCKS}/${name}/device`));
  const disks = names.filter((name) => !tree.has(`${BLOCKS}/${name}/partition`)).map((name) => readDisk(tree, name));
  return { disks, total: disks.length };
}

function readDisk(tree: SysTree, id: string): object {
  const path = `${BLOCKS}/${id}`;
  const device = tree.text(`${path}/dev`);
  const udev = udevOf(tree, device);
  const { pciAddress, usbAddress } = placeOf(tree, `${path}/device`);
  return {
    id,
    device,
    ...filled({ model: tree.text(`${path}/device/model`) || udev('ID_MODEL'), type: diskType(tree, id) }),
    read_only: tree.number(`${path}/ro`) === 1,
    size: (tree.number(`${path}/size`) ?? 0) * SECTOR_BYTES,
    removable: tree.number(`${path}/removable`) === 1,
    ...filled({ wwn: tree.text(`${path}/wwid`) || tree.text(`${path}/device/wwid`) || udev('ID_WWN') }),
    numa_node: numaNodeOf(tree, pciAddress === '' ? `${path}/device` : pciDevice(pciAddress)),
    ...filled({ device_path: udev('ID_PATH') }),
    block_size: tree.number(`${path}/queue/physical_block_size`) ?? 0,
    ...filled({ firmware_version: firmware(tree, path) || udev('ID_REVISION') }),
    // 1: it turns, nobody knows how fast.
    rpm: tree.number(`${path}/queue/rotational`) ?? 0,
    ...filled({ serial: serial(tree, path) || udev('ID_SERIAL_SHORT') }),
    device_id: deviceId(udev('ID_SERIAL'), udev('ID_BUS')),
    partitions: partitionsOf(tree, path),
    ...filled({ pci_address: pciAddress, usb_address: usbAddress }),
  };
}

/** The link in /dev/disk/by-id that udev makes of these. */
function deviceId(serialText: string, bus: string): string {
  return serialText === '' ? '' : `${bus === '' ? '' : `${bus}-`}${serialText}`;
}

function firmware(tree: SysTree, path: string): string {
  return tree.text(`${path}/device/firmware_rev`) || tree.text(`${path}/device/rev`);
}

function serial(tree: SysTree, path: string): string {
  return tree.text(`${path}/device/serial`) || tree.text(`${path}/serial`);
}

/** Of nvme and virtio the names say it, of the others the kind of their bus. */
function diskType(tree: SysTree, id: string): string {
  if (id.startsWith('nvme')) return 'nvme';
  const subsystem = tree.target(`${BLOCKS}/${id}/device/subsystem`);
  if (subsystem !== 'scsi') return subsystem;
  const real = tree.real(`${BLOCKS}/${id}/device`) ?? '';
  if (/\/usb\d+\//.test(real)) return 'usb';
  return /\/ata\d+\//.test(real) ? 'sata' : 'scsi';
}

function partitionsOf(tree: SysTree, path: string): readonly object[] {
  return tree
    .list(path)
    .filter((name) => tree.has(`${path}/${name}/partition`))
    .map((id) => ({
      id,
      device: tree.text(`${path}/${id}/dev`),
      read_only: tree.number(`${path}/${id}/ro`) === 1,
      size: (tree.number(`${path}/${id}/size`) ?? 0) * SECTOR_BYTES,
      partition: tree.number(`${path}/${id}/partition`) ?? 0,
    }));
}

/** What udev knows of a block device: E:KEY=VALUE. */
function udevOf(tree: SysTree, device: string): (key: string) => string {
  const text = tree.text(`${UDEV}/b${device}`);
  return (key) => new RegExp(`^E:${key}=(.*)$`, 'm').exec(text)?.[1] ?? '';
}
