// Custom volumes and their snapshots that a killed daemon was making or deleting: what is left of them goes. Sizes that it was changing are
// put back, owners are looked up.
import { messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';
import type { CustomVolumes } from './custom-volumes.ts';
import { isChanging, undoChange } from './resize-volume.ts';
import { isUnsettled, noteOwners } from './volume-owners.ts';

export interface HalfDoneParts {
  readonly context: Pick<EngineContext, 'database' | 'log' | 'pools'>;
  readonly volumes: Pick<CustomVolumes, 'erase' | 'eraseSnapshot' | 'locked' | 'readable'>;
}

/** At the start, before anybody asks; of pools that are not there, when they come back. */
export async function endHalfDone(parts: HalfDoneParts, signal: AbortSignal): Promise<void> {
  const { database, pools } = parts.context;
  await endThese(parts, { volumes: database.volumes.pending(), snapshots: database.volumeSnapshots.pending() }, signal);
  await undoChanges(parts, database.volumes.list(), signal);
  await settleOwners(parts, database.volumes.list(), signal);
  const left = { volumes: ids(database.volumes.pending()), snapshots: ids(database.volumeSnapshots.pending()) };
  pools.onReturn(async (pool, ending) => {
    const ofPool = database.volumes.pending().filter((volume) => volume.pool === pool && left.volumes.has(volume.id));
    const snapshots = database.volumeSnapshots.pending().filter(({ id }) => left.snapshots.has(id));
    await endThese(parts, { volumes: ofPool, snapshots }, ending);
    await undoChanges(parts, database.volumes.list(pool), ending);
    await settleOwners(parts, database.volumes.list(pool), ending);
  });
}

async function endThese(
  { context, volumes }: HalfDoneParts,
  halfDone: { readonly volumes: readonly VolumeRecord[]; readonly snapshots: readonly VolumeSnapshotRecord[] },
  signal: AbortSignal,
): Promise<void> {
  const { database, log } = context;
  for (const volume of halfDone.volumes) {
    await volumes
      .locked(volume, signal, () => volumes.erase(volume, signal))
      .catch((error: unknown) => {
        log.warn('a half-made volume was not removed yet', { volume: volume.name, error: messageOf(error) });
      });
  }
  const present = new Map(database.volumes.list().map((volume) => [volume.id, volume]));
  for (const snapshot of halfDone.snapshots) {
    const volume = present.get(snapshot.volumeId);
    if (!volume) continue;
    const work = (): Promise<void> => volumes.eraseSnapshot(volume, snapshot, signal);
    await volumes.locked(volume, signal, work).catch((error: unknown) => {
      log.warn('a half-made snapshot was not removed yet', { snapshot: snapshot.name, error: messageOf(error) });
    });
  }
}

async function undoChanges(
  { context, volumes }: HalfDoneParts,
  all: readonly VolumeRecord[],
  signal: AbortSignal,
): Promise<void> {
  for (const volume of all.filter(({ config }) => isChanging(config))) {
    await volumes
      .locked(volume, signal, () => undoChange(context, volume, signal))
      .catch((error: unknown) => {
        context.log.warn('a volume does not have its size again yet', { volume: volume.name, error: messageOf(error) });
      });
  }
}

/** What is said of owners that a killed daemon was changing is looked up: the pool has those from before, or the new ones. */
async function settleOwners(
  { context, volumes }: HalfDoneParts,
  all: readonly VolumeRecord[],
  signal: AbortSignal,
): Promise<void> {
  for (const volume of all.filter(({ config }) => isUnsettled(config))) {
    await volumes
      .locked(volume, signal, () => noteOwners({ context, volumes }, volume, signal))
      .catch((error: unknown) => {
        context.log.warn('owners were not looked up yet', { volume: volume.name, error: messageOf(error) });
      });
  }
}

function ids(rows: readonly { readonly id: number }[]): ReadonlySet<number> {
  return new Set(rows.map(({ id }) => id));
}
