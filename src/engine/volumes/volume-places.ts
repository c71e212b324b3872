// Where a new custom volume lies in its pool, and what the pool gives it.
import { randomUUID } from 'node:crypto';
import type { VolumeRef } from '#drivers/storage/driver.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord } from '../db/records.ts';
import type { VolumeKey } from '../db/volumes.ts';
import type { ConfigMap } from '../types.ts';
import { GIVEN_BY_POOLS } from './volume-config.ts';

type Context = Pick<EngineContext, 'database' | 'pools'>;

const IN_POOL = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/u;

/** volume.* of the pool. */
export function volumeDefaults({ database, pools }: Context, pool: string): ConfigMap {
  const { config } = database.pools.get(pool);
  const keys = [...GIVEN_BY_POOLS, ...Object.keys(pools.volumeKeys(pool))];
  const defaults = keys.map((key) => [key, config[`volume.${key}`] ?? ''] as const);
  return Object.fromEntries(defaults.filter(([, value]) => value !== ''));
}

/** As LXD has it, unless that is taken or cannot be the name of a directory. */
export function freeHostName({ database }: Context, { pool, project, name }: VolumeKey): string {
  const taken = new Set(database.volumes.list(pool).map(({ hostName }) => hostName));
  const plain = `${project}_${name}`;
  return IN_POOL.test(plain) && !plain.includes('..') && !taken.has(plain) ? plain : randomUUID();
}

/** For the driver. */
export function refOf({ hostName }: Pick<VolumeRecord, 'hostName'>): VolumeRef {
  return { kind: 'custom', name: hostName };
}
