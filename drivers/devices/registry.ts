// The one list of device drivers.
import { disk } from './disk/disk.ts';
import type { DeviceModule } from './driver.ts';
import { gpu } from './gpu/gpu.ts';
import { none } from './none/none.ts';
import { proxy } from './proxy/proxy.ts';
import { tpm } from './tpm/tpm.ts';
import { unixBlock, unixChar } from './unix/unix.ts';
import { unixHotplug } from './unix-hotplug/unix-hotplug.ts';
import { usb } from './usb/usb.ts';

export const deviceDrivers = {
  disk,
  gpu,
  none,
  proxy,
  tpm,
  'unix-block': unixBlock,
  'unix-char': unixChar,
  'unix-hotplug': unixHotplug,
  usb,
} as const satisfies Record<string, DeviceModule>;
