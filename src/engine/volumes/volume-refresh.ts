// Brings a custom volume that was copied before up to date: surplus snapshots go, missing ones come, then the volume itself.
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';
import type { VolumeKey } from '../db/volumes.ts';
import { inOrder } from '../instances/lock-order.ts';
import { compareSnapshots } from '../snapshots/compare.ts';
import { type CopySource, syncVolume } from '../storage/copy-volume.ts';
import type { CustomSnapshots } from './custom-snapshots.ts';
import { noteOwners, willBePlain, withoutOwners } from './volume-owners.ts';
import { type CustomVolumes, lockKey, urlOf, type VolumeSource } from './custom-volumes.ts';
import { refOf } from './volume-places.ts';

export const REFRESHED_IN_USE = 'Cannot refresh custom volume used by running instances';

export interface VolumeCopyParts {
  readonly context: EngineContext;
  readonly volumes: CustomVolumes;
  readonly snapshots: CustomSnapshots;
}

/** On this server; another one is told of by VolumeMigrations. AppError 'not_found' when either is absent. */
export async function refreshVolume(
  parts: VolumeCopyParts,
  { source, target }: { readonly source: VolumeSource; readonly target: VolumeKey },
  signal: AbortSignal,
): Promise<void> {
  const { context, volumes } = parts;
  const from = volumes.get(source);
  const to = volumes.get(target);
  if (from.id === to.id) throw new AppError('conflict', 'Name and source name are the same');
  const work = () => syncAll(parts, { from: volumes.get(source), to: volumes.get(target), source }, signal);
  await inOrder(context.locks, [lockKey(from), lockKey(to)], work, signal);
  context.events.lifecycle({ action: 'storage-volume-updated', source: urlOf(to), project: to.project });
}

interface Refresh {
  readonly from: VolumeRecord;
  readonly to: VolumeRecord;
  readonly source: VolumeSource;
}

async function syncAll(parts: VolumeCopyParts, { from, to, source }: Refresh, signal: AbortSignal): Promise<void> {
  const { context, volumes, snapshots } = parts;
  snapshots.refuseRunning(to, REFRESHED_IN_USE);
  willBePlain(context, to);
  const chosen = source.snapshot === undefined ? undefined : volumes.snapshot(from, source.snapshot);
  const origin = volumes.readable(from);
  const target = { storage: volumes.driver(to), volume: refOf(to), idMap: null };
  const sync = (one: Partial<CopySource>) => syncVolume(context, { from: { ...origin, ...one }, to: target }, signal);
  const missing = chosen || source.volumeOnly ? [] : await makeRoom(parts, { from, to }, signal);
  for (const { hostName, name, description, config, createdAt, expiresAt } of missing) {
    await sync({ snapshot: hostName });
    const content = { name, description, config: withoutOwners(config), createdAt, expiresAt };
    await snapshots.take(to, content, signal);
  }
  await sync(chosen ? { snapshot: chosen.hostName } : {});
  await noteOwners(parts, volumes.get(to), signal);
}

/** Returns the snapshots that are to come. */
async function makeRoom(
  { volumes, snapshots }: VolumeCopyParts,
  { from, to }: Pick<Refresh, 'from' | 'to'>,
  signal: AbortSignal,
): Promise<readonly VolumeSnapshotRecord[]> {
  const { missing, surplus } = compareSnapshots(volumes.snapshots(from), volumes.snapshots(to));
  for (const snapshot of surplus) await snapshots.erase(to, snapshot, signal);
  return missing;
}
