// Settings of images: the project's own, else the server's.
import type { EngineContext } from '../context.ts';
import { parseBoolean } from '../instances/values.ts';

export interface ImageSettings {
  readonly autoUpdateCached: boolean;
  /** 0: never. */
  readonly autoUpdateIntervalHours: number;
  readonly remoteCacheExpiryDays: number;
  readonly compression: string;
  /** Empty: the host's. */
  readonly defaultArchitecture: string;
}

export function imageSettings(
  { database, config }: Pick<EngineContext, 'database' | 'config'>,
  project: string,
): ImageSettings {
  const own = database.projects.find(project)?.config ?? {};
  const updateCached = own['images.auto_update_cached'];
  return {
    autoUpdateCached: updateCached ? parseBoolean(updateCached) : config.flag('images.auto_update_cached'),
    autoUpdateIntervalHours: Number(own['images.auto_update_interval'] || config.number('images.auto_update_interval')),
    remoteCacheExpiryDays: Number(own['images.remote_cache_expiry'] || config.number('images.remote_cache_expiry')),
    compression: own['images.compression_algorithm'] || config.text('images.compression_algorithm'),
    defaultArchitecture: own['images.default_architecture'] || config.text('images.default_architecture'),
  };
}
