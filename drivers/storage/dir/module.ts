// What the registry knows of the dir driver.
import type { StorageModule } from '../driver.ts';
import { directoryConfigKeys } from '../common/config-keys.ts';
import { DirDriver } from './dir.ts';

export const dir: StorageModule = {
  name: 'dir',
  configKeys: directoryConfigKeys,
  create: (context) => new DirDriver(context),
};
