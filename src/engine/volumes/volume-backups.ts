// Backups of custom volumes, in LXD's format; and volumes made of them.
import { basename, join } from 'node:path';
import { readMember } from '#src/host/unpack/read-member.ts';
import { unpackArchive } from '#src/host/unpack/unpack.ts';
import type { HeldStream, IdMapRange, MountedRoot } from '#drivers/storage/driver.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import { tarMembers } from '#src/lib/tar.ts';
import { BackupFiles } from '../backups/backup-files.ts';
import type { BackupRequest } from '../backups/instance-backups.ts';
import { CUSTOM_PLACES, packStreams, requireStreams } from '../backups/optimized-export.ts';
import { checkBackend, receiveBackup } from '../backups/optimized-import.ts';
import { type BackupIndex, configOf, parseIndex } from '../backups/read-index.ts';
import type { EngineContext } from '../context.ts';
import { type BackupRecord, type VolumeRecord, type VolumeSnapshotRecord, ZERO_TIME } from '../db/records.ts';
import type { VolumeKey } from '../db/volumes.ts';
import { parseCompression } from '../images/compression.ts';
import { compressed, packImage, packMembers, type StreamCompression } from '../images/pack.ts';
import { validateSnapshotName } from '../snapshots/names.ts';
import { type CustomVolumes, type NewCustomVolume, urlOf } from './custom-volumes.ts';
import { refOf } from './volume-places.ts';
import { acceptableConfig } from './volume-config.ts';
import { volumeDocuments } from './volume-documents.ts';
import { plainRecord, setOwners, toldOwners, withOwners } from './volume-owners.ts';

const HOUR_MS = 3600_000;
const MAX_INDEX_BYTES = 16 * 2 ** 20;
/** In the volume itself while it is filled: what is unpacked there is moved, not copied. */
const STAGING = '.lighter-import';
const MAX_ENTRIES = 50_000_000;

export class VolumeBackups implements Service {
  readonly name = 'backups of custom volumes';
  readonly #context: EngineContext;
  readonly #volumes: CustomVolumes;
  readonly #files: BackupFiles;
  #timer: NodeJS.Timeout | undefined;

  constructor(context: EngineContext, volumes: CustomVolumes) {
    this.#context = context;
    this.#volumes = volumes;
    this.#files = new BackupFiles(join(context.paths.backups, 'custom'));
  }

  /** Files and rows that belong together are kept; the others, and what has expired, go. */
  async start(): Promise<void> {
    const { database } = this.#context;
    const there = await this.#files.sweep(new Set(database.volumeBackups.list().map(({ file }) => file)));
    for (const { id, file } of database.volumeBackups.list()) if (!there.has(file)) database.volumeBackups.delete(id);
    await this.#prune();
    this.#timer = setInterval(() => void this.#prune(), HOUR_MS).unref();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
  }

  /** Files of volumes that were deleted go with the expired ones. */
  async #prune(): Promise<void> {
    const now = Date.now();
    for (const backup of this.#context.database.volumeBackups.list()) {
      const expires = Date.parse(backup.expiresAt);
      if (expires > 0 && expires <= now) await this.#drop(backup);
    }
    await this.#files.removeUnknown(() => new Set(this.#context.database.volumeBackups.list().map(({ file }) => file)));
  }

  list({ id }: VolumeRecord): readonly BackupRecord[] {
    return this.#context.database.volumeBackups.list(id);
  }

  /** AppError 'not_found' with LXD's text. */
  get({ id }: VolumeRecord, name: string): BackupRecord {
    const backup = this.#context.database.volumeBackups.find(id, name);
    if (!backup) throw new AppError('not_found', 'Storage volume backup not found');
    return backup;
  }

  path({ file }: BackupRecord): string {
    return this.#files.path(file);
  }

  nameFor(volume: VolumeRecord, wanted: string): string {
    const taken = new Set(this.list(volume).map(({ name }) => name));
    if (wanted.includes('/')) throw new AppError('invalid', 'Backup names may not contain slashes');
    if (wanted !== '') return wanted;
    for (let number = 0; ; number++) if (!taken.has(`backup${number}`)) return `backup${number}`;
  }

  /** What is wrong with the request at first sight. */
  check(volume: VolumeRecord, { optimized, compression }: BackupRequest): StreamCompression {
    const { gate, config, database } = this.#context;
    const { project } = volume;
    gate.allows(project, 'backups');
    if (optimized) requireStreams(this.#volumes.driver(volume));
    const own = database.projects.find(project)?.config['backups.compression_algorithm'];
    const wanted = parseCompression(compression || own || config.text('backups.compression_algorithm'));
    if (wanted.kind === 'squashfs') throw new AppError('unsupported', 'Backups in squashfs files are not supported');
    return wanted;
  }

  async create(volume: VolumeRecord, request: BackupRequest, signal: AbortSignal): Promise<void> {
    const { host, database } = this.#context;
    const compression = this.check(volume, request);
    const { name, expiresAt, instanceOnly, optimized } = request;
    await this.#volumes.locked(volume, signal, async () => {
      const current = this.#volumes.get(volume);
      if (database.volumeBackups.find(current.id, name)) {
        throw new AppError('conflict', `Create backup: Backup "${name}" already exists`);
      }
      const snapshots = instanceOnly ? [] : this.#volumes.snapshots(current);
      const createdAt = new Date().toISOString();
      const pack = optimized ? this.#packStreams(current, snapshots, signal) : this.#pack(current, snapshots, signal);
      const file = await this.#files.write(compressed(host, pack, { compression, signal }));
      const row = { instanceId: current.id, name, file, instanceOnly, optimized, createdAt, expiresAt };
      database.volumeBackups.create(row);
    });
    this.#publish('created', volume, name);
  }

  rename(volume: VolumeRecord, { id, name: oldName }: BackupRecord, name: string): void {
    if (name.includes('/')) throw new AppError('invalid', 'Backup names may not contain slashes');
    this.#context.database.volumeBackups.rename(id, name);
    this.#publish('renamed', volume, name, { old_name: oldName });
  }

  async remove(volume: VolumeRecord, backup: BackupRecord): Promise<void> {
    await this.#drop(backup);
    this.#publish('deleted', volume, backup.name);
  }

  #publish(what: string, volume: VolumeRecord, name: string, context?: Readonly<Record<string, string>>): void {
    const source = `${urlOf(volume)}/backups/${name}`;
    const change = { action: `storage-volume-backup-${what}`, source, project: volume.project };
    this.#context.events.lifecycle({ ...change, ...(context && { context }) });
  }

  async #drop({ id, file }: BackupRecord): Promise<void> {
    this.#context.database.volumeBackups.delete(id);
    await this.#files.remove(file);
  }

  #packStreams(
    volume: VolumeRecord,
    snapshots: readonly VolumeSnapshotRecord[],
    signal: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const storage = this.#volumes.driver(volume);
    const form = { optimized: true, optimized_header: requireStreams(storage).nests };
    const named = new Map(snapshots.map(({ name, hostName }) => [name, hostName]));
    const index = (streams: readonly HeldStream[]): Promise<string> => {
      const of = (snapshot?: string) => streams.find((one) => one.snapshot === snapshot)?.owners ?? null;
      const said = snapshots.map((one) => ({ ...one, config: withOwners(one.config, of(one.name)) }));
      const whole = { ...volume, config: withOwners(volume.config, of()) };
      return volumeDocuments(whole, said, { driver: storage.info.name, form });
    };
    const backup = { storage, volume: refOf(volume), snapshots: named, places: CUSTOM_PLACES, index };
    return packStreams(backup, { onBytes: () => undefined, signal });
  }

  async *#pack(
    volume: VolumeRecord,
    snapshots: readonly VolumeSnapshotRecord[],
    signal: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const { host } = this.#context;
    const storage = this.#volumes.driver(volume);
    const { rootfsPath, owners } = await storage.mountVolume(this.#volumes.readable(volume).volume, null, signal);
    const before = this.#before(volume, snapshots, signal);
    const content = { files: [], rootfsPath, owners, rootName: 'backup/volume', isLive: true, before };
    const scratch = this.#files.scratchPath();
    yield* packImage(host, content, { compression: { kind: 'none' }, onBytes: () => undefined, scratch, signal });
  }

  async *#before(volume: VolumeRecord, snapshots: readonly VolumeSnapshotRecord[], signal: AbortSignal) {
    const { host } = this.#context;
    const storage = this.#volumes.driver(volume);
    // The archive has the owners of the inside.
    const content = await volumeDocuments(plainRecord(volume), snapshots.map(plainRecord), {
      driver: storage.info.name,
    });
    yield tarMembers([{ name: 'backup/index.yaml', content }]);
    for (const { name, hostName: snapshot } of snapshots) {
      const mounted = await storage.mountSnapshot({ volume: refOf(volume), snapshot, idMap: null }, signal);
      try {
        const tree = { ...mounted, files: [], rootName: `backup/volume-snapshots/${name}` };
        yield* packMembers(host, tree, { onBytes: () => undefined, signal });
      } finally {
        await storage.unmountSnapshot(refOf(volume), snapshot, AbortSignal.timeout(HOUR_MS));
      }
    }
  }

  /** Receives and looks at the backup; then the operation. */
  async import(key: VolumeKey, content: AsyncIterable<Buffer>, signal: AbortSignal): Promise<string> {
    const { host, operations } = this.#context;
    const received = await this.#files.receive(content);
    try {
      const text = await readMember(host, received.path, {
        name: 'backup/index.yaml',
        maxBytes: MAX_INDEX_BYTES,
        signal,
      });
      if (text === undefined) throw new AppError('invalid', 'Backup is missing at "backup/index.yaml"');
      const index = await parseIndex(text);
      if (index.type !== 'custom') throw new AppError('invalid', 'The backup is not one of a custom volume');
      if (index.optimized) checkBackend(index, this.#volumes.driver(key));
      for (const name of index.snapshots) validateSnapshotName(name);
      const wanted = { ...key, name: key.name === '' ? index.name : key.name, ...index.volume };
      this.#volumes.checkNew(wanted);
      const spec = { class: 'task', description: 'Restoring backup', project: key.project, resources: {} } as const;
      return operations.start(spec, async (operation) => {
        await using file = received;
        if (index.optimized) return await this.#receive(wanted, { index, path: file.path }, operation.signal);
        await this.#volumes.createFilled(
          wanted,
          index.snapshots.map((name) => plainRecord(this.#snapshotOf(index, name, key.pool))),
          {
            fill: (root, snapshot) => {
              const from = toldOwners(configOf(index, snapshot));
              return this.#unpack(file.path, root, { snapshot, from, signal: operation.signal });
            },
          },
          operation.signal,
        );
      });
    } catch (error) {
      await received[Symbol.asyncDispose]();
      throw new AppError(error instanceof AppError ? error.kind : 'internal', messageOf(error), { cause: error });
    }
  }

  #receive(
    wanted: NewCustomVolume,
    { index, path }: { readonly index: BackupIndex; readonly path: string },
    signal: AbortSignal,
  ): Promise<void> {
    const { host, database } = this.#context;
    const work = async (record: VolumeRecord): Promise<void> => {
      const arrived = async (name: string | undefined): Promise<void> => {
        if (name === undefined) return;
        const times = { createdAt: new Date().toISOString(), expiresAt: ZERO_TIME };
        const content = this.#snapshotOf(index, name, record.pool);
        database.volumeSnapshots.create({ volumeId: record.id, hostName: name, ...content, ...times, pending: '' });
      };
      const storage = this.#volumes.driver(record);
      const backup = {
        path,
        index,
        places: CUSTOM_PLACES,
        storage,
        volume: refOf(record),
        owners: (name: string | undefined) => toldOwners(configOf(index, name)),
        arrived,
      };
      await receiveBackup(host, backup, signal);
      setOwners(this.#context, record, toldOwners(index.volume.config));
    };
    return this.#volumes.locked(wanted, signal, () => this.#volumes.createBy(wanted, work, signal));
  }

  /** What the backup says of a snapshot, as far as it means something here; of one that it does not tell of, what the volume has. */
  #snapshotOf(index: BackupIndex, name: string, pool: string) {
    const { description, config } = index.volumeSnapshots.get(name) ?? index.volume;
    return { name, description, config: acceptableConfig(config, this.#context.pools.volumeKeys(pool)) };
  }

  async #unpack(
    path: string,
    { rootfsPath: directory, owners: to, unpackIn: elsewhere }: MountedRoot,
    { snapshot, from, signal }: Unpacking,
  ): Promise<void> {
    const { host } = this.#context;
    for (const entry of await host.list(directory)) await host.removeTree(join(directory, entry));
    const subtree = snapshot === undefined ? 'backup/volume' : `backup/volume-snapshots/${snapshot}`;
    const { totalBytes } = await host.usage(directory);
    const limits = { maxBytes: totalBytes, maxEntries: MAX_ENTRIES };
    const staging = join(directory, STAGING);
    await host.makeDirectory(staging, { mode: 0o700, fresh: true });
    const options = { limits, signal, subtree, keepsName: true, elsewhere };
    await unpackArchive(host, path, { directory: staging, owners: null }, options);
    const content = join(staging, basename(subtree));
    const { kind, uid, gid, mode } = await host.status(content);
    if (kind !== 'directory') throw new AppError('invalid', 'The content of the backup is not a directory');
    for (const entry of await host.list(content)) {
      if (entry === STAGING) throw new AppError('invalid', `The backup has a file ${STAGING}`);
      await host.rename(join(content, entry), join(directory, entry));
    }
    await host.chown(directory, uid, gid);
    await host.setMode(directory, mode);
    await host.removeTree(staging);
    await host.shiftOwners(directory, { from, to }, signal);
  }
}

interface Unpacking {
  readonly snapshot: string | undefined;
  /** LXD's archives have the owners that were on the disk, where it had no other way to give a volume to a container. */
  readonly from: IdMapRange | null;
  readonly signal: AbortSignal;
}
