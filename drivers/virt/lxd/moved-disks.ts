// Ephemeral disks on their way between hosts, offered and fetched beside the guest: each by an operation of its own, all begun at once,
// since the engine waits for nobody for more than some seconds.
import type { PendingOperation } from '#src/client/operations.ts';
import type { Reverter } from '#src/lib/reverter.ts';
import type { GuestSpec } from '../driver.ts';
import {
  clearDisk,
  diskOf,
  type EphemeralDisk,
  ephemeralConfig,
  ephemeralDevices,
  type EphemeralPlace,
} from './ephemeral-disks.ts';
import { type OfferedDisk, secretsOf, takenAlongOfDisk, type Ticket } from './ticket.ts';
import type { DeviceMap } from '#src/client/wire.ts';
import type { EngineClient } from '#src/client/client.ts';

const UNDO_LIMIT_MS = 300_000;

export interface DiskOffer {
  readonly pending: PendingOperation;
  readonly offered: OfferedDisk;
}

export async function offerDisk(
  client: EngineClient,
  address: string,
  disk: EphemeralDisk,
  signal: AbortSignal,
): Promise<DiskOffer> {
  const { config = {} } = (await client.storageVolumes.find(disk, signal)) ?? {};
  const pending = await client.storageVolumes.offer(disk, { signal });
  const offered = {
    index: disk.index,
    operation: `https://${address}/1.0/operations/${pending.id}`,
    secrets: secretsOf(pending.operation),
    config: takenAlongOfDisk(config),
  };
  return { pending, offered };
}

export interface DiskArrival {
  readonly devices: DeviceMap;
  /** Resolves when all are there. */
  readonly arrived: (signal: AbortSignal) => Promise<void>;
}

/** Begins to fetch them; what comes is on `revert`. */
export async function fetchDisks(
  place: EphemeralPlace,
  { spec, ticket, revert }: { readonly spec: GuestSpec; readonly ticket: Ticket; readonly revert: Reverter },
  signal: AbortSignal,
): Promise<DiskArrival> {
  const { uuid } = spec;
  const { client } = place;
  const disks: EphemeralDisk[] = [];
  const pendings: PendingOperation[] = [];
  for (const { index, operation, secrets, config } of ticket.ephemerals ?? []) {
    const disk = diskOf(place, uuid, index);
    await clearDisk(place, uuid, disk, signal);
    const { certificate } = ticket;
    const source = { type: 'migration', mode: 'pull', operation, certificate, secrets, volume_only: true } as const;
    const { size, ...ids } = config;
    const wanted = { ...(place.rootQuota && size !== undefined && { size }), ...ids };
    const request = { config: { ...wanted, ...ephemeralConfig(place, uuid, undefined) }, source };
    const pending = await client.storageVolumes.fetch(disk, request, { signal });
    revert.add('arriving disk', async () => {
      // What nobody waits for goes on in the engine, and would come about after all.
      const undo = AbortSignal.timeout(UNDO_LIMIT_MS);
      await pending.wait(undo).catch(() => undefined);
      await clearDisk(place, uuid, disk, undo);
    });
    disks.push(disk);
    pendings.push(pending);
  }
  return {
    devices: ephemeralDevices(disks),
    arrived: async (limit) => void (await Promise.all(pendings.map((pending) => pending.wait(limit)))),
  };
}
