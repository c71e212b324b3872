// Custom volumes that go to other servers and come from them, by LXD's migration protocol (lxd-engine-contract section 2.9).
import type { IdMapRange } from '#src/host/id-map.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';
import { idMapOfMessage, messageOfIdMap } from '../instances/migration-rows.ts';
import { progressOf } from '../instances/progress.ts';
import { type ArrivalRequest, arrivalOf, duringArrival } from '../migration/arrival.ts';
import {
  type Channels,
  dial,
  ExpectedConnections,
  type PeerOperation,
  websocketSpec,
} from '../migration/connections.ts';
import type { MigrationHeader } from '../migration/messages.ts';
import { receive, type Receiver, send, type Sender } from '../migration/session.ts';
import type { StreamReceiver } from '../migration/streams.ts';
import { compareSnapshots } from '../snapshots/compare.ts';
import { mountForReading } from '../storage/copy-volume.ts';
import { streamReceiver, streamSender } from '../storage/volume-streams.ts';
import type { ConfigMap, OperationHandle, OperationSpec } from '../types.ts';
import type { SnapshotContent } from './custom-snapshots.ts';
import { type NewCustomVolume, urlOf } from './custom-volumes.ts';
import { refOf } from './volume-places.ts';
import { acceptableConfig } from './volume-config.ts';
import { noteOwners, toldOwners, willBePlain, withOwners, withoutOwners } from './volume-owners.ts';
import { indexedSnapshots, messageOfVolumeSnapshot, volumeIndex, volumeSnapshotOfMessage } from './volume-messages.ts';
import { REFRESHED_IN_USE, type VolumeCopyParts } from './volume-refresh.ts';

const UNDO_LIMIT_MS = 120_000;

export interface VolumeDeparture {
  readonly volume: VolumeRecord;
  /** Sent instead of the volume as it is now. */
  readonly snapshot?: VolumeSnapshotRecord;
  readonly volumeOnly: boolean;
  /** Undefined: the other end connects. */
  readonly target?: PeerOperation;
}

export interface VolumeArrival extends ArrivalRequest {
  readonly volumeOnly: boolean;
  /** A volume that is there is brought up to date. */
  readonly refresh: boolean;
}

interface Arriving {
  readonly record: VolumeRecord;
  readonly isNew: boolean;
  readonly volumeOnly: boolean;
  /** Of the files that come as the volume itself, as far as they are told; a snapshot has its own in its configuration. */
  owners: IdMapRange | null;
}

export class VolumeMigrations {
  readonly #parts: VolumeCopyParts;

  constructor(parts: VolumeCopyParts) {
    this.#parts = parts;
  }

  /** An operation: one that waits for connections, or connects to the target. */
  send(departure: VolumeDeparture): string {
    const { operations } = this.#parts.context;
    const { volume, target } = departure;
    const spec = specOf('Migrating storage volume', volume);
    if (target) return operations.start(spec, (operation) => this.#send(departure, operation, (s) => dial(target, s)));
    const expected = new ExpectedConnections();
    return operations.start(websocketSpec(spec, expected), (operation) => {
      return this.#send(departure, operation, (signal) => expected.wait(signal));
    });
  }

  async #send(
    departure: VolumeDeparture,
    operation: OperationHandle,
    connect: (signal: AbortSignal) => Promise<Channels>,
  ): Promise<void> {
    const { context, volumes } = this.#parts;
    const { signal } = operation;
    using channels = await connect(signal);
    await volumes.locked(departure.volume, signal, async () => {
      const volume = volumes.get(departure.volume);
      const { pool, name } = volume;
      const session = { channels, signal, rsync: context.pools.rsync(pool), progress: progressOf(operation, name) };
      await send({ ...session, host: context.host }, await this.#sender({ ...departure, volume }, signal));
    });
  }

  async #sender({ volume, snapshot: chosen, volumeOnly }: VolumeDeparture, signal: AbortSignal): Promise<Sender> {
    const { context, volumes } = this.#parts;
    const snapshots = chosen || volumeOnly ? [] : volumes.snapshots(volume);
    const places = new Map(snapshots.map(({ name, hostName }) => [name, hostName]));
    const origin = { ...volumes.readable(volume), ...(chosen && { snapshot: chosen.hostName }) };
    const owners = toldOwners((chosen ?? volume).config);
    return {
      streams: await streamSender(origin, places, signal),
      header: { idmap: messageOfIdMap(owners), snapshots: snapshots.map(messageOfVolumeSnapshot) },
      index: (names) => {
        const sent = snapshots.filter(({ name }) => names.includes(name));
        return volumeIndex(volume, sent);
      },
      withFiles: async (name, use) => {
        await using mounts = new Reverter(context.log); // never committed: mounted only while it is sent
        const snapshot = name === undefined ? undefined : places.get(name);
        const root = await mountForReading({ ...origin, ...(snapshot !== undefined && { snapshot }) }, mounts, signal);
        await use([`${root.rootfsPath}/`]);
      },
    };
  }

  /** An operation; what is wrong with the request at first sight is thrown at once. */
  receive(wanted: NewCustomVolume, request: VolumeArrival): string {
    const { context, volumes } = this.#parts;
    const { operations, database } = context;
    const volume = { ...wanted, config: this.#acceptable(wanted.pool, wanted.config) };
    const exists = database.volumes.find(volume) !== undefined;
    if (!request.refresh || !exists) volumes.checkNew(volume);
    const arrival = arrivalOf(request);
    const { expected } = arrival;
    const spec = specOf(expected ? 'Creating storage volume' : 'Copying storage volume', volume);
    const owners = toldOwners(wanted.config);
    return operations.start(expected ? websocketSpec(spec, expected) : spec, async (operation) => {
      const { signal } = operation;
      try {
        await duringArrival(arrival, signal, (channels) => {
          const work = () => this.#receive({ volume, request, channels, owners }, operation);
          return volumes.locked(volume, signal, work);
        });
      } catch (cause) {
        const kind = cause instanceof AppError ? cause.kind : 'internal';
        throw new AppError(kind, `Error transferring storage volume: ${messageOf(cause)}`, { cause });
      }
    });
  }

  /** Keys of drivers that are not the target's do not come along. */
  #acceptable(pool: string, config: ConfigMap): ConfigMap {
    return acceptableConfig(withoutOwners(config), this.#parts.context.pools.volumeKeys(pool));
  }

  async #receive(
    {
      volume,
      request,
      channels,
      owners,
    }: Pick<Arriving, 'owners'> & {
      readonly volume: NewCustomVolume;
      readonly request: VolumeArrival;
      readonly channels: Channels;
    },
    operation: OperationHandle,
  ): Promise<void> {
    const { context, volumes, snapshots } = this.#parts;
    const { volumeOnly, refresh } = request;
    const there = refresh ? context.database.volumes.find(volume) : undefined;
    const fill = async (record: VolumeRecord): Promise<void> => {
      const { host, pools } = context;
      const { signal } = operation;
      const receiver = await this.#receiver({ record, isNew: !there, volumeOnly, owners }, signal);
      const progress = progressOf(operation, record.name);
      await receive({ host, channels, signal, rsync: pools.rsync(record.pool), progress }, receiver);
      await noteOwners(this.#parts, record, signal);
    };
    if (!there) return volumes.createBy(volume, fill, operation.signal);
    snapshots.refuseRunning(there, REFRESHED_IN_USE);
    willBePlain(context, there);
    await fill(volumes.get(there));
    context.events.lifecycle({ action: 'storage-volume-updated', source: urlOf(there), project: there.project });
  }

  #take(
    record: VolumeRecord,
    row: SnapshotContent,
    signal: AbortSignal,
    make?: (place: string) => Promise<void>,
  ): Promise<void> {
    const config = this.#acceptable(record.pool, row.config);
    // What comes as a stream stays as it is.
    const content = { ...row, config: make ? withOwners(config, toldOwners(row.config)) : config };
    return this.#parts.snapshots.take(record, content, signal, make);
  }

  #streams(arriving: Arriving, coming: Coming, signal: AbortSignal): Promise<StreamReceiver | undefined> {
    const { volumes } = this.#parts;
    const { record } = arriving;
    const receiving = {
      storage: volumes.driver(record),
      volume: refOf(record),
      owners: (name: string | undefined) =>
        name === undefined ? arriving.owners : toldOwners(coming.get(name)?.config ?? {}),
      places: () => new Map(volumes.snapshots(record).map(({ name, hostName }) => [name, hostName])),
      arrive: (name: string | undefined, receive: (place?: string) => Promise<void>) => {
        const row = name === undefined ? undefined : coming.get(name);
        return row ? this.#take(record, row, signal, receive) : receive();
      },
    };
    return streamReceiver(receiving, signal);
  }

  async #receiver(arriving: Arriving, signal: AbortSignal): Promise<Receiver> {
    const { record, isNew, volumeOnly } = arriving;
    const { context, volumes, snapshots } = this.#parts;
    const storage = volumes.driver(record);
    const coming: Coming = new Map();
    return {
      refresh: !isNew,
      streams: await this.#streams(arriving, coming, signal),
      choose: async ({ snapshots: offered, idmap }: MigrationHeader) => {
        arriving.owners = idMapOfMessage(idmap) ?? arriving.owners;
        const rows = volumeOnly ? [] : offered.map(volumeSnapshotOfMessage);
        const { missing, surplus } = compareSnapshots(rows, volumeOnly ? [] : volumes.snapshots(record));
        for (const snapshot of surplus) await snapshots.erase(record, snapshot, signal);
        for (const row of missing) coming.set(row.name, row);
        return [...coming.keys()];
      },
      index: (document) => {
        for (const [name, told] of indexedSnapshots(document)) {
          const row = coming.get(name);
          if (row) coming.set(name, { ...row, ...told });
        }
      },
      receive: async (name, use) => {
        await using mounts = new Reverter(context.log); // never committed: mounted only while it is filled
        const { rootfsPath, owners: to } = await storage.mountVolume(refOf(record), null, signal);
        mounts.add('volume', () => storage.unmountVolume(refOf(record), AbortSignal.timeout(UNDO_LIMIT_MS)));
        await use(rootfsPath);
        const row = name === undefined ? undefined : coming.get(name);
        const from = row ? toldOwners(row.config) : arriving.owners;
        await context.host.shiftOwners(rootfsPath, { from, to }, signal);
        if (row) await this.#take(record, row, signal);
      },
    };
  }
}

type Coming = Map<string, SnapshotContent>;

function specOf(description: string, volume: Pick<VolumeRecord, 'pool' | 'project' | 'name'>): OperationSpec {
  return { class: 'task', description, project: volume.project, resources: { storage_volumes: [urlOf(volume)] } };
}
