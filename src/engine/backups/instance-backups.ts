// Backups of instances: made in one pass and kept until they expire, or streamed to the client and kept nowhere.
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { AppError, asError, messageOf } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { BackupRecord, InstanceRecord } from '../db/records.ts';
import { parseCompression } from '../images/compression.ts';
import type { StreamCompression } from '../images/pack.ts';
import { ProgressMeter, stageProgress } from '../images/progress.ts';
import type { OperationHandle, ReadRoot } from '../types.ts';
import { type BackupFiles, instanceBackupFiles } from './backup-files.ts';
import { type Archive, InstanceArchives } from './instance-archives.ts';
import { requireStreams } from './optimized-export.ts';

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

export class InstanceBackups {
  readonly files: BackupFiles;
  readonly #context: EngineContext;
  readonly #archives: InstanceArchives;
  #timer: NodeJS.Timeout | undefined;

  constructor(context: EngineContext, readRoot: ReadRoot) {
    this.#context = context;
    this.files = instanceBackupFiles(context);
    this.#archives = new InstanceArchives(context, readRoot, this.files);
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
    const { name, instanceOnly, optimized, expiresAt } = request;
    const failing = (cause: unknown): never => {
      const kind = cause instanceof AppError ? cause.kind : 'internal';
      throw new AppError(kind, `Create backup: ${messageOf(cause)}`, { cause });
    };
    if (database.backups.find(record.id, name)) {
      failing(new AppError('conflict', `Backup "${record.name}/${name}" already exists`));
    }
    const createdAt = new Date().toISOString();
    try {
      await this.#archives.open(record, { ...request, compression }, operation.signal, async ({ pack, sizeBytes }) => {
        const meter = new ProgressMeter((progress) => {
          operation.setMetadata(stageProgress('create_backup', 'Exporting', progress));
        }, sizeBytes);
        const file = await this.files.write(pack((bytes) => meter.add(bytes)));
        try {
          const row = { instanceId: record.id, name, file, instanceOnly, optimized, createdAt, expiresAt };
          database.backups.create(row);
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
    const send = ({ pack }: Archive): Promise<void> =>
      pipeline(
        pack(() => undefined),
        stream,
      );
    this.#archives.open(record, { ...request, compression }, signal, send).then(
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

  #check({ project, pool }: InstanceRecord, { optimized, compression }: BackupRequest): StreamCompression {
    const { gate, config, database, pools } = this.#context;
    gate.allows(project, 'backups');
    if (optimized) requireStreams(pools.driver(pool));
    const own = database.projects.find(project)?.config['backups.compression_algorithm'];
    const wanted = parseCompression(compression || own || config.text('backups.compression_algorithm'));
    if (wanted.kind === 'squashfs') throw new AppError('unsupported', 'Backups in squashfs files are not supported');
    return wanted;
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
  readonly compression: StreamCompression;
  readonly operation: OperationHandle;
}

function checkBackupName(name: string): void {
  if (name.includes('/')) throw new AppError('invalid', 'Backup names may not contain slashes');
  if (name === '' || /\s/u.test(name)) throw new AppError('invalid', `Invalid backup name "${name}"`);
}
