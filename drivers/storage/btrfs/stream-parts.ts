// What the ends of streams share.
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { markedOwners } from '../common/owners-mark.ts';
import { readRecord } from '../common/volume-record.ts';
import type { StorageContext, VolumeKind } from '../driver.ts';
import type { Places } from './places.ts';
import type { Volumes } from './volumes.ts';

/** What LXD expects the volume itself to be called in its stream. */
export const SENT_NAME = '.migration-send';

export interface StreamParts {
  readonly context: StorageContext;
  readonly places: Places;
  readonly volumes: Volumes;
}

/** Of a subvolume, the same wherever it was sent. */
export async function guidOf(host: Host, path: string): Promise<string> {
  const { uuid, receivedUuid } = await host.btrfs.identity(path);
  return receivedUuid ?? uuid;
}

/** Of the files in a volume or snapshot. */
export async function ownersAt(host: Host, kind: VolumeKind, path: string): Promise<IdMapRange | null> {
  return kind === 'custom' ? markedOwners(host, path) : (await readRecord(host, path)).owners;
}
