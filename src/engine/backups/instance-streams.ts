// An instance out of an optimized backup: its root and snapshots are streams, and in them lies what else it has.
import { dirname, join } from 'node:path';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { Arrive } from '../instances/creation.ts';
import { idMapFromJson } from '../instances/idmap.ts';
import { adoptFiles } from '../instances/staging.ts';
import { mountForReading } from '../storage/copy-volume.ts';
import type { ConfigMap } from '../types.ts';
import { OWNERS_KEY } from './documents.ts';
import { INSTANCE_PLACES } from './optimized-export.ts';
import { receiveBackup } from './optimized-import.ts';
import type { BackupIndex } from './read-index.ts';

export function streamedInstance(
  { host, log }: Pick<EngineContext, 'host' | 'log'>,
  path: string,
  index: BackupIndex,
): Arrive {
  const rows = index.snapshotRows.filter(({ name }) => index.snapshots.includes(name));
  const configs = new Map<string | undefined, ConfigMap>(rows.map(({ name, config }) => [name, config]));
  configs.set(undefined, index.instance?.config ?? {});
  return async ({ storage, volume, paths }, signal) => {
    const arrived = async (snapshot: string | undefined): Promise<void> => {
      await using mounts = new Reverter(log); // never committed: only a look
      const source = { storage, volume, idMap: volume.idMap, ...(snapshot !== undefined && { snapshot }) };
      const { rootfsPath } = await mountForReading(source, mounts, signal);
      const to = snapshot === undefined ? paths.home : join(paths.snapshots, snapshot);
      await adoptFiles(host, dirname(rootfsPath), to);
    };
    const owners = (snapshot: string | undefined) => idMapFromJson(configs.get(snapshot)?.[OWNERS_KEY]);
    const backup = { path, index, places: INSTANCE_PLACES, storage, volume, owners, arrived };
    await receiveBackup(host, backup, signal);
    return rows;
  };
}
