// Lends the root of a stopped instance to whoever packs it, as it is at one moment.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ReadableRoot, ReadRoot } from '../types.ts';
import { expander } from './expansion.ts';
import { mountForReading } from '../storage/copy-volume.ts';
import { refuseOnBlock } from './block-rules.ts';
import { hostName, instancePaths, lockKey, ownedVolume, rootVolume } from './instance-paths.ts';
import { isLent } from './lent-roots.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import type { Supervisor } from './supervisor.ts';

const UNDO_LIMIT_MS = 60_000;

export interface RootReaderParts {
  readonly context: EngineContext;
  readonly lifecycle: InstanceLifecycle;
  readonly supervisor: Supervisor;
}

export function rootReader(parts: RootReaderParts): ReadRoot {
  const { context, supervisor } = parts;
  return (key, use, signal) => {
    const work = async () => {
      const record = context.database.instances.get(key.project, key.name);
      if (key.snapshot !== undefined) return snapshotMounted(parts, { record, name: key.snapshot }, { use, signal });
      if (key.mayRun !== true && supervisor.status(record.id) !== 'Stopped') {
        throw new AppError('invalid', 'Cannot export a running instance as an image');
      }
      return mounted(parts, record, { use, signal });
    };
    return key.isLocked === true ? work() : context.locks.run(lockKey(key), work, signal);
  };
}

interface Use<T> {
  readonly use: (root: ReadableRoot) => Promise<T>;
  readonly signal: AbortSignal;
}

async function mounted<T>(
  { context, lifecycle, supervisor }: RootReaderParts,
  record: InstanceRecord,
  { use, signal }: Use<T>,
): Promise<T> {
  refuseOnBlock(record, 'exported or published');
  const storage = context.pools.driver(record.pool);
  const volume = hostName(record);
  const { config } = expander(context.database)(record);
  const idMap = await lifecycle.idMap(record, config);
  // Never committed: the mount is for this alone.
  await using mounts = new Reverter(context.log);
  // That of a container that runs is its own, and so is that of one who has it as a disk.
  const isOurs = supervisor.status(record.id) === 'Stopped' && !isLent({ context, supervisor }, record);
  const source = { ...ownedVolume(record, config), forReading: isOurs };
  const { rootfsPath, owners } = await storage.mountVolume(source, idMap, signal);
  if (isOurs) mounts.add('mount', () => storage.unmountInstance(volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
  const { metadata, templates } = instancePaths(context.paths, record);
  const sizeBytes = await storage.instanceUsage(volume, signal);
  const { architecture } = record;
  const root = { rootfsPath, owners, architecture, metadataPath: metadata, templatesPath: templates };
  return await use(sizeBytes === undefined ? root : { ...root, sizeBytes });
}

/** Its instance may run meanwhile. */
async function snapshotMounted<T>(
  { context, lifecycle }: RootReaderParts,
  { record, name }: { readonly record: InstanceRecord; readonly name: string },
  { use, signal }: Use<T>,
): Promise<T> {
  const snapshot = context.database.snapshots.find(record.id, name);
  if (!snapshot) {
    const text = `Failed to fetch snapshot "${name}" of instance "${record.name}" in project "${record.project}"`;
    throw new AppError('not_found', `${text}: InstanceSnapshot not found`);
  }
  const storage = context.pools.driver(record.pool);
  const idMap = await lifecycle.idMap(record, expander(context.database)(record).config);
  await using mounts = new Reverter(context.log);
  const source = { storage, volume: rootVolume(record), idMap, snapshot: name };
  const { rootfsPath, owners } = await mountForReading(source, mounts, signal);
  const home = join(instancePaths(context.paths, record).snapshots, name);
  const paths = { metadataPath: join(home, 'metadata.yaml'), templatesPath: join(home, 'templates') };
  return await use({ rootfsPath, owners, architecture: snapshot.architecture, ...paths });
}
