// The archive of an instance, with what LXD has in one: an index, and the files of its root and snapshots, or their streams.
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { HeldStream } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import { type TarFile, tarMembers } from '#src/lib/tar.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord, SnapshotRecord } from '../db/records.ts';
import { compressed, packImage, packMembers, type StreamCompression } from '../images/pack.ts';
import { lockKey, rootVolume } from '../instances/instance-paths.ts';
import { recordInstance } from '../recovery/instance-records.ts';
import type { ReadableRoot, ReadRoot } from '../types.ts';
import type { BackupFiles } from './backup-files.ts';
import { type BackupConfig, backupConfig, indexDocument, withOwners } from './documents.ts';
import { INSTANCE_PLACES, packStreams, requireStreams } from './optimized-export.ts';
import { yamlText } from './yaml-text.ts';

const PIGZ = '/usr/bin/pigz';
const MAX_NAME_BYTES = 100;

export interface ArchiveRequest {
  readonly instanceOnly: boolean;
  readonly optimized: boolean;
  readonly compression: StreamCompression;
}

export interface Archive {
  readonly pack: (onBytes: (bytes: number) => void) => AsyncGenerator<Buffer>;
  /** Of the root; undefined: it is not known. */
  readonly sizeBytes: number | undefined;
}

export class InstanceArchives {
  readonly #context: EngineContext;
  readonly #readRoot: ReadRoot;
  readonly #files: BackupFiles;

  constructor(context: EngineContext, readRoot: ReadRoot, files: BackupFiles) {
    this.#context = context;
    this.#readRoot = readRoot;
    this.#files = files;
  }

  /** Runs `use` while nobody else changes the instance; it may run. */
  async open(
    record: InstanceRecord,
    request: ArchiveRequest,
    signal: AbortSignal,
    use: (archive: Archive) => Promise<void>,
  ): Promise<void> {
    const { database, locks } = this.#context;
    const options = { ...request, compression: await this.#fastest(request.compression), signal };
    const { project, name } = record;
    if (request.optimized) {
      const work = async (): Promise<void> => {
        const current = database.instances.get(project, name);
        // The streams have what lies beside the root, too: LXD takes the instance from there.
        await recordInstance(this.#context, current, {}, signal);
        await use(this.#streams(current, options));
      };
      return locks.run(lockKey(record), work, signal);
    }
    const plain = (root: ReadableRoot): Promise<void> => {
      const pack: Archive['pack'] = (onBytes) => this.#pack(record, root, { ...options, onBytes });
      return use({ pack, sizeBytes: root.sizeBytes });
    };
    await this.#readRoot({ project, name, mayRun: true }, plain, signal);
  }

  #streams(record: InstanceRecord, { instanceOnly, compression, signal }: Options): Archive {
    const { host, database, pools } = this.#context;
    const storage = pools.driver(record.pool);
    const rows = instanceOnly ? [] : database.snapshots.list(record.id);
    const snapshots = rows.map(({ name }) => name);
    const index = (streams: readonly HeldStream[]): Promise<string> => {
      const owners = (snapshot?: string) => streams.find((stream) => stream.snapshot === snapshot)?.owners ?? null;
      const config = withOwners(backupConfig({ database }, record, rows), owners);
      const form = { optimized: true, optimized_header: requireStreams(storage).nests };
      return indexDocument(record, config, { driver: storage.info.name, snapshots, form });
    };
    const backup = { storage, volume: rootVolume(record), places: INSTANCE_PLACES, index };
    const named = new Map(snapshots.map((name) => [name, name]));
    return {
      pack: (onBytes) => {
        const tar = packStreams({ ...backup, snapshots: named }, { onBytes, signal });
        return compressed(host, tar, { compression, signal });
      },
      sizeBytes: undefined,
    };
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
    const scratch = this.#files.scratchPath();
    yield* packImage(host, content, { compression, onBytes, scratch, signal });
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
  async #fastest(compression: StreamCompression): Promise<StreamCompression> {
    if (compression.kind !== 'filter' || compression.argv[0] !== 'gzip') return compression;
    if (!(await this.#context.host.exists(PIGZ))) return compression;
    return { kind: 'filter', argv: [PIGZ, ...compression.argv.slice(1)] };
  }
}

interface Options extends ArchiveRequest {
  readonly signal: AbortSignal;
}

interface Packing extends Options {
  readonly onBytes: (bytes: number) => void;
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
