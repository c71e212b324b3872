// The one list of storage drivers.
import { btrfs } from './btrfs/module.ts';
import { dir } from './dir/module.ts';
import type { StorageModule } from './driver.ts';
import { lvm } from './lvm/module.ts';
import { overlay } from './overlay/module.ts';
import { zfs } from './zfs/module.ts';

export const storageDrivers = { btrfs, dir, lvm, overlay, zfs } as const satisfies Record<string, StorageModule>;
