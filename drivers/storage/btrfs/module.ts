// What the registry knows of the btrfs driver.
import type { StorageModule } from '../driver.ts';
import { commonConfigKeys } from '../common/config-keys.ts';
import { BtrfsDriver } from './btrfs-driver.ts';

export const btrfs: StorageModule = {
  name: 'btrfs',
  configKeys: {
    ...commonConfigKeys,
    source:
      'A block device to be formatted, or a path on btrfs: an empty subvolume or directory, or a subvolume to be made. Without it a ' +
      'file in the disks folder',
    size: 'Size of the file that the pool is made on; it can grow later',
    'btrfs.mount_options': 'Mount options of pools on files and block devices (default: user_subvol_rm_allowed)',
  },
  changeableKeys: ['size', 'btrfs.mount_options'],
  create: (context) => new BtrfsDriver(context),
};
