// Brings an existing copy of an instance up to date: missing snapshots, surplus ones, then the root.
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { compareSnapshots } from '../snapshots/compare.ts';
import { type CopySource, syncVolume } from '../storage/copy-volume.ts';
import type { CopiedInstance, InstanceCopies } from './copy.ts';
import { expander } from './expansion.ts';
import { instancePaths, ownedVolume } from './instance-paths.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { forgetState } from './saved-states.ts';
import { copySnapshotFiles } from './snapshot-files.ts';
import type { InstanceSnapshots } from './snapshots.ts';

export interface RefreshParts {
  readonly context: EngineContext;
  readonly lifecycle: InstanceLifecycle;
  readonly copies: InstanceCopies;
  readonly snapshots: InstanceSnapshots;
}

/** The caller holds the locks of both; the target is stopped. */
export async function refreshInstance(
  parts: RefreshParts,
  { copied, target }: { readonly copied: CopiedInstance; readonly target: InstanceRecord },
  signal: AbortSignal,
): Promise<void> {
  const { context, copies, snapshots, lifecycle } = parts;
  const { missing, surplus } =
    copied.snapshot || copied.instanceOnly
      ? { missing: [], surplus: [] }
      : compareSnapshots(copies.snapshotsOf(copied), snapshots.list(target));
  for (const snapshot of surplus) await snapshots.removeOne({ record: target, snapshot }, signal);
  const { config } = expander(context.database)(target);
  const idMap = await lifecycle.idMap(target, config);
  const to: CopySource = { storage: context.pools.driver(target.pool), volume: ownedVolume(target, config), idMap };
  await copies.withStillSource(copied, { inOnePool: false }, signal, async (from) => {
    for (const snapshot of missing) {
      await syncVolume(context, { from: { ...from, snapshot: snapshot.name }, to }, signal);
      const { id, ...row } = copies.onPool({ ...snapshot, stateful: false, instanceId: target.id }, target);
      await snapshots.publish(target, row, () => to.storage.createSnapshot(to.volume, snapshot.name, signal));
      const { id: own } = snapshots.get(target, snapshot.name);
      context.database.rootVolumes.set('snapshot', own, context.database.rootVolumes.get('snapshot', id));
    }
    await syncVolume(context, { from, to }, signal);
  });
  await forgetState(context, target); // it was of another root
  const home = (record: InstanceRecord): string => instancePaths(context.paths, record).home;
  await copySnapshotFiles(context.host, home(copied.record), home(target));
  const { name, project } = target;
  context.events.lifecycle({ action: 'instance-updated', source: `/1.0/instances/${name}`, project });
}
