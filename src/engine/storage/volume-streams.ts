// The streams of a storage driver, for the two ends of a migration and for copies between two pools.
import type { IdMapRange, StorageDriver, StreamPoint, VolumeRef } from '#drivers/storage/driver.ts';
import type { StreamReceiver, StreamSender } from '../migration/streams.ts';
import type { CopySource } from './copy-volume.ts';

/** Names of snapshots → what they are called on the pool. */
export type SnapshotPlaces = ReadonlyMap<string, string>;

export function samePlaces(names: readonly string[]): SnapshotPlaces {
  return new Map(names.map((name) => [name, name]));
}

function named(points: readonly StreamPoint[], places: SnapshotPlaces): readonly StreamPoint[] {
  const names = new Map([...places].map(([name, place]) => [place, name]));
  return points.flatMap((point) => {
    const snapshot = names.get(point.snapshot);
    return snapshot === undefined ? [] : [{ ...point, snapshot }];
  });
}

const placed = (places: SnapshotPlaces, name: string | undefined): string | undefined => {
  return name === undefined ? undefined : (places.get(name) ?? name);
};

/** With the named snapshots. Undefined: the driver cannot send it. */
export async function streamSender(
  { storage: { streams }, volume, snapshot: own }: CopySource,
  places: SnapshotPlaces,
  signal: AbortSignal,
): Promise<StreamSender | undefined> {
  if (!streams || !(await streams.canSend(volume, signal))) return undefined;
  return {
    format: streams.format,
    compresses: await streams.compresses(),
    points: named(await streams.points(volume, signal), places),
    send: ({ snapshot, base, compress }, use) => {
      const what = { snapshot: placed(places, snapshot) ?? own, asVolume: snapshot === undefined };
      return streams.send({ volume, base: placed(places, base), compress, ...what }, use, signal);
    },
  };
}

export interface StreamTarget {
  readonly storage: StorageDriver;
  readonly volume: VolumeRef;
  /** Where the source does not tell them. */
  readonly owners: (snapshot: string | undefined) => IdMapRange | null;
  readonly places: () => SnapshotPlaces;
  /** Runs `receive`, which makes the snapshot at a place or fills the volume. */
  readonly arrive: (snapshot: string | undefined, receive: (place?: string) => Promise<void>) => Promise<void>;
}

export async function streamReceiver(
  { storage: { streams }, volume, owners: untold, places, arrive }: StreamTarget,
  signal: AbortSignal,
): Promise<StreamReceiver | undefined> {
  if (!streams) return undefined;
  return {
    format: streams.format,
    compresses: await streams.compresses(),
    points: async () => {
      const points = await streams.points(volume, signal);
      // One that the engine does not know may not be lost: then nothing is received upon the others.
      const known = named(points, places());
      return known.length === points.length ? known : [];
    },
    receive: async ({ snapshot, base, owners = untold(snapshot) }, stream) => {
      const below = placed(places(), base);
      await arrive(snapshot, (place) => {
        return streams.receive({ volume, snapshot: place, base: below, owners }, stream, signal);
      });
    },
  };
}
