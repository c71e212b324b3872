// Custom volumes: made, copied, changed and deleted. A row says what is being done in the pool before it is done; at start what was cut
// short is finished or undone. Names are the database's alone: a rename touches no pool.
import type { MountedRoot, NewVolume, StorageDriver } from '#drivers/storage/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import type { EngineContext } from '../context.ts';
import { type VolumeRecord, type VolumeSnapshotRecord, ZERO_TIME } from '../db/records.ts';
import type { VolumeKey } from '../db/volumes.ts';
import { projectSuffix } from '../projects/project-url.ts';
import { projectFor } from '../projects/project-for.ts';
import { type CopySource, copyVolume } from '../storage/copy-volume.ts';
import { inOrder } from '../instances/lock-order.ts';
import type { ConfigMap } from '../types.ts';
import { endHalfDone } from './half-done.ts';
import { changeInDriver } from './resize-volume.ts';
import { driverConfig, sizeOf, validateVolumeConfig, validateVolumeName, withoutForeign } from './volume-config.ts';
import { ownersInCopy, setOwners, withOwners, withOwnersOf, withoutOwners } from './volume-owners.ts';
import { freeHostName, refOf, volumeDefaults } from './volume-places.ts';
import { usersOf } from './volume-users.ts';

export interface NewCustomVolume extends VolumeKey {
  readonly description: string;
  readonly config: ConfigMap;
}

export interface VolumeSource extends VolumeKey {
  readonly snapshot?: string;
  readonly volumeOnly: boolean;
}

export interface VolumeContent {
  readonly description: string;
  readonly config: ConfigMap;
}

const UNDO_LIMIT_MS = 120_000;

type Context = Omit<EngineContext, 'images' | 'downloads' | 'networks' | 'volumes'>;

export class CustomVolumes implements Service {
  readonly name = 'custom volumes';
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
    context.gate.countVolumes((project) => {
      return context.database.volumes
        .list()
        .filter((volume) => volume.project === project)
        .map(({ name, config }) => ({ name, sizeBytes: sizeOf(config) }));
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    await endHalfDone({ context: this.#context, volumes: this }, signal);
  }

  async stop(): Promise<void> {
    await Promise.resolve();
  }

  /** The project that holds the custom volumes of `project`. */
  holder(project: string): string {
    return projectFor(this.#context.database, 'storage.volumes', project);
  }

  /** Of one pool and project. */
  list(pool: string, project: string): readonly VolumeRecord[] {
    return this.#context.database.volumes.list(pool).filter((volume) => volume.project === project);
  }

  /** Of all pools. */
  urlsOf(project: string): readonly string[] {
    const volumes = this.#context.database.volumes.list().filter((volume) => volume.project === project);
    return volumes.map((volume) => `${urlOf(volume)}${projectSuffix(project)}`);
  }

  /** AppError 'not_found' with LXD's text. */
  get(key: VolumeKey): VolumeRecord {
    const volume = this.#context.database.volumes.find(key);
    if (!volume) throw new AppError('not_found', 'Storage pool volume not found');
    return volume;
  }

  snapshots({ id }: VolumeRecord): readonly VolumeSnapshotRecord[] {
    return this.#context.database.volumeSnapshots.list(id);
  }

  usedBy(volume: VolumeRecord): readonly string[] {
    return usersOf(this.#context, volume);
  }

  /** AppError with LXD's words for what is wrong with a volume that is to be. */
  checkNew({ pool, project, name, config }: NewCustomVolume): void {
    const { database, gate } = this.#context;
    validateVolumeName(name);
    database.pools.get(pool);
    if (database.volumes.find({ pool, project, name })) {
      throw new AppError('conflict', 'Volume by that name already exists');
    }
    validateVolumeConfig(`${project}_${name}`, config, this.#context.pools.volumeKeys(pool));
    gate.volume(project, 'creation', { name, sizeBytes: sizeOf(config) });
  }

  async create(volume: NewCustomVolume, signal: AbortSignal): Promise<void> {
    const { pools, database } = this.#context;
    const storage = pools.driver(volume.pool);
    const config = { ...volumeDefaults(this.#context, volume.pool), ...volume.config };
    const wanted = { ...volume, config };
    this.checkNew(wanted);
    await this.locked(wanted, signal, () => {
      return this.#make(wanted, async (record) => {
        await storage.createVolume(this.#newVolume(record), signal);
        database.volumes.setPending(record.id, '');
      });
    });
  }

  /** Filled by another, once for each snapshot and once more at the end. */
  async createFilled(
    volume: NewCustomVolume,
    snapshots: readonly (VolumeContent & { readonly name: string })[],
    { fill }: { readonly fill: (root: MountedRoot, snapshot: string | undefined) => Promise<void> },
    signal: AbortSignal,
  ): Promise<void> {
    const { pools, database } = this.#context;
    const storage = pools.driver(volume.pool);
    const work = async (record: VolumeRecord): Promise<void> => {
      const root = await storage.mountVolume(refOf(record), null, signal);
      for (const { name, ...content } of snapshots) {
        await fill(root, name);
        await storage.createSnapshot(refOf(record), name, signal);
        const times = { createdAt: new Date().toISOString(), expiresAt: ZERO_TIME };
        const row = { volumeId: record.id, name, hostName: name, ...content, ...times, pending: '' } as const;
        database.volumeSnapshots.create(row);
      }
      await fill(root, undefined);
    };
    await this.locked(volume, signal, () => this.createBy(volume, work, signal));
  }

  /** `work` makes it what it shall be; nobody sees it before. The caller holds its lock. */
  async createBy(
    volume: NewCustomVolume,
    work: (record: VolumeRecord) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    this.checkNew(volume);
    const storage = this.driver(volume);
    await this.#make(volume, async (record) => {
      await storage.createVolume(this.#newVolume(record), signal);
      await work(record);
      this.#context.database.volumes.setPending(record.id, '');
    });
  }

  /** A copy with its snapshots, from whatever pool. Without configuration of its own it gets the source's. */
  copy(volume: NewCustomVolume, source: VolumeSource, signal: AbortSignal): Promise<void> {
    return this.#copy(volume, { ...source, goes: false }, signal);
  }

  /** `goes`: from the moment that the copy is there the source is one that is being deleted. */
  async #copy(
    volume: NewCustomVolume,
    source: VolumeSource & { readonly goes: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const { pools, database, host, log } = this.#context;
    const from = this.get(source);
    const chosen = source.snapshot === undefined ? undefined : this.snapshot(from, source.snapshot);
    const keys = { from: pools.volumeKeys(from.pool), to: pools.volumeKeys(volume.pool) };
    const inherited = withoutForeign((chosen ?? from).config, keys);
    const config = Object.keys(volume.config).length > 0 ? volume.config : inherited;
    const wanted = { ...volume, config };
    this.checkNew(wanted);
    const goAlong = chosen || source.volumeOnly ? [] : this.snapshots(from);
    const to = pools.driver(volume.pool);
    const work = () =>
      this.#make(wanted, async (record) => {
        const only = chosen ? { snapshot: chosen.hostName } : {};
        const origin = { ...this.readable(from), ...only };
        const target = { storage: to, volume: this.#newVolume(record) };
        const snapshots = goAlong.map(({ hostName }) => hostName);
        await copyVolume({ host, log }, { from: origin, to: target, snapshots }, signal);
        const copied = { copy: record, of: chosen ?? from, snapshots: goAlong };
        const owners = await ownersInCopy({ context: this.#context, volumes: this }, copied, signal);
        database.transaction(() => {
          for (const { id: _, ...snapshot } of goAlong) {
            const said = withOwners(withoutOwners(snapshot.config), owners.get(snapshot.hostName) ?? null);
            database.volumeSnapshots.create({ ...snapshot, config: said, volumeId: record.id });
          }
          setOwners(this.#context, record, owners.get(undefined) ?? null);
          database.volumes.setPending(record.id, '');
          if (source.goes) database.volumes.setPending(from.id, 'delete');
        });
      });
    await inOrder(this.#context.locks, [lockKey(from), lockKey(wanted)], work, signal);
  }

  /** AppError with LXD's words for what is wrong with a move to another pool or project. */
  checkMove(volume: VolumeRecord, target: VolumeKey): void {
    this.checkNew({ ...target, ...this.#movedTo(target.pool, volume) });
    if (this.usedBy(volume).length > 0) throw new AppError('invalid', 'Volume is still in use');
  }

  /** A copy, and then the end of what was copied, which a later daemon goes on with. */
  async move(volume: VolumeRecord, target: VolumeKey, signal: AbortSignal): Promise<void> {
    this.checkMove(volume, target);
    const moved = { ...target, ...this.#movedTo(target.pool, volume) };
    await this.#copy(moved, { ...volume, volumeOnly: false, goes: true }, signal);
    await this.locked(volume, signal, () => this.erase(volume, signal));
    this.#publishRemoval(volume);
  }

  #movedTo(pool: string, { pool: from, description, config }: VolumeRecord): VolumeContent {
    const { pools } = this.#context;
    return {
      description,
      config: withoutForeign(config, { from: pools.volumeKeys(from), to: pools.volumeKeys(pool) }),
    };
  }

  /** Whoever uses it keeps its mount, and the owners that he sees. */
  readable(record: VolumeRecord): CopySource {
    const limit = this.#context.pools.rsync(record.pool);
    const volume = { ...refOf(record), forReading: true };
    return { storage: this.driver(record), volume, idMap: null, isInUse: true, ...limit };
  }

  #newVolume(record: VolumeRecord): NewVolume {
    const sizeBytes = sizeOf(record.config);
    const config = driverConfig(record.config, this.#context.pools.volumeKeys(record.pool));
    return { ...refOf(record), idMap: null, config, ...(sizeBytes !== undefined && { sizeBytes }) };
  }

  async #make(volume: NewCustomVolume, fill: (record: VolumeRecord) => Promise<void>): Promise<void> {
    const { database, log, events } = this.#context;
    const { pool, project, name, description } = volume;
    const config = withoutOwners(volume.config); // nothing is in it yet
    const hostName = freeHostName(this.#context, volume);
    const createdAt = new Date().toISOString();
    const row = { pool, project, name, hostName, description, config, createdAt, pending: 'create' } as const;
    const record = database.volumes.create(row);
    try {
      await fill(record);
    } catch (error) {
      await this.erase(record, AbortSignal.timeout(UNDO_LIMIT_MS)).catch((failure: unknown) => {
        log.warn('a half-made volume was not removed', { volume: name, error: failure });
      });
      throw error;
    }
    events.lifecycle({ action: 'storage-volume-created', source: urlOf(record), project, context: { type: 'custom' } });
  }

  async update(volume: VolumeRecord, content: VolumeContent, signal: AbortSignal): Promise<void> {
    const { database, gate, events, pools } = this.#context;
    const { project, name } = volume;
    const keys = pools.volumeKeys(volume.pool);
    validateVolumeConfig(volume.hostName, content.config, keys);
    gate.volume(project, 'update', { name, sizeBytes: sizeOf(content.config) });
    await this.locked(volume, signal, async () => {
      const current = this.get(volume);
      await changeInDriver(this.#context, current, content.config, signal);
      database.volumes.update(current.id, { ...content, config: withOwnersOf(content.config, current.config) });
    });
    events.lifecycle({ action: 'storage-volume-updated', source: urlOf(volume), project, context: { type: 'custom' } });
  }

  async rename(volume: VolumeRecord, name: string, signal: AbortSignal): Promise<void> {
    const { database, events } = this.#context;
    validateVolumeName(name);
    if (this.usedBy(volume).length > 0) throw new AppError('invalid', 'Volume is still in use');
    await this.locked(volume, signal, async () => database.volumes.rename(this.get(volume).id, name));
    const { project } = volume;
    const source = urlOf({ ...volume, name });
    events.lifecycle({ action: 'storage-volume-renamed', source, project, context: { old_name: volume.name } });
  }

  async remove(volume: VolumeRecord, signal: AbortSignal): Promise<void> {
    const { database } = this.#context;
    await this.locked(volume, signal, async () => {
      const current = this.get(volume);
      if (this.usedBy(current).length > 0) throw new AppError('invalid', 'The storage volume is still in use');
      database.volumes.setPending(current.id, 'delete');
      try {
        await this.erase(current, signal);
      } catch (error) {
        // What was refused is not done later, when nobody expects it; it can be asked for again.
        database.volumes.setPending(current.id, '');
        throw error;
      }
    });
    this.#publishRemoval(volume);
  }

  #publishRemoval(volume: VolumeRecord): void {
    const change = { action: 'storage-volume-deleted', source: urlOf(volume), project: volume.project };
    this.#context.events.lifecycle({ ...change, context: { type: 'custom' } });
  }

  /** Bytes; AppError 'unsupported' with LXD's text where the pool cannot tell. */
  async usage(volume: VolumeRecord, signal: AbortSignal): Promise<number> {
    const used = await this.driver(volume).volumeUsage?.(refOf(volume), signal);
    if (used === undefined) throw new AppError('internal', 'Not supported');
    return used;
  }

  /** By the holder of its lock. */
  async erase(volume: VolumeRecord, signal: AbortSignal): Promise<void> {
    await this.driver(volume).deleteVolume(refOf(volume), signal);
    this.#context.database.volumes.delete(volume.id);
  }

  async eraseSnapshot(volume: VolumeRecord, snapshot: VolumeSnapshotRecord, signal: AbortSignal): Promise<void> {
    await this.driver(volume).deleteSnapshot(refOf(volume), snapshot.hostName, signal);
    this.#context.database.volumeSnapshots.delete(snapshot.id);
  }

  /** AppError 'not_found' with LXD's text. */
  snapshot(volume: VolumeRecord, name: string): VolumeSnapshotRecord {
    const snapshot = this.snapshots(volume).find((one) => one.name === name);
    if (!snapshot) throw new AppError('not_found', 'Storage pool volume not found');
    return snapshot;
  }

  driver({ pool }: Pick<VolumeRecord, 'pool'>): StorageDriver {
    return this.#context.pools.driver(pool);
  }

  locked<T>(key: VolumeKey, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return this.#context.locks.run(lockKey(key), work, signal);
  }
}

export function lockKey({ pool, project, name }: VolumeKey): string {
  return `volume/${pool}/${project}/${name}`;
}

export function urlOf({ pool, name }: VolumeKey, snapshot?: string): string {
  const base = `/1.0/storage-pools/${encodeURIComponent(pool)}/volumes/custom/${encodeURIComponent(name)}`;
  return snapshot === undefined ? base : `${base}/snapshots/${encodeURIComponent(snapshot)}`;
}
