// The end of a migration where an instance arrives: as a new one, or over one that was copied before.
import { dirname, join } from 'node:path';
import { sameIdMap, type IdMapRange } from '#src/host/id-map.ts';
import type { StorageDriver, VolumeRef } from '#drivers/storage/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { type Arrival, arrivalOf, duringArrival } from '../migration/arrival.ts';
import type { Channels } from '../migration/connections.ts';
import type { MigrationHeader } from '../migration/messages.ts';
import { receive, type Receiver } from '../migration/session.ts';
import type { StreamReceiver } from '../migration/streams.ts';
import { mountForReading } from '../storage/copy-volume.ts';
import { samePlaces, streamReceiver } from '../storage/volume-streams.ts';
import type { OperationHandle } from '../types.ts';
import type { InstanceCopies, Unowned } from './copy.ts';
import { expander } from './expansion.ts';
import { hostName, instancePaths, rootVolume, type InstanceKey } from './instance-paths.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { idMapOfMessage, snapshotOfMessage } from './migration-rows.ts';
import { progressOf } from './progress.ts';
import { compareSnapshots } from '../snapshots/compare.ts';
import type { InstanceSource } from './requests.ts';
import type { InstanceSnapshots } from './snapshots.ts';
import { readSentIndex, type SentIndex } from './sent-files.ts';
import type { MadeRoot } from './root-volume.ts';
import { adoptFiles, withStaging, writeInstanceFiles } from './staging.ts';

const UNDO_LIMIT_MS = 120_000;

export interface MigrationSinkParts {
  readonly context: EngineContext;
  readonly lifecycle: InstanceLifecycle;
  readonly copies: InstanceCopies;
  readonly snapshots: InstanceSnapshots;
}

export interface InstanceArrival extends Arrival {
  readonly instanceOnly: boolean;
}

/** A volume that is there to be filled. */
export interface ArrivalTarget {
  readonly key: InstanceKey;
  readonly pool: string;
  readonly storage: StorageDriver;
  readonly volume: VolumeRef;
  readonly idMap: IdMapRange | null;
}

/** AppError with LXD's text for a request that is none. */
export function instanceArrivalOf(source: InstanceSource): InstanceArrival {
  const { live = false, instanceOnly = false } = source;
  if (live && source.secrets?.['criu'] !== undefined) {
    throw new AppError(
      'unsupported',
      'Unable to perform container live migration: copy the instance without its state',
    );
  }
  return { ...arrivalOf(source), instanceOnly };
}

export class MigrationSink {
  readonly #parts: MigrationSinkParts;

  constructor(parts: MigrationSinkParts) {
    this.#parts = parts;
  }

  /** Fills a new volume. Returns the snapshots that came along, for rows, and what was written on them. */
  async receiveNew(
    target: ArrivalTarget,
    { arrival, channels }: { readonly arrival: InstanceArrival; readonly channels: Channels },
    operation: OperationHandle,
  ): Promise<MadeRoot> {
    const { context } = this.#parts;
    const { key } = target;
    const paths = instancePaths(context.paths, key);
    let rows: readonly Unowned[] = [];
    const choose = async ({ snapshots }: MigrationHeader): Promise<readonly string[]> => {
      rows = arrival.instanceOnly ? [] : snapshots.map(snapshotOfMessage);
      return rows.map(({ name }) => name);
    };
    const told: Told = { owners: null, index: undefined };
    const how = { refresh: false, choose, channels, told };
    await this.#receive(target, how, operation, async (snapshot, { take, adopt }) => {
      await take();
      await adopt(snapshot === undefined ? paths.home : join(paths.snapshots, snapshot));
    });
    return { snapshots: rows, ...(told.index && { notes: told.index.notes }) };
  }

  /** Brings an existing copy up to date. The caller holds its lock; it is stopped. */
  async refresh(record: InstanceRecord, arrival: InstanceArrival, operation: OperationHandle): Promise<void> {
    const { context } = this.#parts;
    await duringArrival(arrival, operation.signal, (channels) => {
      return this.#refresh(record, { arrival, channels }, operation);
    });
    const { name, project } = record;
    context.events.lifecycle({ action: 'instance-updated', source: `/1.0/instances/${name}`, project });
  }

  async #refresh(
    record: InstanceRecord,
    { arrival, channels }: { readonly arrival: InstanceArrival; readonly channels: Channels },
    operation: OperationHandle,
  ): Promise<void> {
    const { context, lifecycle, snapshots, copies } = this.#parts;
    const { signal } = operation;
    const idMap = await lifecycle.idMap(record, expander(context.database)(record).config);
    const storage = context.pools.driver(record.pool);
    const volume = rootVolume(record);
    const paths = instancePaths(context.paths, record);
    const rows = new Map<string, Unowned>();
    const choose = async ({ snapshots: offered }: MigrationHeader): Promise<readonly string[]> => {
      if (arrival.instanceOnly) return [];
      const { missing, surplus } = compareSnapshots(offered.map(snapshotOfMessage), snapshots.list(record));
      for (const snapshot of surplus) await snapshots.removeOne({ record, snapshot }, signal);
      for (const row of missing) rows.set(row.name, row);
      return missing.map(({ name }) => name);
    };
    const target = { key: record, pool: record.pool, storage, volume, idMap };
    const told: Told = { owners: null, index: undefined };
    const how = { refresh: true, choose, channels, told };
    await this.#receive(target, how, operation, async (snapshot, { take, adopt }) => {
      const row = snapshot === undefined ? undefined : rows.get(snapshot);
      const make = async (): Promise<void> => {
        await take();
        await adopt(paths.home); // where the snapshot takes them from
      };
      if (!row) return make();
      const notes = told.index?.notes.snapshots.get(row.name);
      await snapshots.publish(record, { ...copies.onPool(row, record), instanceId: record.id }, make, notes);
    });
  }

  async #receive(
    target: ArrivalTarget,
    {
      refresh,
      choose,
      channels,
      told,
    }: Pick<Receiver, 'refresh' | 'choose'> & { readonly channels: Channels; readonly told: Told },
    operation: OperationHandle,
    arrived: Arriving,
  ): Promise<void> {
    const { context } = this.#parts;
    const { signal } = operation;
    const receiver: Receiver = {
      refresh,
      streams: await this.#streams(target, { told, arrived }, signal),
      index: (document) => {
        told.index = readSentIndex(document);
      },
      choose: async (header) => {
        told.owners = idMapOfMessage(header.idmap);
        return choose(header);
      },
      receive: (snapshot, use) => this.#fill(target, { snapshot, use, told, arrived }, signal),
    };
    const progress = progressOf(operation, hostName(target.key));
    await receive(
      { host: context.host, channels, signal, rsync: context.pools.rsync(target.pool), progress },
      receiver,
    );
  }

  #streams(
    target: ArrivalTarget,
    { told, arrived }: { readonly told: Told; readonly arrived: Arriving },
    signal: AbortSignal,
  ): Promise<StreamReceiver | undefined> {
    const receiving = {
      storage: target.storage,
      volume: target.volume,
      owners: () => told.owners,
      places: () => samePlaces(this.#snapshotNames(target.key)),
      arrive: (snapshot: string | undefined, receive: (place?: string) => Promise<void>) => {
        const adopt = (to: string): Promise<void> =>
          this.#adoptSent(target, { snapshot, sent: told.index?.files, to }, signal);
        return arrived(snapshot, { take: () => receive(snapshot), adopt });
      },
    };
    return streamReceiver(receiving, signal);
  }

  /** File by file. */
  async #fill(
    { storage, volume, idMap }: ArrivalTarget,
    { snapshot, use, told, arrived }: Filling,
    signal: AbortSignal,
  ): Promise<void> {
    const { context } = this.#parts;
    await using mounts = new Reverter(context.log); // never committed: mounted only while it is filled
    const root = await storage.mountVolume(volume, idMap, signal);
    mounts.add('root', () => storage.unmountVolume(volume, AbortSignal.timeout(UNDO_LIMIT_MS)));
    await withStaging(context, root.rootfsPath, async (directory) => {
      await use(directory);
      if (!sameIdMap(told.owners, root.owners)) {
        await context.host.shiftOwners(root.rootfsPath, { from: told.owners, to: root.owners }, signal);
      }
      const take = async (): Promise<void> => {
        if (snapshot !== undefined) await storage.createSnapshot(volume, snapshot, signal);
      };
      await arrived(snapshot, { take, adopt: (to) => adoptFiles(context.host, directory, to) });
    });
  }

  /** None of one that is not there yet. */
  #snapshotNames({ project, name }: InstanceKey): readonly string[] {
    const { instances, snapshots } = this.#parts.context.database;
    const record = instances.find(project, name);
    return record ? snapshots.list(record.id).map((snapshot) => snapshot.name) : [];
  }

  /** After a stream: from the index, or where LXD keeps them, beside the root. */
  async #adoptSent(
    { storage, volume, idMap }: ArrivalTarget,
    {
      snapshot,
      sent,
      to,
    }: { readonly snapshot: string | undefined; readonly sent: SentIndex['files']; readonly to: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { context } = this.#parts;
    if (sent) return writeInstanceFiles(context.host, sent[snapshot ?? ''] ?? { templates: {} }, to);
    await using mounts = new Reverter(context.log); // never committed: only a look
    const source = { storage, volume, idMap, ...(snapshot !== undefined && { snapshot }) };
    const { rootfsPath } = await mountForReading(source, mounts, signal);
    await adoptFiles(context.host, dirname(rootfsPath), to);
  }
}

interface Arrived {
  /** Makes the snapshot of what has come, or the volume be that. */
  readonly take: () => Promise<void>;
  /** Afterwards: puts what came beside the root into a directory. */
  readonly adopt: (to: string) => Promise<void>;
}

type Arriving = (snapshot: string | undefined, arrived: Arrived) => Promise<void>;

/** By the source. */
interface Told {
  owners: IdMapRange | null;
  /** Absent from sources that send none. */
  index: SentIndex | undefined;
}

interface Filling {
  readonly snapshot: string | undefined;
  readonly use: (directory: string) => Promise<void>;
  readonly told: Told;
  readonly arrived: Arriving;
}
