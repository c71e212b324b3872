// type=none: nothing; it masks a device of the same name that a profile has.
import { type DeviceModule, NOTHING } from '../driver.ts';

export const none: DeviceModule = {
  type: 'none',
  create: () => ({
    info: { type: 'none', liveOptions: [] },
    validate: () => undefined,
    start: async () => NOTHING,
    started: async () => NOTHING,
    stop: async () => undefined,
  }),
};
