// The hardware of a host as /sys shows it: a server with two sockets, a card with functions, and the usual disks.
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HardwareNames } from '#src/engine/server/resources/hardware-names.ts';
import { readResources } from '#src/engine/server/resources/resources.ts';
import { SysTree } from '#src/engine/server/resources/sys-tree.ts';

const PCI = '/sys/devices/pci0000:00';
const IDS = `# remark
10de  NVIDIA Corporation
\t1eb8  TU104GL [Tesla T4]
\t\t10de 12a2  a subsystem
8086  Intel Corporation
\t1572  Ethernet Controller X710
# another
\t154c  Virtual Function 700 Series
`;

describe('resources of a host', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'resources-'));
  });
  afterEach(() => rm(root, { recursive: true }));

  async function files(texts: Readonly<Record<string, string>>): Promise<void> {
    for (const [path, text] of Object.entries(texts)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), `${text}\n`);
    }
  }
  /** Relative, as those of /sys. */
  async function links(targets: Readonly<Record<string, string>>): Promise<void> {
    for (const [path, target] of Object.entries(targets)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await mkdir(join(root, target), { recursive: true });
      await symlink(relative(dirname(path), target), join(root, path));
    }
  }
  /** A PCI device with these files. */
  async function pci(address: string, texts: Readonly<Record<string, string>>): Promise<string> {
    const device = `${PCI}/${address}`;
    await files(Object.fromEntries(Object.entries(texts).map(([name, text]) => [`${device}/${name}`, text])));
    await links({ [`/sys/bus/pci/devices/${address}`]: device });
    return device;
  }
  // oxlint-disable-next-line typescript/no-explicit-any -- looked into as clients do
  const read = () => readResources('x86_64', new SysTree(root)) as Promise<any>;

  it('has nothing where nothing is', async () => {
    expect(await read()).toMatchObject({
      cpu: { architecture: 'x86_64', sockets: [], total: 0 },
      memory: { nodes: [], used: 0, total: 0 },
      gpu: { cards: [], total: 0 },
      network: { cards: [], total: 0 },
      storage: { disks: [], total: 0 },
      usb: { devices: [], total: 0 },
      pci: { devices: [], total: 0 },
      system: { type: 'physical', firmware: null, chassis: null, motherboard: null },
    });
  });

  it('tells sockets, dies, cores and threads apart', async () => {
    const cpus = '/sys/devices/system/cpu';
    const places = [
      [0, 0, 0, 0],
      [1, 0, 1, 0],
      [2, 1, 0, 0],
      [3, 0, 0, 0],
    ] as const;
    for (const [id, socket, die, core] of places) {
      await files({
        [`${cpus}/cpu${id}/topology/physical_package_id`]: String(socket),
        [`${cpus}/cpu${id}/topology/die_id`]: String(die),
        [`${cpus}/cpu${id}/topology/core_id`]: String(core),
        [`${cpus}/cpu${id}/cpufreq/scaling_cur_freq`]: String(2_000_000 + id * 100_000),
        [`${cpus}/cpu${id}/cpufreq/cpuinfo_min_freq`]: '1000000',
        [`${cpus}/cpu${id}/cpufreq/cpuinfo_max_freq`]: '3500000',
        [`${cpus}/cpu${id}/node${socket}/cpumap`]: '1',
        [`${cpus}/cpu${id}/cache/index0/level`]: '1',
        [`${cpus}/cpu${id}/cache/index0/type`]: 'Data',
        [`${cpus}/cpu${id}/cache/index0/size`]: '32K',
      });
    }
    await files({
      [`${cpus}/online`]: '0-2',
      [`${cpus}/isolated`]: '2',
      '/proc/cpuinfo': 'processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\n',
    });

    const { cpu } = await read();

    const thread = (id: number, place: number, node: number) => {
      return { id, numa_node: node, thread: place, online: id !== 3, isolated: id === 2 };
    };
    expect(cpu.total).toBe(3);
    expect(cpu.sockets).toEqual([
      {
        name: 'Xeon',
        vendor: 'GenuineIntel',
        socket: 0,
        cache: [{ level: 1, type: 'Data', size: 32_768 }],
        cores: [
          { core: 0, die: 0, threads: [thread(0, 0, 0), thread(3, 1, 0)], frequency: 2150 },
          { core: 0, die: 1, threads: [thread(1, 0, 0)], frequency: 2100 },
        ],
        frequency: 2133,
        frequency_minimum: 1000,
        frequency_turbo: 3500,
      },
      expect.objectContaining({ socket: 1, frequency: 2200 }),
    ]);
  });

  it('counts memory and large pages by node', async () => {
    const nodes = '/sys/devices/system/node';
    await files({
      '/proc/meminfo':
        'MemTotal: 4000 kB\nMemAvailable: 1000 kB\nHugePages_Total: 4\nHugePages_Free: 1\nHugepagesize: 2048 kB',
      [`${nodes}/node1/meminfo`]:
        'Node 1 MemTotal: 2000 kB\nNode 1 MemUsed: 900 kB\nNode 1 FilePages: 300 kB\nNode 1 HugePages_Total: 2\nNode 1 HugePages_Free: 2',
    });

    const { memory } = await read();

    expect(memory).toEqual({
      nodes: [{ numa_node: 1, hugepages_used: 0, hugepages_total: 2 << 21, used: 600 * 1024, total: 2000 * 1024 }],
      hugepages_total: 4 << 21,
      hugepages_used: 3 << 21,
      hugepages_size: 2 << 20,
      used: 3000 * 1024,
      total: 4000 * 1024,
    });
  });

  it('knows the installed memory by its blocks', async () => {
    const blocks = '/sys/devices/system/memory';
    await files({
      [`${blocks}/block_size_bytes`]: '8000000',
      [`${blocks}/memory0/online`]: '1',
      [`${blocks}/memory1/online`]: '1',
      [`${blocks}/memory2/online`]: '0',
      '/sys/devices/system/node/node0/meminfo': 'Node 0 MemTotal: 2000 kB',
    });
    await links({ '/sys/devices/system/node/node0/memory1': `${blocks}/memory1` });

    expect((await read()).memory).toMatchObject({ total: 2 << 27, nodes: [{ total: 1 << 27 }] });
  });

  it('names cards, and puts virtual functions under the card that they are of', async () => {
    await files({ '/usr/share/misc/pci.ids': IDS, '/proc/sys/kernel/osrelease': '6.1.0' });
    const card = await pci('0000:00:01.0', {
      class: '0x020000',
      vendor: '0x8086',
      device: '0x1572',
      numa_node: '1',
      sriov_totalvfs: '8',
      sriov_numvfs: '1',
      'net/eno1/address': '00:11:22:33:44:55',
      'net/eno1/type': '1',
      'net/eno1/dev_port': '0',
      'net/eno1/carrier': '1',
      'net/eno1/speed': '10000',
      'net/eno1/duplex': 'full',
    });
    const vf = await pci('0000:00:02.0', { class: '0x020000', vendor: '0x8086', device: '0x154c' });
    const gpu = await pci('0000:00:03.0', { class: '0x030200', vendor: '0x10de', device: '0x1eb8', numa_node: '-1' });
    await files({ [`${gpu}/drm/card1/dev`]: '226:1', [`${gpu}/drm/renderD129/dev`]: '226:129' });
    await links({
      '/sys/class/net/eno1': `${card}/net/eno1`,
      [`${card}/net/eno1/device`]: card,
      [`${card}/driver`]: '/sys/bus/pci/drivers/i40e',
      [`${card}/virtfn0`]: vf,
      [`${vf}/physfn`]: card,
      '/sys/class/drm/card1': `${gpu}/drm/card1`,
      '/sys/class/drm/renderD129': `${gpu}/drm/renderD129`,
      [`${gpu}/drm/card1/device`]: gpu,
    });

    const found = await read();

    const { network } = found;
    expect(network.total).toBe(2);
    expect(network.cards).toEqual([
      expect.objectContaining({
        driver: 'i40e',
        driver_version: '6.1.0',
        numa_node: 1,
        pci_address: '0000:00:01.0',
        vendor: 'Intel Corporation',
        product: 'Ethernet Controller X710',
        sriov: {
          current_vfs: 1,
          maximum_vfs: 8,
          vfs: [expect.objectContaining({ product_id: '154c', pci_address: '0000:00:02.0' })],
        },
      }),
    ]);
    expect(network.cards[0].ports[0]).toMatchObject({
      id: 'eno1',
      address: '00:11:22:33:44:55',
      protocol: 'ethernet',
      link_detected: true,
      link_speed: 10_000,
      link_duplex: 'full',
    });
    expect(found.gpu).toEqual({
      cards: [
        {
          drm: {
            id: 1,
            card_name: 'card1',
            card_device: '226:1',
            render_name: 'renderD129',
            render_device: '226:129',
          },
          numa_node: 0,
          pci_address: '0000:00:03.0',
          vendor: 'NVIDIA Corporation',
          vendor_id: '10de',
          product: 'TU104GL [Tesla T4]',
          product_id: '1eb8',
        },
      ],
      total: 1,
    });
    expect(found.pci.total).toBe(3);
  });

  it('lists disks with their partitions, and nothing that is made of disks', async () => {
    const nvme = await pci('0000:00:05.0', { class: '0x010802', vendor: '0x144d', device: '0xa808' });
    const block = `${nvme}/nvme/nvme0/nvme0n1`;
    await files({
      [`${nvme}/nvme/nvme0/model`]: 'SAMSUNG MZ',
      [`${nvme}/nvme/nvme0/serial`]: 'S1',
      [`${nvme}/nvme/nvme0/firmware_rev`]: 'EXA7',
      [`${block}/dev`]: '259:0',
      [`${block}/size`]: '2048',
      [`${block}/ro`]: '0',
      [`${block}/wwid`]: 'eui.1',
      [`${block}/queue/physical_block_size`]: '4096',
      [`${block}/queue/rotational`]: '0',
      [`${block}/nvme0n1p1/partition`]: '1',
      [`${block}/nvme0n1p1/dev`]: '259:1',
      [`${block}/nvme0n1p1/size`]: '1024',
      '/sys/devices/virtual/block/loop0/size': '8',
      '/run/udev/data/b259:0': 'E:ID_SERIAL=SAMSUNG_S1\nE:ID_BUS=nvme\nE:ID_PATH=pci-0000:00:05.0-nvme-1',
    });
    await links({
      '/sys/class/block/nvme0n1': block,
      '/sys/class/block/nvme0n1p1': `${block}/nvme0n1p1`,
      '/sys/class/block/loop0': '/sys/devices/virtual/block/loop0',
      [`${block}/device`]: `${nvme}/nvme/nvme0`,
    });

    const { storage } = await read();

    expect(storage.disks).toEqual([
      {
        id: 'nvme0n1',
        device: '259:0',
        model: 'SAMSUNG MZ',
        type: 'nvme',
        read_only: false,
        size: 1 << 20,
        removable: false,
        wwn: 'eui.1',
        numa_node: 0,
        device_path: 'pci-0000:00:05.0-nvme-1',
        block_size: 4096,
        firmware_version: 'EXA7',
        rpm: 0,
        serial: 'S1',
        device_id: 'nvme-SAMSUNG_S1',
        partitions: [{ id: 'nvme0n1p1', device: '259:1', read_only: false, size: 512 << 10, partition: 1 }],
        pci_address: '0000:00:05.0',
      },
    ]);
  });

  it('lists what is plugged in, but no hubs', async () => {
    const usb = '/sys/bus/usb/devices';
    await files({
      [`${usb}/usb1/bDeviceClass`]: '09',
      [`${usb}/1-2/bDeviceClass`]: '00',
      [`${usb}/1-2/idVendor`]: '046d',
      [`${usb}/1-2/idProduct`]: 'c31c',
      [`${usb}/1-2/busnum`]: '1',
      [`${usb}/1-2/devnum`]: '7',
      [`${usb}/1-2/speed`]: '1.5',
      [`${usb}/1-2/manufacturer`]: 'Logitech',
      [`${usb}/1-2/product`]: 'Keyboard',
      [`${usb}/1-2/1-2:1.0/bInterfaceClass`]: '03',
      [`${usb}/1-2/1-2:1.0/bInterfaceSubClass`]: '01',
      [`${usb}/1-2/1-2:1.0/bInterfaceNumber`]: '00',
    });

    expect((await read()).usb).toEqual({
      devices: [
        {
          bus_address: 1,
          device_address: 7,
          interfaces: [{ class: 'Human Interface Device', class_id: 3, number: 0, subclass: '', subclass_id: 1 }],
          vendor: 'Logitech',
          vendor_id: '046d',
          product: 'Keyboard',
          product_id: 'c31c',
          speed: 1.5,
        },
      ],
      total: 1,
    });
  });

  it('says what the machine is', async () => {
    const dmi = '/sys/class/dmi/id';
    await files({
      [`${dmi}/sys_vendor`]: 'Dell Inc.',
      [`${dmi}/chassis_type`]: '23',
      [`${dmi}/board_name`]: 'B1',
      [`${dmi}/bios_version`]: '2.1',
      '/proc/cpuinfo': 'processor\t: 0\nflags\t\t: fpu hypervisor lm\n',
    });

    expect((await read()).system).toMatchObject({
      vendor: 'Dell Inc.',
      type: 'virtual-machine',
      firmware: { version: '2.1' },
      chassis: { type: 'Rack Mount Chassis' },
      motherboard: { product: 'B1' },
    });
  });

  it('finds names only under their own vendor', async () => {
    await files({ '/usr/share/misc/pci.ids': IDS });
    const names = new HardwareNames(new SysTree(root));

    expect(names.find('pci.ids', '8086', '154c').product).toBe('Virtual Function 700 Series');
    expect(names.find('pci.ids', '8086', '1eb8')).toEqual({ vendor: 'Intel Corporation', product: '' });
    expect(names.find('pci.ids', 'ffff', '1eb8')).toEqual({ vendor: '', product: '' });
    expect(names.find('usb.ids', '8086', '1572')).toEqual({ vendor: '', product: '' });
  });
});
