// The one list of volume drivers.
import type { VolumeModule } from './driver.ts';
import { local } from './local/local.ts';
import { nfs } from './nfs/nfs.ts';

export const volumeDrivers = { local, nfs } as const satisfies Record<string, VolumeModule>;
