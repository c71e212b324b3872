// Backups of instances: made in one pass and kept until they expire, or streamed to the client and kept nowhere.
import { join } from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Host } from '#src/host/host.ts';
import { type TarFile, tarMembers } from '#src/lib/tar.ts';
import { AppError, asError, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { BackupRecord, InstanceRecord, SnapshotRecord } from '../db/records.ts';
import { parseCompression, type Compression } from '../images/compression.ts';
import { packImage, packMembers } from '../images/pack.ts';
import { ProgressMeter, stageProgress } from '../images/progress.ts';
import type { OperationHandle, ReadableRoot, ReadRoot } from '../types.ts';
import { type BackupFiles, instanceBackupFiles } from './backup-files.ts';
import { type BackupConfig, backupConfig, indexDocument } from './documents.ts';
import { yamlText } from './yaml-text.ts';

export interface BackupRequest {
  /** Empty: one is made up. */
  readonly name: string;
  /** RFC 3339; the zero time: never. */
  readonly expiresAt: string;
  readonly instanceOnly: boolean;
  readonly optimized: boolean;
  /** Empty: the project's or the server's. */
  readonly compression: string;
}

const HOUR_MS = 3600_000;
const PIGZ = '/usr/bin/pigz';
const MAX_NAME_BYTES = 100;

export class InstanceBackups {
  readonly files: BackupFiles;
  readonly #context: EngineContext;
  readonly #readRoot: ReadRoot;
  #timer: NodeJS.Timeout | undefined;

  constructor(context: EngineContext, readRoot: ReadRoot) {
    this.#context = context;
    this.#readRoot = readRoot;
    this.files = instanceBackupFiles(context);
  }

  /** Files and rows that belong together are kept; expired backups go now and every hour. */
  async start(): Promise<void> {
    const { database, log } = this.#context;
    const backups = database.backups.list();
    const there = await this.files.sweep(new Set(backups.map(({ file }) => file)));
    for (const backup of backups) {
      if (there.has(backup.file)) continue;
      log.warn('a backup has lost its file', { backup: backup.name });
      database.backups.delete(backup.id);
    }
    await this.prune();
    this.#timer = setInterval(() => void this.prune(), HOUR_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  list({ id }: InstanceRecord): readonly BackupRecord[] {
    return this.#context.database.backups.list(id);
  }

  /** AppError 'not_found' with LXD's text. */
  get({ id }: InstanceRecord, name: string): BackupRecord {
    const backup = this.#context.database.backups.find(id, name);
    if (backup) return backup;
    throw new AppError('not_found', 'Load backup from database: Instance backup not found');
  }

  /** Path of the file of a backup. */
  file(record: InstanceRecord, backup: BackupRecord): string {
    this.#publish('instance-backup-retrieved', record, backup.name);
    return this.files.path(backup.file);
  }

  /** The operation. What is wrong with the request at first sight is thrown at once. */
  create(record: InstanceRecord, request: BackupRequest): string {
    const { operations } = this.#context;
    const compression = this.#check(record, request);
    const name = request.name === '' ? this.#freeName(record) : request.name;
    checkBackupName(name);
    const spec = this.#spec('Backing up instance', record, [name]);
    return operations.start(spec, (operation) => this.#make(record, { ...request, name }, { compression, operation }));
  }

  async #make(record: InstanceRecord, request: BackupRequest, { compression, operation }: Making): Promise<void> {
    const { database } = this.#context;
    const { name, instanceOnly, expiresAt } = request;
    const failing = (cause: unknown): never => {
      const kind = cause instanceof AppError ? cause.kind : 'internal';
      throw new AppError(kind, `Create backup: ${messageOf(cause)}`, { cause });
    };
    if (database.backups.find(record.id, name)) {
      failing(new AppError('conflict', `Backup "${record.name}/${name}" already exists`));
    }
    const createdAt = new Date().toISOString();
    try {
      await this.#read(record, operation.signal, async (root) => {
        const meter = new ProgressMeter((progress) => {
          operation.setMetadata(stageProgress('create_backup', 'Exporting', progress));
        }, root.sizeBytes);
        const onBytes = (bytes: number) => meter.add(bytes);
        const content = this.#pack(record, root, { compression, instanceOnly, onBytes, signal: operation.signal });
        const file = await this.files.write(content);
        try {
          database.backups.create({ instanceId: record.id, name, file, instanceOnly, createdAt, expiresAt });
        } catch (error) {
          await this.files.remove(file);
          throw error;
        }
      });
    } catch (error) {
      failing(error);
    }
    this.#publish('instance-backup-created', record, name);
  }

  /** The backup as a stream that nothing keeps; whoever destroys it ends the work. */
  direct(record: InstanceRecord, request: BackupRequest): Readable {
    const compression = this.#check(record, request);
    const stream = new PassThrough();
    const stop = new AbortController();
    const { signal } = stop;
    stream.once('close', () => stop.abort(new AppError('unavailable', 'nobody reads the backup')));
    this.#read(record, signal, (root) => {
      const { instanceOnly } = request;
      return pipeline(
        this.#pack(record, root, { compression, instanceOnly, onBytes: () => undefined, signal }),
        stream,
      );
    }).then(
      () => this.#publish('instance-backup-retrieved', record, request.name),
      (error: unknown) => stream.destroy(asError(error)),
    );
    return stream;
  }

  rename(record: InstanceRecord, backup: BackupRecord, name: string): string {
    const { database, operations } = this.#context;
    checkBackupName(name);
    return operations.start(this.#spec('Renaming instance backup', record), async () => {
      database.backups.rename(backup.id, name);
      const source = `/1.0/instances/${record.name}/backups/${name}`;
      const { project } = record;
      const context = { old_name: backup.name };
      this.#context.events.lifecycle({ action: 'instance-backup-renamed', source, project, context });
    });
  }

  remove(record: InstanceRecord, backup: BackupRecord): string {
    return this.#context.operations.start(this.#spec('Removing instance backup', record), async () => {
      await this.#remove(backup);
      this.#publish('instance-backup-deleted', record, backup.name);
    });
  }

  async prune(): Promise<void> {
    const now = Date.now();
    for (const backup of this.#context.database.backups.list()) {
      const expires = Date.parse(backup.expiresAt);
      if (!(expires > 0) || expires > now) continue;
      await this.#remove(backup).catch((error: unknown) => {
        this.#context.log.error('failed to remove an expired backup', { backup: backup.name, error });
      });
    }
  }

  /** The row first: what is left of a removal that was cut short is a file that nothing knows. */
  async #remove({ id, file }: BackupRecord): Promise<void> {
    this.#context.database.backups.delete(id);
    await this.files.remove(file);
  }

  #read<T>({ project, name }: InstanceRecord, signal: AbortSignal, use: (root: ReadableRoot) => Promise<T>) {
    return this.#readRoot({ project, name, mayRun: true }, use, signal);
  }

  #check({ project }: InstanceRecord, { optimized, compression }: BackupRequest): Compression {
    const { gate, config, database } = this.#context;
    gate.allows(project, 'backups');
    if (optimized) throw new AppError('unsupported', 'Optimized backups are not supported');
    const own = database.projects.find(project)?.config['backups.compression_algorithm'];
    const wanted = parseCompression(compression || own || config.text('backups.compression_algorithm'));
    if (wanted.kind === 'squashfs') throw new AppError('unsupported', 'Backups in squashfs files are not supported');
    return wanted;
  }

  async *#pack(record: InstanceRecord, root: ReadableRoot, packing: Packing): AsyncGenerator<Buffer> {
    const { host, database } = this.#context;
    const { compression, instanceOnly, onBytes, signal } = packing;
    const snapshots = instanceOnly ? [] : database.snapshots.list(record.id);
    const content = {
      ...root,
      before: this.#before(record, snapshots, packing),
      files: await instanceFiles(host, root, 'backup/container', backupConfig({ database }, record, snapshots)),
      rootName: 'backup/container/rootfs',
      isLive: true,
    };
    const scratch = this.files.scratchPath();
    yield* packImage(host, content, { compression: await this.#fastest(compression), onBytes, scratch, signal });
  }

  /** The index, and the snapshots. */
  async *#before(record: InstanceRecord, snapshots: readonly SnapshotRecord[], packing: Packing) {
    const { database, pools } = this.#context;
    const config = backupConfig({ database }, record, snapshots);
    const names = snapshots.map(({ name }) => name);
    const driver = pools.driver(record.pool).info.name;
    const index = await indexDocument(record, config, { driver, snapshots: names });
    yield tarMembers([{ name: 'backup/index.yaml', content: index }]);
    for (const snapshot of names) yield* this.#snapshotMembers(record, snapshot, { ...packing, config });
  }

  async *#snapshotMembers(
    { project, name }: InstanceRecord,
    snapshot: string,
    { config, onBytes, signal }: Packing & { readonly config: BackupConfig },
  ): AsyncGenerator<Buffer> {
    const { host } = this.#context;
    const place = `backup/snapshots/${snapshot}`;
    const through = new PassThrough();
    const key = { project, name, snapshot, isLocked: true };
    const reading = this.#readRoot(
      key,
      async (root) => {
        const files = await instanceFiles(host, root, place, config);
        const members = packMembers(host, { ...root, files, rootName: `${place}/rootfs` }, { onBytes, signal });
        await pipeline(members, through);
      },
      signal,
    );
    reading.catch((error: unknown) => through.destroy(asError(error)));
    yield* through as AsyncIterable<Buffer>;
    await reading;
  }

  /** pigz writes what gzip writes, with all processors. */
  async #fastest(compression: Compression): Promise<Compression> {
    if (compression.kind !== 'filter' || compression.argv[0] !== 'gzip') return compression;
    if (!(await this.#context.host.exists(PIGZ))) return compression;
    return { kind: 'filter', argv: [PIGZ, ...compression.argv.slice(1)] };
  }

  #freeName(record: InstanceRecord): string {
    const taken = new Set(this.list(record).map(({ name }) => name));
    for (let number = 0; ; number++) if (!taken.has(`backup${number}`)) return `backup${number}`;
  }

  #spec(description: string, { project, name }: InstanceRecord, backups: readonly string[] = []) {
    const resources = {
      containers: [`/1.0/containers/${name}`],
      instances: [`/1.0/instances/${name}`],
      ...(backups.length > 0 && { backups: backups.map((backup) => `/1.0/backups/${backup}`) }),
    };
    return { class: 'task', description, project, resources } as const;
  }

  #publish(action: string, { name, project }: InstanceRecord, backup: string): void {
    this.#context.events.lifecycle({ action, source: `/1.0/instances/${name}/backups/${backup}`, project });
  }
}

interface Making {
  readonly compression: Compression;
  readonly operation: OperationHandle;
}

interface Packing {
  readonly compression: Compression;
  readonly instanceOnly: boolean;
  readonly onBytes: (bytes: number) => void;
  readonly signal: AbortSignal;
}

/** What lies beside the root. */
async function instanceFiles(
  host: Host,
  root: ReadableRoot,
  place: string,
  config: BackupConfig,
): Promise<readonly TarFile[]> {
  const files: TarFile[] = [{ name: `${place}/backup.yaml`, content: await yamlText(config) }];
  if (await host.exists(root.metadataPath)) {
    files.push({ name: `${place}/metadata.yaml`, content: await host.readFile(root.metadataPath) });
  }
  for (const template of await host.list(root.templatesPath)) {
    const name = `${place}/templates/${template}`;
    files.push({ name, content: await host.readFile(join(root.templatesPath, template)) });
  }
  const long = files.find(({ name }) => Buffer.byteLength(name) > MAX_NAME_BYTES);
  if (long) throw new AppError('invalid', `The name "${long.name}" is too long for a backup`);
  return files;
}

function checkBackupName(name: string): void {
  if (name.includes('/')) throw new AppError('invalid', 'Backup names may not contain slashes');
  if (name === '' || /\s/u.test(name)) throw new AppError('invalid', `Invalid backup name "${name}"`);
}
