// storage.images_volume and storage.backups_volume: the server's images and backups in custom volumes, as LXD has them: the directory is then
// a link to where the volume is mounted. The link changes in one step, when everything is there; what it leads to is the truth.
import { readdirSync } from 'node:fs';
import { lstat, mkdir, readdir, readlink, rm, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { exchangeNow } from '#src/host/kernel.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import type { EngineContext } from '../context.ts';
import { DEFAULT_PROJECT } from '../db/projects.ts';
import type { VolumeRecord } from '../db/records.ts';
import type { CustomVolumes } from '../volumes/custom-volumes.ts';
import { refOf } from '../volumes/volume-places.ts';
import { SERVER_VOLUME_KEYS, type ServerVolumeKey } from '../volumes/volume-users.ts';
import type { ServerConfig } from './server-config.ts';

const PRIVATE = 0o700;
const MOVE_LIMIT_MS = 24 * 3600_000;
/** Uploads and backups that are being written. */
const UNFINISHED = '.part';
/** Of file systems: not content. */
const OWN_ENTRIES = new Set(['lost+found', '.zfs']);
/** The last look at what has come meanwhile does not wait for anything. */
const MAX_ROUNDS = 10;

type Context = Pick<EngineContext, 'database' | 'host' | 'log' | 'paths' | 'pools'>;

export interface ServerVolumesParts {
  readonly context: Context;
  readonly volumes: CustomVolumes;
  readonly config: ServerConfig;
}

export class ServerVolumes implements Service {
  readonly name = 'volumes of the server';
  readonly #parts: ServerVolumesParts;

  constructor(parts: ServerVolumesParts) {
    this.#parts = parts;
    for (const key of SERVER_VOLUME_KEYS) parts.config.onChange(key, (value) => this.#move(key, value));
  }

  /** Without its images and backups the server would take them for lost: then it does not start. */
  async start(signal: AbortSignal): Promise<void> {
    for (const key of SERVER_VOLUME_KEYS) await this.#open(key, signal);
  }

  /** They stay mounted, as volumes do. */
  async stop(): Promise<void> {
    await Promise.resolve();
  }

  #directory(key: ServerVolumeKey): string {
    const { paths } = this.#parts.context;
    return key === 'storage.images_volume' ? paths.images : paths.backups;
  }

  async #open(key: ServerVolumeKey, signal: AbortSignal): Promise<void> {
    const { database, log } = this.#parts.context;
    await rm(asideOf(this.#directory(key)), { recursive: true, force: true });
    const linked = await this.#linked(key);
    const said = database.server.config()[key] ?? '';
    const found = linked === undefined ? '' : `${linked.pool}/${linked.name}`;
    if (found !== said) {
      // Killed between the one and the other.
      log.warn('the files of the server are not where its configuration says', { key, said, found });
      const { [key]: _, ...others } = database.server.config();
      database.server.setConfig(found === '' ? others : { ...others, [key]: found });
    }
    if (linked) await this.#parts.volumes.driver(linked).mountVolume(refOf(linked), null, signal);
  }

  /** The volume that the directory leads to; undefined: it is one itself. */
  async #linked(key: ServerVolumeKey): Promise<VolumeRecord | undefined> {
    const directory = this.#directory(key);
    if (!(await lstat(directory)).isSymbolicLink()) return undefined;
    const target = resolve(directory, await readlink(directory));
    const found = this.#parts.context.database.volumes.list().find((volume) => target === this.#place(volume));
    if (found) return found;
    throw new AppError('internal', `${directory} leads to ${target}, where no volume of this server is`);
  }

  /** Where every driver mounts a custom volume. */
  #place({ pool, hostName }: VolumeRecord): string {
    return join(this.#parts.context.paths.storagePools, pool, 'custom', hostName);
  }

  /** Undone by being called with the value before. */
  async #move(key: ServerVolumeKey, value: string): Promise<void> {
    const { volumes } = this.#parts;
    const signal = AbortSignal.timeout(MOVE_LIMIT_MS);
    const former = await this.#linked(key);
    if (value === '') {
      if (former) await this.#moveTo(key, undefined, signal);
    } else {
      const volume = this.#volume(value);
      if (former?.id === volume.id) return;
      await volumes.locked(volume, signal, async () => {
        const path = await this.#prepared(value, signal);
        await this.#moveTo(key, path, signal);
      });
    }
    if (former) await volumes.driver(former).unmountVolume(refOf(former), signal);
  }

  /** AppError with LXD's texts. */
  #volume(value: string): VolumeRecord {
    const { database } = this.#parts.context;
    const [pool = '', name = '', ...rest] = value.split('/');
    if (pool === '' || name === '' || rest.length > 0) {
      throw new AppError('invalid', 'Invalid syntax for volume, must be <pool>/<volume>');
    }
    if (!database.pools.find(pool)) {
      throw new AppError('invalid', `Unable to load storage pool "${pool}": Storage pool not found`);
    }
    const volume = database.volumes.find({ pool, project: DEFAULT_PROJECT, name });
    if (volume) return volume;
    const text = `Failed loading storage volume "${value}" in "${DEFAULT_PROJECT}" project: Storage volume not found`;
    throw new AppError('invalid', text);
  }

  /** Mounted, and the server's own. */
  async #prepared(value: string, signal: AbortSignal): Promise<string> {
    const { context, volumes } = this.#parts;
    const { host } = context;
    const volume = this.#volume(value);
    if (volumes.snapshots(volume).length > 0) {
      throw new AppError('invalid', 'Storage volumes for use by LXD itself cannot have snapshots');
    }
    if (volumes.usedBy(volume).length > 0) throw new AppError('invalid', `Storage volume "${value}" is in use`);
    const { rootfsPath: path } = await volumes.driver(volume).mountVolume(refOf(volume), null, signal);
    if (path !== this.#place(volume)) throw new AppError('internal', `Storage volume "${value}" is at ${path}`);
    if (contentOf(await host.list(path)).length > 0) {
      throw new AppError('invalid', `Storage volume "${value}" isn't empty`);
    }
    await host.chown(path, 0, 0);
    await host.setMode(path, PRIVATE);
    return path;
  }

  /** To a volume, or (undefined) to a directory again. */
  async #moveTo(key: ServerVolumeKey, volumePath: string | undefined, signal: AbortSignal): Promise<void> {
    const { host } = this.#parts.context;
    const directory = this.#directory(key);
    const aside = asideOf(directory);
    await rm(aside, { recursive: true, force: true });
    if (volumePath === undefined) await mkdir(aside, { mode: PRIVATE });
    else await symlink(volumePath, aside);
    const target = volumePath ?? aside;
    try {
      await this.#copied(directory, target, signal);
      // Nothing waits from the last look until here.
      exchangeNow(directory, aside);
    } catch (error) {
      for (const entry of contentOf(await host.list(target))) await rm(join(target, entry), { recursive: true });
      await rm(aside, { recursive: true, force: true });
      throw error;
    }
    await emptied(aside);
  }

  /** With what has come while the rest was copied. AppError 'conflict' while something is being written. */
  async #copied(from: string, to: string, signal: AbortSignal): Promise<void> {
    const copied = new Set<string>();
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const missing = filesBelow(from).filter((file) => !copied.has(file));
      const unfinished = missing.find((file) => file.endsWith(UNFINISHED));
      if (unfinished !== undefined) {
        throw new AppError('conflict', `${join(from, unfinished)} is being written: try again when that is done`);
      }
      if (missing.length === 0) return;
      const argv = ['cp', '-a', '--reflink=auto', `${from}/.`, to] as const;
      await this.#parts.context.host.run(argv, { signal, timeoutMs: MOVE_LIMIT_MS });
      for (const file of missing) copied.add(file);
    }
    throw new AppError('conflict', `${from} changes all the time`);
  }
}

/** What is to take the directory's place, and then what was there; whatever a killed daemon left there is not needed any more. */
function asideOf(directory: string): string {
  return `${directory}.new`;
}

function contentOf(names: readonly string[]): readonly string[] {
  return names.filter((name) => !OWN_ENTRIES.has(name));
}

function filesBelow(directory: string): readonly string[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => !OWN_ENTRIES.has(name.split('/', 1)[0] ?? ''));
}

/** What the directory was: a link, whose volume is left empty, or a directory. */
async function emptied(old: string): Promise<void> {
  if ((await lstat(old)).isSymbolicLink()) {
    const target = await readlink(old);
    for (const entry of contentOf(await readdir(target))) await rm(join(target, entry), { recursive: true });
  }
  await rm(old, { recursive: true });
}
