// Snapshots of custom volumes: taken, described, renamed, restored, removed; by hand and by schedule.
import { randomUUID } from 'node:crypto';
import { sameIdMap } from '#src/host/id-map.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';
import { nextSnapshotName, validateSnapshotName } from '../snapshots/names.ts';
import { expiryOf, isDue, isExpired } from '../snapshots/schedule.ts';
import type { Service } from '#src/lib/service.ts';
import { type CustomVolumes, urlOf } from './custom-volumes.ts';
import { refOf } from './volume-places.ts';
import { becoming, toldOwners, withOwners } from './volume-owners.ts';
import { isOfServer, usingInstances } from './volume-users.ts';

const MINUTE_MS = 60_000;
const ONE_LIMIT_MS = 3600_000;

export interface SnapshotRequest {
  /** Empty: by the volume's pattern. */
  readonly name: string;
  /** Undefined: by the volume's snapshots.expiry. */
  readonly expiresAt?: string;
  readonly description?: string;
}

/** All that a snapshot is, but for its place. */
export type SnapshotContent = Pick<VolumeSnapshotRecord, 'name' | 'description' | 'config' | 'createdAt' | 'expiresAt'>;

type IsRunning = (instanceId: number) => boolean;

export class CustomSnapshots implements Service {
  readonly name = 'snapshots of custom volumes';
  readonly #context: EngineContext;
  readonly #volumes: CustomVolumes;
  readonly #isRunning: IsRunning;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #seen = Math.floor(Date.now() / MINUTE_MS);

  constructor(context: EngineContext, volumes: CustomVolumes, isRunning: IsRunning) {
    this.#context = context;
    this.#volumes = volumes;
    this.#isRunning = isRunning;
  }

  async start(): Promise<void> {
    this.#next();
  }

  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    this.#stopping.abort(new AppError('unavailable', 'the daemon stops'));
  }

  /** The name it will have; what is wrong with it is thrown at once. */
  nameFor(volume: VolumeRecord, wanted: string): string {
    const taken = this.#volumes.snapshots(volume).map(({ name }) => name);
    const pattern = volume.config['snapshots.pattern'] ?? '';
    const name = wanted === '' ? nextSnapshotName({ pattern, taken, now: new Date() }) : wanted;
    validateSnapshotName(name);
    return name;
  }

  async create(volume: VolumeRecord, request: SnapshotRequest, signal: AbortSignal): Promise<void> {
    const { gate, events } = this.#context;
    const { project } = volume;
    gate.allows(project, 'snapshots');
    await this.#volumes.locked(volume, signal, async () => {
      const current = this.#volumes.get(volume);
      const { config, description: own } = current;
      const now = new Date();
      const { name, description = own, expiresAt = expiryOf(config['snapshots.expiry'] ?? '', now) } = request;
      await this.take(current, { name, description, config, expiresAt, createdAt: now.toISOString() }, signal);
      events.lifecycle({ action: 'storage-volume-snapshot-created', source: urlOf(volume, name), project });
    });
  }

  /** Keeps what the volume is now, or what `make` makes at a place. The caller holds its lock. */
  async take(
    volume: VolumeRecord,
    content: SnapshotContent,
    signal: AbortSignal,
    make: (place: string) => Promise<void> = (place) => {
      return this.#volumes.driver(volume).createSnapshot(refOf(volume), place, signal);
    },
  ): Promise<void> {
    const { database, log } = this.#context;
    if (isOfServer(this.#context, volume)) {
      throw new AppError('invalid', 'Volumes used by LXD itself cannot have snapshots');
    }
    const { name } = content;
    const taken = new Set(this.#volumes.snapshots(volume).map(({ hostName }) => hostName));
    const hostName = taken.has(name) ? randomUUID() : name;
    const record = database.volumeSnapshots.create({ ...content, volumeId: volume.id, hostName, pending: 'create' });
    try {
      await make(hostName);
    } catch (error) {
      await this.#volumes.eraseSnapshot(volume, record, AbortSignal.timeout(MINUTE_MS)).catch((failure: unknown) => {
        log.warn('a half-made snapshot was not removed', { snapshot: name, error: failure });
      });
      throw error;
    }
    database.volumeSnapshots.setPending(record.id, '');
  }

  async update(
    volume: VolumeRecord,
    snapshot: VolumeSnapshotRecord,
    content: Pick<VolumeSnapshotRecord, 'description' | 'expiresAt'>,
  ): Promise<void> {
    const { database, events } = this.#context;
    database.volumeSnapshots.update(snapshot.id, content);
    const source = urlOf(volume, snapshot.name);
    events.lifecycle({ action: 'storage-volume-snapshot-updated', source, project: volume.project });
  }

  async rename(volume: VolumeRecord, snapshot: VolumeSnapshotRecord, name: string): Promise<void> {
    const { database, events } = this.#context;
    validateSnapshotName(name);
    database.volumeSnapshots.rename(snapshot.id, name);
    const context = { old_name: snapshot.name };
    const source = urlOf(volume, name);
    events.lifecycle({ action: 'storage-volume-snapshot-renamed', source, project: volume.project, context });
  }

  async remove(volume: VolumeRecord, name: string, signal: AbortSignal): Promise<void> {
    const { events } = this.#context;
    await this.#volumes.locked(volume, signal, async () => {
      await this.erase(this.#volumes.get(volume), this.#volumes.snapshot(volume, name), signal);
    });
    const source = urlOf(volume, name);
    events.lifecycle({ action: 'storage-volume-snapshot-deleted', source, project: volume.project });
  }

  /** Not while a running instance uses the volume. */
  async restore(volume: VolumeRecord, name: string, signal: AbortSignal): Promise<void> {
    const { events, database } = this.#context;
    await this.#volumes.locked(volume, signal, async () => {
      const current = this.#volumes.get(volume);
      const snapshot = this.#volumes.snapshot(current, name);
      this.refuseRunning(current, 'Cannot restore custom volume used by running instances');
      await this.#makeWay(current, snapshot, signal);
      const { id, description, config } = current;
      const owners = toldOwners(snapshot.config);
      if (!sameIdMap(toldOwners(config), owners)) {
        database.volumes.update(id, { description, config: becoming(config, owners) });
      }
      await this.#volumes.driver(current).restoreSnapshot(refOf(current), snapshot.hostName, signal);
      database.volumes.update(id, { description, config: withOwners(snapshot.config, owners) });
    });
    const source = urlOf(volume);
    events.lifecycle({ action: 'storage-volume-restored', source, project: volume.project });
  }

  /** Of a driver that cannot keep later snapshots: they go when the volume's configuration says so. */
  async #makeWay(volume: VolumeRecord, { hostName }: VolumeSnapshotRecord, signal: AbortSignal): Promise<void> {
    const later = await this.#volumes.driver(volume).laterSnapshots?.(refOf(volume), hostName, signal);
    if (!later || later.names.length === 0) return;
    if (!later.mayGo) throw new AppError('invalid', later.why);
    for (const snapshot of this.#volumes.snapshots(volume).filter((one) => later.names.includes(one.hostName))) {
      await this.erase(volume, snapshot, signal);
    }
  }

  /** The caller holds the lock of the volume. */
  async erase(volume: VolumeRecord, snapshot: VolumeSnapshotRecord, signal: AbortSignal): Promise<void> {
    const { volumeSnapshots } = this.#context.database;
    volumeSnapshots.setPending(snapshot.id, 'delete');
    try {
      await this.#volumes.eraseSnapshot(volume, snapshot, signal);
    } catch (error) {
      volumeSnapshots.setPending(snapshot.id, ''); // what was refused is not done later
      throw error;
    }
  }

  /** AppError with this text while a running instance uses the volume. */
  refuseRunning(volume: VolumeRecord, text: string): void {
    if (usingInstances(this.#context, volume).some(({ id }) => this.#isRunning(id)))
      throw new AppError('internal', text);
  }

  #next(): void {
    this.#timer = setTimeout(() => void this.#tick(), MINUTE_MS - (Date.now() % MINUTE_MS)).unref();
  }

  async #tick(): Promise<void> {
    const now = new Date();
    const minute = Math.floor(now.getTime() / MINUTE_MS);
    if (minute !== this.#seen) {
      this.#seen = minute;
      for (const volume of this.#context.database.volumes.list()) await this.#keep(volume, now);
    }
    // No overlap: a round that takes longer puts the next one off.
    if (!this.#stopping.signal.aborted) this.#next();
  }

  /** What fails for one volume does not keep the others. */
  async #keep(volume: VolumeRecord, now: Date): Promise<void> {
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(ONE_LIMIT_MS)]);
    try {
      const schedule = volume.config['snapshots.schedule'] ?? '';
      if (schedule !== '' && isDue(schedule, now)) {
        await this.create(volume, { name: this.nameFor(volume, '') }, signal);
      }
      for (const { name, expiresAt } of this.#volumes.snapshots(volume)) {
        if (isExpired(expiresAt, now)) await this.remove(volume, name, signal);
      }
    } catch (error) {
      const { name } = volume;
      this.#context.log.warn('the schedule of a volume failed', { volume: name, error: messageOf(error) });
    }
  }
}
