// Snapshots of instances: taken, listed, renamed, deleted. Each change holds the instance's lock and is noted on disk first.
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { StorageDriver } from '#drivers/storage/driver.ts';
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord, NewSnapshot, SnapshotRecord } from '../db/records.ts';
import { NO_NOTES, type VolumeNotes } from '../db/root-volumes.ts';
import { nextSnapshotName, validateSnapshotName } from '../snapshots/names.ts';
import { expiryOf } from '../snapshots/schedule.ts';
import { refuseOnBlock } from './block-rules.ts';
import { expander } from './expansion.ts';
import { instancePaths, lockKey, rootVolume, STATE } from './instance-paths.ts';
import { operationSpec } from './operation-spec.ts';
import { linkSnapshotRoot } from './root-links.ts';
import type { SavedStates } from './saved-states.ts';
import { copySnapshotFiles } from './snapshot-files.ts';
import { whileStill } from './still.ts';
import type { Supervisor } from './supervisor.ts';
import { endTransition, noteRemoval, noteTransition } from './transition.ts';

const UNDO_LIMIT_MS = 120_000;
const UNABLE = 'Unable to create a stateful snapshot';
const NOT_RUNNING = `${UNABLE}. The instance isn't running`;

export interface SnapshotParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
  readonly states: SavedStates;
}

export interface SnapshotRequest {
  /** Empty: by the instance's pattern. */
  readonly name: string;
  /** Undefined: by the instance's snapshots.expiry. */
  readonly expiresAt?: string;
  readonly stateful: boolean;
}

/** An instance and one of its snapshots. */
export interface SnapshotOf {
  readonly record: InstanceRecord;
  readonly snapshot: SnapshotRecord;
}

export class InstanceSnapshots {
  readonly #parts: SnapshotParts;

  constructor(parts: SnapshotParts) {
    this.#parts = parts;
  }

  /** In the order of creation. */
  list({ id }: Pick<InstanceRecord, 'id'>): readonly SnapshotRecord[] {
    return this.#parts.context.database.snapshots.list(id);
  }

  names({ id }: Pick<InstanceRecord, 'id'>): readonly string[] {
    return this.#parts.context.database.snapshots.names(id);
  }

  /** Of many instances at once, by the instance's id. */
  listAll(): ReadonlyMap<number, readonly SnapshotRecord[]> {
    return Map.groupBy(this.#parts.context.database.snapshots.listAll(), ({ instanceId }) => instanceId);
  }

  /** AppError 'not_found' with LXD's text. */
  get(record: InstanceRecord, name: string): SnapshotRecord {
    const found = this.#parts.context.database.snapshots.find(record.id, name);
    if (found) return found;
    const text = `Failed to fetch snapshot "${name}" of instance "${record.name}" in project "${record.project}"`;
    throw new AppError('not_found', `${text}: InstanceSnapshot not found`);
  }

  /** Bytes that the snapshot alone holds; -1 where the file system cannot tell. */
  async size({ record, snapshot }: SnapshotOf, signal: AbortSignal): Promise<number> {
    const { context } = this.#parts;
    try {
      const storage = context.pools.driver(record.pool);
      return (await storage.snapshotUsage(rootVolume(record), snapshot.name, signal)) ?? -1;
    } catch (error) {
      signal.throwIfAborted();
      context.log.debug('the size of a snapshot cannot be read', { instance: record.name, error });
      return -1;
    }
  }

  /** An operation; what is wrong with the request at first sight is thrown at once. */
  create(record: InstanceRecord, request: SnapshotRequest): string {
    const { context, supervisor } = this.#parts;
    context.gate.allows(record.project, 'snapshots');
    const whole = this.#complete(record, request);
    if (request.stateful && supervisor.status(record.id) === 'Stopped') throw new AppError('invalid', NOT_RUNNING);
    const spec = operationSpec('Snapshotting instance', record.project, [record.name]);
    return context.operations.start(spec, ({ signal }) => {
      return this.#locked(record, signal, (current) => this.#take(current, whole, signal));
    });
  }

  /** One that nobody asked for: scheduled, or at a start. Called without the lock. */
  async takeAutomatic(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    await this.#locked(record, signal, (current) => this.takeNext(current, signal));
  }

  /** By the holder of the lock. */
  async takeNext(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    await this.#take(record, this.#complete(record, { name: '', stateful: false }), signal);
  }

  #complete(record: InstanceRecord, { name, expiresAt, stateful }: SnapshotRequest): Wanted {
    const { config } = expander(this.#parts.context.database)(record);
    const now = new Date();
    const pattern = config['snapshots.pattern'] ?? '';
    const chosen = name === '' ? nextSnapshotName({ pattern, taken: this.names(record), now }) : name;
    validateSnapshotName(chosen);
    return { name: chosen, expiresAt: expiresAt ?? expiryOf(config['snapshots.expiry'] ?? '', now), stateful };
  }

  async #take(record: InstanceRecord, { name, expiresAt, stateful }: Wanted, signal: AbortSignal): Promise<void> {
    const { context, states } = this.#parts;
    refuseOnBlock(record, 'snapshotted');
    if (stateful) await states.require(record, UNABLE, signal);
    if (context.database.snapshots.find(record.id, name)) {
      const which = `"${record.name}/${name}"`;
      throw new AppError(
        'conflict',
        `Failed creating instance snapshot record ${which}: Snapshot ${which} already exists`,
      );
    }
    const { architecture, ephemeral, description, config, devices, profiles, lastUsedAt } = record;
    const kept = { architecture, ephemeral, description, config, devices, profiles, lastUsedAt, stateful };
    const createdAt = new Date().toISOString();
    const row = { ...kept, name, createdAt, expiresAt, instanceId: record.id };
    const notes = context.database.rootVolumes.get('instance', record.id);
    const make = () =>
      stateful ? this.#snapshotWithState(record, name, signal) : this.#snapshotVolume(record, name, signal);
    await this.publish(record, row, make, notes);
  }

  /** Makes a snapshot of what the volume is then, with its row and its files; the holder of the lock says how. */
  async publish(
    record: InstanceRecord,
    snapshot: NewSnapshot,
    make: () => Promise<void>,
    notes: VolumeNotes = NO_NOTES,
  ): Promise<void> {
    const { context } = this.#parts;
    const { database } = context;
    const { name } = snapshot;
    const paths = instancePaths(context.paths, record);
    await using revert = new Reverter(context.log);

    await noteTransition(context.host, paths, { kind: 'snapshot', pool: record.pool, snapshot: name });
    revert.add('note', () => endTransition(paths));
    revert.add('files', () => rm(join(paths.snapshots, name), { recursive: true, force: true }));
    await make();
    revert.add('snapshot', () => this.#storage(record).deleteSnapshot(rootVolume(record), name, undoLimit()));
    await copySnapshotFiles(context.host, paths.home, join(paths.snapshots, name));
    database.transaction(() => {
      const { id } = database.snapshots.create(snapshot);
      database.rootVolumes.set('snapshot', id, notes);
    });
    revert.commit();
    await linkSnapshotRoot(context, record, name);
    await endTransition(paths);
    this.#publishEvent('instance-snapshot-created', record, name);
  }

  /** A driver that copies file by file gets a tree that holds still. */
  async #snapshotVolume(record: InstanceRecord, name: string, signal: AbortSignal): Promise<void> {
    const storage = this.#storage(record);
    const make = (): Promise<void> => storage.createSnapshot(rootVolume(record), name, signal);
    if (storage.info.instantSnapshots) return make();
    const note = { kind: 'snapshot', pool: record.pool, snapshot: name } as const;
    await whileStill(this.#parts, { record, note }, signal, make);
  }

  /** The container holds still from before the dump until the volume is kept: memory and files are of one moment. */
  async #snapshotWithState(record: InstanceRecord, name: string, signal: AbortSignal): Promise<void> {
    const { context, states, supervisor } = this.#parts;
    const life = supervisor.life(record.id);
    if (!life) throw new AppError('invalid', NOT_RUNNING);
    const note = { kind: 'snapshot', pool: record.pool, snapshot: name } as const;
    const place = join(instancePaths(context.paths, record).snapshots, name);
    await whileStill(this.#parts, { record, note }, signal, async () => {
      await context.host.makeDirectory(place, { mode: 0o700 });
      await states.dumpInto(join(place, STATE), life);
      await this.#storage(record).createSnapshot(rootVolume(record), name, signal);
    });
  }

  setExpiry({ record, snapshot }: SnapshotOf, expiresAt: string): string {
    const { context } = this.#parts;
    return context.operations.start(operationSpec('Updating snapshot', record.project, [record.name]), async () => {
      context.database.snapshots.setExpiry(snapshot.id, expiresAt);
      this.#publishEvent('instance-snapshot-updated', record, snapshot.name);
    });
  }

  rename({ record, snapshot }: SnapshotOf, name: string): string {
    const { context } = this.#parts;
    validateSnapshotName(name);
    if (context.database.snapshots.find(record.id, name)) {
      throw new AppError('conflict', `Name '${record.name}/${name}' already in use`);
    }
    const spec = operationSpec('Renaming snapshot', record.project, [record.name]);
    return context.operations.start(spec, ({ signal }) => {
      return this.#locked(record, signal, (current) => {
        return this.#rename({ record: current, snapshot: this.get(current, snapshot.name) }, name, signal);
      });
    });
  }

  async #rename({ record, snapshot }: SnapshotOf, name: string, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const { database, host } = context;
    const storage = this.#storage(record);
    const volume = rootVolume(record);
    const paths = instancePaths(context.paths, record);
    const from = snapshot.name;
    if (database.snapshots.find(record.id, name)) {
      throw new AppError('conflict', `Name '${record.name}/${name}' already in use`);
    }
    await using revert = new Reverter(context.log);

    await noteTransition(host, paths, { kind: 'snapshot-rename', pool: record.pool, snapshot: name, from });
    revert.add('note', () => endTransition(paths));
    await storage.renameSnapshot({ volume, snapshot: from, newName: name }, signal);
    revert.add('snapshot', () => storage.renameSnapshot({ volume, snapshot: name, newName: from }, undoLimit()));
    database.snapshots.rename(snapshot.id, name);
    revert.commit();
    await moveSnapshotFiles(paths.snapshots, from, name);
    await linkSnapshotRoot(context, record, name);
    await endTransition(paths);
    this.#publishEvent('instance-snapshot-renamed', record, name, { old_name: from });
  }

  remove({ record, snapshot }: SnapshotOf): string {
    const spec = operationSpec('Deleting snapshot', record.project, [record.name]);
    return this.#parts.context.operations.start(spec, ({ signal }) => {
      return this.#locked(record, signal, (current) => {
        return this.removeOne({ record: current, snapshot: this.get(current, snapshot.name) }, signal);
      });
    });
  }

  /** An expired one, if it is still there and still expired. */
  async removeIf(
    key: InstanceRecord,
    name: string,
    condition: (snapshot: SnapshotRecord) => boolean,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#locked(key, signal, async (record) => {
      const snapshot = this.#parts.context.database.snapshots.find(record.id, name);
      if (snapshot && condition(snapshot)) await this.removeOne({ record, snapshot }, signal);
    });
  }

  /** By the holder of the lock. */
  async removeOne({ record, snapshot }: SnapshotOf, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const paths = instancePaths(context.paths, record);
    const { name } = snapshot;
    await noteRemoval(context, paths, { kind: 'snapshot-delete', pool: record.pool, snapshot: name });
    try {
      await eraseSnapshot(context, { record, snapshot }, signal);
    } finally {
      await endTransition(paths);
    }
    this.#publishEvent('instance-snapshot-deleted', record, name);
  }

  #storage({ pool }: InstanceRecord): StorageDriver {
    return this.#parts.context.pools.driver(pool);
  }

  #publishEvent(
    action: string,
    { name, project }: InstanceRecord,
    snapshot: string,
    details?: Readonly<Record<string, unknown>>,
  ): void {
    const source = `/1.0/instances/${name}/snapshots/${encodeURIComponent(snapshot)}`;
    this.#parts.context.events.lifecycle({ action, source, project, ...(details && { context: details }) });
  }

  async #locked(
    key: InstanceRecord,
    signal: AbortSignal,
    work: (record: InstanceRecord) => Promise<void>,
  ): Promise<void> {
    const { locks, database } = this.#parts.context;
    await locks.run(lockKey(key), () => work(database.instances.get(key.project, key.name)), signal);
  }
}

interface Wanted {
  readonly name: string;
  readonly expiresAt: string;
  readonly stateful: boolean;
}

function undoLimit(): AbortSignal {
  return AbortSignal.timeout(UNDO_LIMIT_MS);
}

/** Row last: until then a later daemon, or another request, can go on. */
export async function eraseSnapshot(
  { pools, paths, database }: EngineContext,
  { record, snapshot }: SnapshotOf,
  signal: AbortSignal,
): Promise<void> {
  const { id, name } = snapshot;
  await pools.driver(record.pool).deleteSnapshot(rootVolume(record), name, signal);
  await rm(join(instancePaths(paths, record).snapshots, name), { recursive: true, force: true });
  database.snapshots.delete(id);
}

/** Idempotent: a later daemon may have to go on. */
export async function moveSnapshotFiles(folder: string, from: string, to: string): Promise<void> {
  await rename(join(folder, from), join(folder, to)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}
