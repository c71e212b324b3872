// The first start: a pool and a root disk in the default profile, so that the first launch works without any setup.
import type { EngineDatabase } from '../db/database.ts';
import type { StoragePools } from './storage-pools.ts';

export interface FirstPool {
  readonly driver: string;
  readonly config: Readonly<Record<string, string>>;
}

const POOL = 'default';

/** Done once in the life of a database; `undefined`: the operator makes pools. */
export async function setUpFirstPool(
  database: EngineDatabase,
  pools: StoragePools,
  first: FirstPool | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (database.server.isSetUp()) return;
  if (first && pools.list().length === 0) {
    await pools.create({ name: POOL, description: '', ...first }, signal);
  }
  const profile = database.profiles.find('default', 'default');
  if (first && profile && Object.keys(profile.devices).length === 0) {
    const devices = { root: { type: 'disk', path: '/', pool: pools.list()[0]?.name ?? POOL } };
    database.profiles.update(profile.id, { ...profile, devices });
  }
  database.server.markSetUp();
}
