// Looks for what a pool holds and the database does not know: instances by the record in their volume, custom volumes by their name.
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { type BackupIndex, parseRecord } from '../backups/read-index.ts';
import type { EngineContext } from '../context.ts';
import { hostName, type InstanceKey } from '../instances/instance-paths.ts';
import type { NewPool } from '../storage/storage-pools.ts';
import { RECORD_FILE } from './folder-files.ts';

const MAX_RECORD_BYTES = 16 << 20;

export interface FoundPool {
  readonly pool: NewPool;
  readonly storage: StorageDriver;
  /** The database does not know it. */
  readonly isNew: boolean;
}

export interface FoundInstance extends InstanceKey {
  readonly index: BackupIndex;
  /** On the pool. */
  readonly snapshots: readonly string[];
}

export interface FoundVolume {
  readonly project: string;
  readonly name: string;
  readonly hostName: string;
  readonly snapshots: readonly string[];
}

export interface Found extends FoundPool {
  readonly instances: readonly FoundInstance[];
  readonly volumes: readonly FoundVolume[];
  /** What cannot be read, in words. */
  readonly complaints: readonly string[];
}

export async function scanPool(context: EngineContext, found: FoundPool, signal: AbortSignal): Promise<Found> {
  const { database } = context;
  const { storage, pool } = found;
  const known = new Set(database.instances.usingPool(pool.name).map(hostName));
  const instances: FoundInstance[] = [];
  const complaints: string[] = [];
  for (const name of await storage.listInstances(signal)) {
    if (known.has(name)) continue;
    try {
      instances.push(await readInstance(context, storage, name, signal));
    } catch (error) {
      complaints.push(`Instance volume "${name}" on pool "${pool.name}": ${messageOf(error)}`);
    }
  }
  return { ...found, instances, complaints, volumes: await unknownVolumes(context, found, signal) };
}

async function readInstance(
  { host }: EngineContext,
  storage: StorageDriver,
  volume: string,
  signal: AbortSignal,
): Promise<FoundInstance> {
  if (!storage.withFolder) throw new AppError('unsupported', 'the driver keeps no records');
  const text = await storage.withFolder(
    volume,
    async (directory) => {
      const path = join(directory, RECORD_FILE);
      if (!(await host.exists(path))) throw new AppError('not_found', `it has no ${RECORD_FILE}`);
      return readRegular(path);
    },
    signal,
  );
  const snapshots = await storage.listSnapshots({ kind: 'container', name: volume }, signal);
  return { ...keyOfVolume(volume), index: await parseRecord(text), snapshots };
}

async function readRegular(path: string): Promise<string> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = await file.stat();
  if (!status.isFile() || status.size > MAX_RECORD_BYTES) throw new AppError('invalid', `its ${RECORD_FILE} is none`);
  return file.readFile('utf8');
}

/** PROJECT_NAME; names of instances have no "_". */
function keyOfVolume(volume: string): InstanceKey {
  const at = volume.lastIndexOf('_');
  if (at < 0) return { project: 'default', name: volume };
  return { project: volume.slice(0, at), name: volume.slice(at + 1) };
}

async function unknownVolumes(
  { database }: EngineContext,
  { storage, pool }: FoundPool,
  signal: AbortSignal,
): Promise<readonly FoundVolume[]> {
  const rows = [...database.volumes.list(pool.name), ...database.volumes.pending()];
  const known = new Set(rows.filter((row) => row.pool === pool.name).map((row) => row.hostName));
  const projects = database.projects.list().map(({ name }) => name);
  const names = (await storage.listVolumes('custom', signal)).filter((name) => !known.has(name));
  const found = names.map(async (name) => {
    const snapshots = await storage.listSnapshots({ kind: 'custom', name }, signal);
    return { ...customKey(name, projects), hostName: name, snapshots };
  });
  return Promise.all(found);
}

/** PROJECT_NAME, where both may have a "_": the longest project that is there counts. */
function customKey(volume: string, projects: readonly string[]): { readonly project: string; readonly name: string } {
  const [project] = projects.filter((one) => volume.startsWith(`${one}_`)).toSorted((a, b) => b.length - a.length);
  if (project !== undefined) return { project, name: volume.slice(project.length + 1) };
  const at = volume.indexOf('_');
  return at < 1 ? { project: 'default', name: volume } : { project: volume.slice(0, at), name: volume.slice(at + 1) };
}
