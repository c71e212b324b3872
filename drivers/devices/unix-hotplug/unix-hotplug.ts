// type=unix-hotplug: what drivers make of USB devices (serial lines, disks, input devices), by vendor and product.
import { nodesOfUsbDevices } from '../common/hardware.ts';
import { HotPluggedDevice } from '../common/hot-plugged.ts';
import type { DeviceModule } from '../driver.ts';

const KIND = {
  type: 'unix-hotplug',
  needsId: 'Unix hotplug devices require a vendorid or a productid',
  absent: 'Required Unix Hotplug device not found',
  find: nodesOfUsbDevices,
};

export const unixHotplug: DeviceModule = {
  type: 'unix-hotplug',
  create: (context) => new HotPluggedDevice(KIND, context),
};
