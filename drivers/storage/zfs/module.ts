// What the registry knows of the zfs driver.
import type { StorageModule } from '../driver.ts';
import { commonConfigKeys } from '../common/config-keys.ts';
import { checkPoolConfig, checkSetting, VOLUME_KEYS } from './settings.ts';
import { ZfsDriver } from './zfs-driver.ts';

const volumeDefaults = Object.entries(VOLUME_KEYS).map(([key, what]) => [`volume.${key}`, what] as const);

export const zfs: StorageModule = {
  name: 'zfs',
  configKeys: {
    ...commonConfigKeys,
    ...Object.fromEntries(volumeDefaults),
    source:
      'A pool or dataset that exists, a block device, or a file to be made; without it a file in the disks folder',
    size: 'Size of the file that the pool is made on; without it a fifth of what is free, 5 to 30 GiB; it can grow later',
    'zfs.pool_name': 'Name of the zfs pool or dataset',
    'zfs.clone_copy':
      'Whether copies are clones (true), share what they have with their image only (rebase), or nothing (false)',
  },
  changeableKeys: ['size', 'zfs.clone_copy'],
  checkConfig: checkPoolConfig,
  volumeKeys: Object.fromEntries(Object.keys(VOLUME_KEYS).map((key) => [key, (value) => checkSetting(key, value)])),
  create: (context) => new ZfsDriver(context),
};
