// The one list of volume drivers.
import type { VolumeModule } from './driver.ts';
import { iscsi } from './iscsi/iscsi.ts';
import { local } from './local/local.ts';
import { nfs } from './nfs/nfs.ts';

export const volumeDrivers = { iscsi, local, nfs } as const satisfies Record<string, VolumeModule>;
