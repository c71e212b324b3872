// Makes an instance of a backup: the tarball is received, looked at, and unpacked into the root of a new instance.
import { join } from 'node:path';
import type { MountedRoot } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import { readMember } from '#src/host/unpack/read-member.ts';
import { unpackArchive } from '#src/host/unpack/unpack.ts';
import { AppError } from '#src/lib/errors.ts';
import { parseForeignYaml } from '#src/lib/foreign-yaml.ts';
import type { EngineContext } from '../context.ts';
import type { CreationPlan, Fill, InstanceCreation } from '../instances/creation.ts';
import { isRoot } from '../instances/disks.ts';
import { expander } from '../instances/expansion.ts';
import { lockKey } from '../instances/instance-paths.ts';
import { validateSnapshotName } from '../snapshots/names.ts';
import { validateInstanceName } from '../instances/names.ts';
import { ownNotes } from '../instances/foreign-notes.ts';
import { rootPool } from '../profiles/profiles.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import type { BackupFiles } from './backup-files.ts';
import { streamedInstance } from './instance-streams.ts';
import { checkBackend } from './optimized-import.ts';
import { type BackedUpInstance, type BackupIndex, parseIndex } from './read-index.ts';

export interface ImportRequest {
  readonly project: string;
  /** Empty: that of the backup. */
  readonly name: string;
  /** Empty: that of the backup, or the default profile's when that is gone. */
  readonly pool: string;
}

interface Checked {
  readonly index: BackupIndex;
  readonly instance: BackedUpInstance;
  readonly name: string;
}

const MAX_INDEX_BYTES = 16 * 2 ** 20;
const MAX_ENTRIES = 50_000_000;
const MAX_METADATA_BYTES = 2 ** 20;
const READ_LIMIT_MS = 60_000;
const CONTENT = 'backup/container';
/** In the root itself while it is filled: what is unpacked there is moved, not copied. */
const STAGING = '.lighter-import';
/** Belong to the host and pool on which the backup was made. */
const FOREIGN_KEY = /^volatile\.(idmap|last_state)\./u;

export class InstanceImport {
  readonly #context: EngineContext;
  readonly #creation: InstanceCreation;
  readonly #files: BackupFiles;

  constructor(context: EngineContext, creation: InstanceCreation, files: BackupFiles) {
    this.#context = context;
    this.#creation = creation;
    this.#files = files;
  }

  /** Receives and looks at the backup; then the operation. */
  async import(request: ImportRequest, content: AsyncIterable<Buffer>, signal: AbortSignal): Promise<string> {
    const received = await this.#files.receive(content);
    try {
      const checked = await this.#check(request, received.path, signal);
      const { name } = checked;
      const resources = { instances: [`/1.0/instances/${name}`], containers: [`/1.0/containers/${name}`] };
      const spec = { class: 'task', description: 'Restoring backup', project: request.project, resources } as const;
      return this.#context.operations.start(spec, async (operation) => {
        await using file = received;
        const { index } = checked;
        const content = index.optimized
          ? { arrive: streamedInstance(this.#context, file.path, index) }
          : { fill: this.#filler(file.path, index) };
        const plan = this.#plan(request, checked, content);
        const { locks } = this.#context;
        await locks.run(lockKey(plan), () => this.#creation.create(plan, operation), operation.signal);
      });
    } catch (error) {
      await received[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #check({ project, name: wanted, pool }: ImportRequest, path: string, signal: AbortSignal): Promise<Checked> {
    const { host, database } = this.#context;
    const member = { name: 'backup/index.yaml', maxBytes: MAX_INDEX_BYTES, signal };
    const text = await readMember(host, path, member);
    if (text === undefined) throw new AppError('invalid', 'Backup is missing at "backup/index.yaml"');
    const index = await parseIndex(text);
    const instance = restorable(index);
    const name = wanted === '' ? index.name : wanted;
    validateInstanceName(name);
    if (database.instances.find(project, name)) throw new AppError('conflict', `Instance "${name}" already exists`);
    if (pool !== '' && !database.pools.find(pool)) {
      throw new AppError('not_found', 'Storage pool not found: Storage pool not found');
    }
    if (index.optimized) this.#checkStreams(project, pool, index);
    return { index, instance, name };
  }

  /** They go to their own pool, or the one that is wanted, and to no other. */
  #checkStreams(project: string, wanted: string, index: BackupIndex): void {
    const { database, pools } = this.#context;
    if (wanted === '' && !database.pools.find(index.pool)) {
      throw new AppError('not_found', 'Storage pool not found: Storage pool not found');
    }
    checkBackend(index, pools.driver(this.#pool(project, wanted, index.pool)));
  }

  #plan(
    { project, pool: wanted }: ImportRequest,
    { index, instance, name }: Checked,
    content: Pick<CreationPlan, 'fill' | 'arrive'>,
  ): CreationPlan {
    const pool = this.#pool(project, wanted, index.pool);
    const { architecture, ephemeral, profiles, description } = instance;
    const config: ConfigMap = Object.fromEntries(
      Object.entries(instance.config).filter(([key]) => !FOREIGN_KEY.test(key)),
    );
    const devices = this.#devices(project, instance, pool);
    const source = { type: 'none' } as const;
    const request = { name, architecture, config, devices, ephemeral, profiles, description, source };
    const snapshots = new Map([...index.volumeSnapshots].map(([key, notes]) => [key, ownNotes(notes)]));
    const notes = { own: ownNotes(index.volume), snapshots };
    return {
      project,
      name,
      source,
      ...content,
      notes,
      request: { ...request, instanceType: '', stateful: false, start: false },
    };
  }

  /** Each snapshot is unpacked into the root, and taken of it. */
  #filler(path: string, index: BackupIndex): Fill {
    const { host } = this.#context;
    return async (place, signal) => {
      const rows = index.snapshotRows.filter(({ name }) => index.snapshots.includes(name));
      for (const { name } of rows) {
        const home = join(place.paths.snapshots, name);
        const paths = { metadata: join(home, 'metadata.yaml'), templates: join(home, 'templates') };
        await host.makeDirectory(home, { mode: 0o700 });
        await unpackInstance(host, { path, subtree: `backup/snapshots/${name}` }, { ...place, paths }, signal);
        await place.snapshot(name);
        for (const entry of await host.list(place.rootfsPath)) await host.removeTree(join(place.rootfsPath, entry));
      }
      await unpackInstance(host, { path, subtree: CONTENT }, place, signal);
      return rows;
    };
  }

  #pool(project: string, wanted: string, own: string): string {
    const { database } = this.#context;
    if (wanted !== '') return wanted;
    if (database.pools.find(own)) return own;
    const profile = database.profiles.find(project, 'default');
    const pool = profile && rootPool(profile.devices);
    if (pool === undefined)
      throw new AppError('internal', 'Failed to get root disk device: No root device could be found');
    return pool;
  }

  /** The root disk names the pool on which the instance will be. */
  #devices(project: string, { config, devices, profiles }: BackedUpInstance, pool: string): DeviceMap {
    const expanded = expander(this.#context.database)({ project, profiles, config, devices });
    const [name, root] = Object.entries(expanded.devices).find(([, device]) => isRoot(device)) ?? [
      'root',
      { type: 'disk', path: '/' },
    ];
    return 'pool' in root && root['pool'] === pool ? devices : { ...devices, [name]: { ...root, pool } };
  }
}

/** AppError for a backup of something else, or of a kind that is not supported. */
function restorable(index: BackupIndex): BackedUpInstance {
  const { instance } = index;
  if (index.type === 'virtual-machine') {
    throw new AppError('invalid', 'Instance type "virtual-machine" is not supported on this server');
  }
  if (index.type !== 'container' || !instance) throw new AppError('invalid', 'The backup is not one of an instance');
  for (const name of index.snapshots) {
    validateSnapshotName(name);
    if (!index.snapshotRows.some((row) => row.name === name)) {
      throw new AppError('invalid', `The backup says nothing of its snapshot "${name}"`);
    }
  }
  return instance;
}

type Place = MountedRoot & { readonly paths: { readonly metadata: string; readonly templates: string } };

/** One pass over the tarball, whatever the order of its members. */
async function unpackInstance(
  host: Host,
  { path, subtree }: { readonly path: string; readonly subtree: string },
  place: Place,
  signal: AbortSignal,
): Promise<void> {
  const { rootfsPath, owners, paths, unpackIn: elsewhere } = place;
  const staging = join(rootfsPath, STAGING);
  const { totalBytes } = await host.usage(rootfsPath);
  await host.makeDirectory(staging, { mode: 0o700, fresh: true });
  const limits = { maxBytes: totalBytes, maxEntries: MAX_ENTRIES };
  await unpackArchive(host, path, { directory: staging, owners }, { limits, signal, subtree, elsewhere });
  await takeFiles(host, staging, paths);
  const root = join(staging, 'rootfs');
  const status = await host.status(root);
  if (status.kind !== 'directory') throw new AppError('invalid', 'The backup has no root file system');
  for (const name of await host.list(root)) {
    if (name === STAGING) throw new AppError('invalid', `The root of the backup has a file ${STAGING}`);
    await host.rename(join(root, name), join(rootfsPath, name));
  }
  await host.chown(rootfsPath, status.uid, status.gid);
  await host.setMode(rootfsPath, status.mode);
  await host.removeTree(staging);
}

/** Plain files only: a link would lead the engine about on the host. */
async function takeFiles(host: Host, staging: string, paths: Place['paths']): Promise<void> {
  const metadata = join(staging, 'metadata.yaml');
  if (await isKind(host, metadata, 'file')) {
    await host.writeFile(paths.metadata, await metadataText(await readSmall(host, metadata)), { mode: 0o600 });
  }
  const templates = join(staging, 'templates');
  if (!(await isKind(host, templates, 'directory'))) return;
  await host.makeDirectory(paths.templates, { mode: 0o700 });
  for (const name of await host.list(templates)) {
    const path = join(templates, name);
    if (!(await isKind(host, path, 'file'))) throw new AppError('invalid', `Template "${name}" is not a file`);
    await host.writeFile(join(paths.templates, name), await readSmall(host, path), { mode: 0o600 });
  }
}

async function readSmall(host: Host, path: string): Promise<string> {
  const { sizeBytes } = await host.status(path);
  if (sizeBytes > MAX_METADATA_BYTES) throw new AppError('invalid', `A file of the backup has ${sizeBytes} bytes`);
  return host.readFile(path);
}

/** As JSON: read at every start of the instance. */
async function metadataText(text: string): Promise<string> {
  try {
    return `${JSON.stringify(await parseForeignYaml(text, { maxAliasCount: 0, limitMs: READ_LIMIT_MS }))}\n`;
  } catch (cause) {
    throw new AppError('invalid', 'metadata.yaml of the backup is not YAML', { cause });
  }
}

async function isKind(host: Host, path: string, kind: 'file' | 'directory'): Promise<boolean> {
  if (!(await host.exists(path))) return false;
  return (await host.status(path)).kind === kind;
}
