// The contents of one instance for another: root, snapshots, templates. What runs is copied as it was at one moment.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord, NewInstance, NewSnapshot, SnapshotRecord } from '../db/records.ts';
import type { VolumeNotes } from '../db/root-volumes.ts';
import { type CopySource, type CopyTarget, copyVolume } from '../storage/copy-volume.ts';
import { expander } from './expansion.ts';
import { type InstanceKey, instancePaths, ownedVolume, STATE } from './instance-paths.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { devicesOnPool } from './restore.ts';
import { copyState } from './saved-states.ts';
import { copySnapshotFiles } from './snapshot-files.ts';
import { whileStill } from './still.ts';
import type { Supervisor } from './supervisor.ts';
import { endTransition, noteTransition } from './transition.ts';

const UNDO_LIMIT_MS = 120_000;

export interface CopyParts {
  readonly context: EngineContext;
  readonly lifecycle: InstanceLifecycle;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
}

/** What is copied. */
export interface CopiedInstance {
  readonly record: InstanceRecord;
  /** One of its snapshots instead of what it is now. */
  readonly snapshot?: SnapshotRecord;
  readonly instanceOnly: boolean;
  /** A running one on a pool without snapshots at a moment is copied while it changes. */
  readonly allowInconsistent: boolean;
}

export class InstanceCopies {
  readonly #parts: CopyParts;

  constructor(parts: CopyParts) {
    this.#parts = parts;
  }

  /** Snapshots that go along, in the order of creation. */
  snapshotsOf({ record, snapshot, instanceOnly }: CopiedInstance): readonly SnapshotRecord[] {
    return snapshot || instanceOnly ? [] : this.#parts.context.database.snapshots.list(record.id);
  }

  /** Makes the target volume. The caller holds the source's lock. */
  async copyRoot(copied: CopiedInstance, to: CopyTarget, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const snapshots = this.snapshotsOf(copied).map(({ name }) => name);
    const inOnePool = context.pools.driver(copied.record.pool) === to.storage;
    await this.withStillSource(copied, { inOnePool }, signal, (from) => {
      return copyVolume(context, { from, to, snapshots }, signal);
    });
  }

  /**
   * Runs `use` on a source that does not change meanwhile: a snapshot, a stopped instance, a frozen one, or a snapshot made for
   * the purpose and removed afterwards.
   */
  async withStillSource(
    { record, snapshot, allowInconsistent }: CopiedInstance,
    { inOnePool }: { readonly inOnePool: boolean },
    signal: AbortSignal,
    use: (from: CopySource) => Promise<void>,
  ): Promise<void> {
    const { context, supervisor, lifecycle } = this.#parts;
    const storage = context.pools.driver(record.pool);
    const { config } = expander(context.database)(record);
    const idMap = await lifecycle.idMap(record, config);
    const limit = context.pools.rsync(record.pool);
    const from: CopySource = { storage, volume: ownedVolume(record, config), idMap, ...limit };
    const life = supervisor.life(record.id);
    if (snapshot) return use({ ...from, snapshot: snapshot.name });
    if (!life) return use(from);
    if (allowInconsistent) return use({ ...from, isInUse: true });
    // Where a snapshot costs little, the instance need not wait until everything is read.
    if (storage.info.copyOnWrite && storage.copyVolume && !inOnePool)
      return this.#withMoment(record, from, signal, use);
    if (storage.info.instantSnapshots && storage.copyVolume) return use({ ...from, isInUse: true });
    const note = { kind: 'still', pool: record.pool } as const;
    try {
      await whileStill(this.#parts, { record, note }, signal, () => use({ ...from, isInUse: true }));
    } finally {
      await endTransition(instancePaths(context.paths, record));
    }
  }

  async #withMoment(
    record: InstanceRecord,
    from: CopySource,
    signal: AbortSignal,
    use: (from: CopySource) => Promise<void>,
  ): Promise<void> {
    const { context } = this.#parts;
    const paths = instancePaths(context.paths, record);
    const snapshot = `copy-${randomUUID()}`;
    const note = { kind: 'snapshot', pool: record.pool, snapshot } as const;
    const make = (): Promise<void> => from.storage.createSnapshot(from.volume, snapshot, signal);
    await using ends = new Reverter(context.log); // never committed: the snapshot is only for the copy
    await noteTransition(context.host, paths, note);
    ends.add('note', () => endTransition(paths));
    if (from.storage.info.instantSnapshots) await make();
    else await whileStill(this.#parts, { record, note }, signal, make);
    ends.add('snapshot', () => {
      return from.storage.deleteSnapshot(from.volume, snapshot, AbortSignal.timeout(UNDO_LIMIT_MS));
    });
    await use({ ...from, snapshot });
  }

  /** Metadata and templates, and the state of processes: of the instance if it is wanted, and of each snapshot that goes along. */
  async copyFiles(copied: CopiedInstance, target: InstanceKey, { stateful }: StatefulCopy): Promise<void> {
    const { context } = this.#parts;
    const from = instancePaths(context.paths, copied.record);
    const to = instancePaths(context.paths, target);
    const { snapshot } = copied;
    const copy = async (source: string, copyTo: string, hasState: boolean): Promise<void> => {
      await copySnapshotFiles(context.host, source, copyTo);
      if (hasState) await copyState(context, join(source, STATE), join(copyTo, STATE));
    };
    await copy(snapshot ? join(from.snapshots, snapshot.name) : from.home, to.home, stateful);
    for (const one of this.snapshotsOf(copied)) {
      await copy(join(from.snapshots, one.name), join(to.snapshots, one.name), one.stateful);
    }
  }

  /** What users had written on the volume, and by name on the snapshots that go along. */
  notesOf(copied: CopiedInstance): NotesOfCopy {
    const { rootVolumes } = this.#parts.context.database;
    const { record, snapshot } = copied;
    const own = snapshot ? rootVolumes.get('snapshot', snapshot.id) : rootVolumes.get('instance', record.id);
    const kept = this.snapshotsOf(copied).map(({ id, name }) => [name, rootVolumes.get('snapshot', id)] as const);
    return { own, snapshots: new Map(kept) };
  }

  /** Rows of the copied snapshots, less the instance that they belong to. */
  snapshotRows(copied: CopiedInstance): readonly Unowned[] {
    return this.snapshotsOf(copied).map(({ id: _id, instanceId: _owner, ...snapshot }) => snapshot);
  }

  /** A snapshot of an instance that is on another pool must be restorable there. */
  onPool<Snapshot extends Unowned>(
    snapshot: Snapshot,
    { project, pool }: Pick<NewInstance, 'project' | 'pool'>,
  ): Snapshot {
    const { context } = this.#parts;
    const known = snapshot.profiles.filter((profile) => context.database.profiles.find(project, profile));
    return { ...snapshot, devices: devicesOnPool(context, { ...snapshot, project, profiles: known }, pool) };
  }
}

interface StatefulCopy {
  /** The copy begins with the state of what is copied. */
  readonly stateful: boolean;
}

export interface NotesOfCopy {
  readonly own: VolumeNotes;
  readonly snapshots: ReadonlyMap<string, VolumeNotes>;
}

export type Unowned = Omit<NewSnapshot, 'instanceId'>;
