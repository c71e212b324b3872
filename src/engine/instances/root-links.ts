// Links where users look for the files of instances: containers/NAME/rootfs and snapshots/NAME/SNAPSHOT/rootfs, into the pool. What
// they point to is there while the pool has it mounted (a pool of directories: always).
import { readlink, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { hostName, type InstanceKey, instancePaths, type InstancePaths } from './instance-paths.ts';

type Context = Pick<EngineContext, 'paths' | 'database' | 'host'>;

/** Idempotent: of the instance and all its snapshots, as the rows have them. Called while the note of the step that
 * moved them is there. `place`: where the instance's directory still is. */
export async function linkRoots(
  context: Context,
  key: InstanceKey,
  place?: Pick<InstancePaths, 'home'>,
): Promise<void> {
  const { paths, database } = context;
  const record = database.instances.get(key.project, key.name);
  const { home } = place ?? instancePaths(paths, record);
  const root = join(paths.storagePools, record.pool, 'containers', hostName(record), 'rootfs');
  await link(join(home, 'rootfs'), root);
  for (const { name } of database.snapshots.list(record.id)) await linkSnapshotRoot(context, record, name);
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
