// What the registry knows of the overlay driver.
import type { StorageModule } from '../driver.ts';
import { directoryConfigKeys } from '../common/config-keys.ts';
import { OverlayDriver } from './overlay.ts';

export const overlay: StorageModule = {
  name: 'overlay',
  configKeys: directoryConfigKeys,
  create: (context) => new OverlayDriver(context),
};
