// type=usb: devices of the USB bus by vendor and product, or all of them; they come and go while the container runs.
import { usbDevices } from '../common/hardware.ts';
import { HotPluggedDevice } from '../common/hot-plugged.ts';
import type { DeviceModule } from '../driver.ts';

const KIND = { type: 'usb', absent: 'Required USB device not found', find: usbDevices };

export const usb: DeviceModule = { type: 'usb', create: (context) => new HotPluggedDevice(KIND, context) };
