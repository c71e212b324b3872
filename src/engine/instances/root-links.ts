// Links where users look for the files of instances: containers/NAME and snapshots/NAME/SNAPSHOT/rootfs, into the pool. What
// they point to is there while the pool has it mounted (a pool of directories: always).
import { readlink, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { EnginePaths } from '../types.ts';
import { hostName, type InstanceKey, instancePaths } from './instance-paths.ts';

type Context = Pick<EngineContext, 'paths' | 'database' | 'host'>;

/** Idempotent: of the instance and all its snapshots, as the rows have them. Called while the note of the step that
 * moved them is there. */
export async function linkRoots(context: Context, key: InstanceKey): Promise<void> {
  const { paths, database } = context;
  const record = database.instances.get(key.project, key.name);
  await linkInstance(paths, record);
  for (const { name } of database.snapshots.list(record.id)) await linkSnapshotRoot(context, record, name);
}

/** Idempotent. */
export async function linkInstance(paths: EnginePaths, record: InstanceRecord): Promise<void> {
  const target = join(paths.storagePools, record.pool, 'containers', hostName(record));
  await link(instancePaths(paths, record).link, target);
}

/** Idempotent: the link goes first, as the directory has the note of what is being done. */
export async function removeHome(paths: EnginePaths, key: InstanceKey): Promise<void> {
  const { home, link: path } = instancePaths(paths, key);
  await rm(path, { force: true });
  await rm(home, { recursive: true, force: true });
}

/** Idempotent. */
export async function linkSnapshotRoot(
  { paths, host }: Omit<Context, 'database'>,
  record: InstanceRecord,
  snapshot: string,
): Promise<void> {
  const folder = join(instancePaths(paths, record).snapshots, snapshot);
  if (!(await host.exists(folder))) return;
  const root = join(paths.storagePools, record.pool, 'containers-snapshots', hostName(record), snapshot, 'rootfs');
  await link(join(folder, 'rootfs'), root);
}

/** Replaced in one step when it points elsewhere. What a killed daemon left of it is used up by the next. */
async function link(path: string, target: string): Promise<void> {
  if ((await readlink(path).catch(() => undefined)) === target) return;
  const fresh = `${path}.new`;
  await rm(fresh, { force: true });
  await symlink(target, fresh);
  await rename(fresh, path);
}
