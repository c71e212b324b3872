// What a volume's driver is told of its configuration, its size above all, through kills: the row says that a change is under way, and a daemon
// that finds it so tells the driver what the row has, which is what was before.
import { isDeepStrictEqual } from 'node:util';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord } from '../db/records.ts';
import type { ConfigMap } from '../types.ts';
import { driverConfig, sizeOf } from './volume-config.ts';
import { refOf } from './volume-places.ts';

const CHANGING = 'volatile.lighter.changing';

type Context = Pick<EngineContext, 'database' | 'pools'>;

/** Whether a killed daemon was about to tell the driver something else. */
export function isChanging(config: ConfigMap): boolean {
  return config[CHANGING] !== undefined;
}

/**
 * Tells the driver what differs between the volume's configuration and `config`, if anything does. The caller holds the lock of the volume
 * and writes the row next, which ends the change. AppError as of the driver; the row is as before then.
 */
export async function changeInDriver(
  context: Context,
  volume: VolumeRecord,
  config: ConfigMap,
  signal: AbortSignal,
): Promise<void> {
  const keys = context.pools.volumeKeys(volume.pool);
  const told = (of: ConfigMap) => ({ config: driverConfig(of, keys), sizeBytes: sizeOf(of) });
  if (isDeepStrictEqual(told(config), told(volume.config))) return;
  const { id, description } = volume;
  context.database.volumes.update(id, { description, config: { ...volume.config, [CHANGING]: 'true' } });
  try {
    await tellDriver(context, volume, config, signal);
  } catch (error) {
    context.database.volumes.update(id, { description, config: volume.config });
    throw error;
  }
}

/** Ends what a killed daemon has left. The caller holds the lock of the volume. */
export async function undoChange(context: Context, volume: VolumeRecord, signal: AbortSignal): Promise<void> {
  const { [CHANGING]: _changing, ...config } = volume.config;
  await tellDriver(context, volume, config, signal);
  context.database.volumes.update(volume.id, { description: volume.description, config });
}

async function tellDriver(
  { pools }: Context,
  volume: VolumeRecord,
  config: ConfigMap,
  signal: AbortSignal,
): Promise<void> {
  const storage = pools.driver(volume.pool);
  const sizeBytes = sizeOf(config);
  const change = { config: driverConfig(config, pools.volumeKeys(volume.pool)), sizeBytes };
  if (storage.configureVolume) await storage.configureVolume(refOf(volume), change, signal);
  else if (storage.info.quotas) await storage.resizeVolume(refOf(volume), sizeBytes, signal);
}
