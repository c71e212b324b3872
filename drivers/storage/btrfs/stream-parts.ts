// What the ends of streams share.
import type { Host } from '#src/host/host.ts';
import type { StorageContext } from '../driver.ts';
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
