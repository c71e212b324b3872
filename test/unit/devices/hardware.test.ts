// Devices that are named by what they are: usb, unix-hotplug and gpu, on a sysfs made for the test.
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DeviceModule } from '#drivers/devices/driver.ts';
import { gpu } from '#drivers/devices/gpu/gpu.ts';
import { usb } from '#drivers/devices/usb/usb.ts';
import { unixHotplug } from '#drivers/devices/unix-hotplug/unix-hotplug.ts';
import { nodesOfUsbDevices, usbDevices } from '#drivers/devices/common/hardware.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const forwards = { add: async () => undefined, remove: async () => undefined };
const owner = { project: 'default', name: 'c1', hostName: 'c1', idMap: null, devices: {} };
let sysfs: string;

beforeEach(async () => {
  sysfs = await mkdtemp(join(tmpdir(), 'sysfs-'));
});
afterEach(() => rm(sysfs, { recursive: true }));

async function files(directory: string, content: Record<string, string>): Promise<string> {
  const path = join(sysfs, directory);
  await mkdir(path, { recursive: true });
  for (const [name, text] of Object.entries(content)) await writeFile(join(path, name), `${text}\n`);
  return path;
}

function driver(module: DeviceModule) {
  const host = new FakeHost();
  return {
    host,
    driver: module.create({
      host,
      log: silentLog,
      forwards,
      devicesPath: '/devices',
      homesPath: '/homes',
      servedPath: '/served',
      sysfs,
    }),
  };
}

/** A serial adapter on the bus, its interface, and the line that a driver made for it. */
async function plugSerial(): Promise<void> {
  const bus = 'devices/pci0000:00/usb1/1-1';
  const ids = { idVendor: '0403', idProduct: '6001', busnum: '1', devnum: '2', dev: '189:1' };
  const device = await files(bus, ids);
  await files(`${bus}/1-1:1.0`, { bInterfaceClass: 'ff' });
  const line = await files(`${bus}/1-1:1.0/ttyUSB0/tty/ttyUSB0`, { uevent: 'MAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0' });
  await mkdir(join(sysfs, 'class/tty'), { recursive: true });
  await mkdir(join(sysfs, 'bus/usb/devices'), { recursive: true });
  await symlink(device, join(sysfs, 'bus/usb/devices/1-1'));
  await symlink(join(device, '1-1:1.0'), join(sysfs, 'bus/usb/devices/1-1:1.0'));
  await symlink(join(sysfs, 'class/tty'), join(line, 'subsystem'));
  await symlink(join(sysfs, 'bus/usb'), join(device, 'subsystem'));
  await writeFile(join(device, 'uevent'), 'MAJOR=189\nMINOR=1\nDEVNAME=bus/usb/001/002\n');
  await mkdir(join(sysfs, 'dev/char'), { recursive: true });
  await symlink(line, join(sysfs, 'dev/char/188:0'));
  await symlink(device, join(sysfs, 'dev/char/189:1'));
}

describe('usb and unix-hotplug', () => {
  it.each([
    [usb, { vendorid: 'zz' }, 'Invalid value for device option "vendorid": Invalid value, must be four lower case hex'],
    [usb, { productid: '12aB' }, 'Invalid value for device option "productid": Invalid value, must be four lower case'],
    [usb, { serial: 'abc' }, 'Invalid device option "serial"'],
    [unixHotplug, {}, 'Unix hotplug devices require a vendorid or a productid'],
    [unixHotplug, { productid: '1234', required: 'foo' }, 'Invalid value for a boolean "foo"'],
  ])('refuse what they do not know', (module, config, complaint) => {
    expect(() => driver(module).driver.validate({ type: module.type, ...config })).toThrow(complaint);
  });

  it('take everything of the bus when nothing is said', () => {
    expect(() => driver(usb).driver.validate({ type: 'usb' })).not.toThrow();
  });

  it('are found by what the kernel says of them', async () => {
    expect(await usbDevices(sysfs)).toEqual([]);
    expect(await nodesOfUsbDevices(sysfs)).toEqual([]);

    await plugSerial();

    const ids = { vendor: '0403', product: '6001' };
    expect(await usbDevices(sysfs)).toEqual([
      { ...ids, node: { kind: 'char', major: 189, minor: 1, path: '/dev/bus/usb/001/002' } },
    ]);
    expect(await nodesOfUsbDevices(sysfs)).toEqual([
      { ...ids, node: { kind: 'char', major: 188, minor: 0, path: '/dev/ttyUSB0' } },
    ]);
  });

  it('start without hardware unless it is required, and are stale when it has come', async () => {
    const device = { owner, device: 'u', config: { type: 'usb', vendorid: '0403' } };
    const { driver: tried } = driver(usb);

    expect(await tried.start(device, AbortSignal.timeout(1000))).toEqual({ mounts: [], rules: [] });
    expect(await tried.isStale?.(device)).toBe(false);
    const required = { ...device, config: { ...device.config, required: 'true' } };
    await expect(tried.start(required, AbortSignal.timeout(1000))).rejects.toThrow('Required USB device not found');
    await plugSerial();
    expect(await tried.isStale?.(device)).toBe(true);
    expect(await tried.isStale?.({ ...device, config: { type: 'usb', vendorid: '9999' } })).toBe(false);
  });
});

describe('gpu', () => {
  it.each([
    [{ gputype: 'foo' }, 'Invalid value "foo" (not one of [physical mdev mig sriov])'],
    [{ gputype: 'mdev', mdev: 'a' }, 'Unsupported device type'],
    [{ gputype: 'mig' }, 'Unsupported device type'],
    [{ gputype: 'sriov' }, 'Unsupported device type'],
    [{ pci: 'x' }, 'Invalid value for device option "pci": Invalid PCI address'],
    [{ pci: '0000:00:02.0', id: '1' }, 'Cannot use "id" when when "pci" is set'],
    [{ pci: '0000:00:02.0', vendorid: '10de' }, 'Cannot use "vendorid" when when "pci" is set'],
    [{ id: '0', productid: '10de' }, 'Cannot use "productid" when when "id" is set'],
    [{ vendorid: 'zz' }, 'Invalid value for device option "vendorid": Invalid value, must be four lower case hex'],
    [{ 'mig.ci': '1' }, 'Invalid device option "mig.ci"'],
  ])('%j: %s', (config, complaint) => {
    expect(() => driver(gpu).driver.validate({ type: 'gpu', ...config })).toThrow(complaint);
  });

  it('gives the nodes of the cards that are meant', async () => {
    for (const [index, vendor] of ['0x8086', '0x1002'].entries()) {
      const card = await files(`devices/pci0000:00/0000:0${index}:02.0`, { vendor, device: '0x9bc8' });
      await files(`devices/pci0000:00/0000:0${index}:02.0/drm/card${index}`, { dev: `226:${index}` });
      await files(`devices/pci0000:00/0000:0${index}:02.0/drm/renderD${128 + index}`, { dev: `226:${128 + index}` });
      await symlink(card, join(card, 'drm', `card${index}`, 'device'));
      await mkdir(join(sysfs, 'class/drm'), { recursive: true });
      await symlink(join(card, 'drm', `card${index}`), join(sysfs, `class/drm/card${index}`));
    }
    const start = async (config: Record<string, string>) => {
      const { host, driver: tried } = driver(gpu);
      const nodes: string[] = [];
      host.makeNode = async (path, { major, minor }) => void nodes.push(`${path} ${major}:${minor}`);
      await tried.start({ owner, device: 'g', config: { type: 'gpu', ...config } }, AbortSignal.timeout(1000));
      return nodes.map((node) => node.replace('/devices/c1/unix.g.', ''));
    };

    expect(await start({ vendorid: '1002' })).toEqual(['dev-dri-card1 226:1', 'dev-dri-renderD129 226:129']);
    expect(await start({ pci: '00:02.0' })).toEqual(['dev-dri-card0 226:0', 'dev-dri-renderD128 226:128']);
    expect(await start({ id: '1', mode: '0666' })).toHaveLength(2);
    expect(await start({})).toHaveLength(4);
    await expect(start({ productid: '1111' })).rejects.toThrow('Failed to detect requested GPU device');
  });
});
