// What the registry knows of the lvm driver.
import type { StorageModule } from '../driver.ts';
import { commonConfigKeys } from '../common/config-keys.ts';
import { LvmDriver } from './lvm-driver.ts';
import { missingForLvm } from './requirements.ts';
import { checkPoolConfig, checkVolumeKey, POOL_KEYS, VOLUME_KEYS } from './settings.ts';

export const lvm: StorageModule = {
  name: 'lvm',
  configKeys: { ...commonConfigKeys, ...POOL_KEYS },
  changeableKeys: ['size'],
  checkConfig: checkPoolConfig,
  volumeKeys: Object.fromEntries(VOLUME_KEYS.map((key) => [key, (value) => checkVolumeKey(key, value)])),
  missing: missingForLvm,
  create: (context) => new LvmDriver(context),
};
