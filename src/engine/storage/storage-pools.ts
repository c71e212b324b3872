// Storage pools: opened at start, made, changed and deleted; each behind the driver that its record names.
import { join } from 'node:path';
import type { StorageDriver, StorageModule } from '#drivers/storage/driver.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import { repeatSlowing } from '#src/lib/repeat.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { Service } from '#src/lib/service.ts';
import { limited } from '#src/lib/wait.ts';
import type { EngineContext, PoolAccess } from '../context.ts';
import type { PoolRecord } from '../db/records.ts';
import { checkName } from '../profiles/names.ts';
import { rootPool } from '../profiles/profiles.ts';
import { projectSuffix } from '../projects/project-url.ts';
import type { RsyncSettings } from '../migration/rsync.ts';
import type { ConfigMap } from '../types.ts';
import { checkVolumeDefaults } from '../volumes/volume-config.ts';
import { adoptedConfig } from './adopted-config.ts';
import { AvailablePools, type ReturnListener } from './available-pools.ts';
import { checkRsyncSettings, rsyncSettings } from './rsync-settings.ts';

type Context = Pick<EngineContext, 'database' | 'events' | 'host' | 'locks' | 'log' | 'paths'>;

export interface StoragePoolsOptions {
  readonly context: Context;
  readonly modules: Readonly<Record<string, StorageModule>>;
  /** The map that most instances use. */
  readonly defaultIdMap?: IdMapRange;
}

export interface NewPool {
  readonly name: string;
  readonly driver: string;
  readonly description: string;
  readonly config: ConfigMap;
}

const UNDO_MS = 60_000;
/** Pauses before a pool that could not be opened is tried again: what holds it often comes seconds after the daemon. */
const RETRY = { firstMs: 5000, mostMs: 60_000 } as const;

export class StoragePools implements PoolAccess, Service {
  readonly name = 'storage pools';
  readonly #context: Context;
  readonly #modules: Readonly<Record<string, StorageModule>>;
  readonly #defaultIdMap: IdMapRange | null;
  readonly #open: AvailablePools;
  /** What the drivers of open pools were given, and look into. */
  readonly #configs = new WeakMap<StorageDriver, Record<string, string>>();
  readonly #stopping = new AbortController();
  #endRetries: (() => void) | undefined;

  constructor({ context, modules, defaultIdMap }: StoragePoolsOptions) {
    this.#defaultIdMap = defaultIdMap ?? null;
    this.#context = context;
    this.#open = new AvailablePools(context);
    this.#modules = modules;
  }

  /** Opens all pools. One that cannot be opened is a warning, never a reason not to serve the others. */
  async start(signal: AbortSignal): Promise<void> {
    for (const pool of this.#context.database.pools.pending()) await this.#settle(pool, signal);
    await Promise.all(this.list().map((pool) => this.#openPool(pool, signal)));
    this.#endRetries = repeatSlowing(() => this.#openMissing(), RETRY);
    this.#open.start();
  }

  /** Pools stay as they are: containers run on them. */
  async stop(): Promise<void> {
    this.#endRetries?.();
    this.#open.stop();
    this.#stopping.abort(new AppError('unavailable', 'shutting down'));
  }

  driver(pool: string): StorageDriver {
    const driver = this.#open.get(pool);
    if (driver) return driver;
    this.get(pool);
    return this.#open.require(pool);
  }

  /** Looks whether an open pool is still there, and whether one that was lost is there again. Never rejects. */
  look(pool: string): Promise<void> {
    return this.#open.look(pool);
  }

  onReturn(listener: ReturnListener): void {
    this.#open.onReturn(listener);
  }

  volumeKeys(pool: string): Readonly<Record<string, (value: string) => void>> {
    return this.#module(this.get(pool).driver).volumeKeys ?? {};
  }

  rsync(pool: string): RsyncSettings {
    return rsyncSettings(this.get(pool).config);
  }

  isOpen(pool: string): boolean {
    return this.#open.get(pool) !== undefined;
  }

  list(): readonly PoolRecord[] {
    return this.#context.database.pools.list();
  }

  get(name: string): PoolRecord {
    return this.#context.database.pools.get(name);
  }

  /** URLs of what is in the pool or names it; exact, deleting depends on it. */
  async usedBy(name: string, signal: AbortSignal): Promise<readonly string[]> {
    const images = await this.#open.get(name)?.listImages(signal);
    const known = new Set(this.#context.database.images.list().map(({ fingerprint }) => fingerprint));
    const published = (images ?? []).filter((fingerprint) => known.has(fingerprint));
    return [...published.map((fingerprint) => `/1.0/images/${fingerprint}`), ...this.#holders(name)].toSorted();
  }

  async create(pool: NewPool, signal: AbortSignal): Promise<void> {
    const { name, driver } = pool;
    checkName('Storage pool', name);
    if (driver === '') throw new AppError('invalid', 'No driver provided');
    const { database, locks, events } = this.#context;
    await locks.run(
      `pool/${name}`,
      async () => {
        if (database.pools.find(name)) {
          throw new AppError('conflict', 'The storage pool already exists: The record already exists');
        }
        const left = database.pools.pending().find((pending) => pending.name === name);
        if (left) await this.#discard(left, signal);
        await this.#make(pool, signal);
        events.lifecycle({ action: 'storage-pool-created', source: `/1.0/storage-pools/${name}` });
      },
      signal,
    );
  }

  /** Keys that decide where and how the pool lies cannot be changed; defaults of new volumes can. */
  async update(
    pool: PoolRecord,
    content: Pick<PoolRecord, 'description' | 'config'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { database, events } = this.#context;
    const { source } = pool.config;
    const config: ConfigMap = { ...(source !== undefined && { source }), ...content.config };
    this.#validate(pool.driver, config);
    for (const key of Object.keys({ ...pool.config, ...config })) {
      if (pool.config[key] === config[key] || this.#isChangeable(pool.driver, key)) continue;
      if (key === 'source') throw new AppError('internal', 'Pool source cannot be changed when not in pending state');
      throw new AppError('invalid', `Pool key "${key}" cannot be changed after the pool is created`);
    }
    const changed = this.#driverOf({ ...pool, config });
    if (changed.changePool) {
      this.driver(pool.name); // which must be open
      await changed.changePool(pool.config, signal);
    }
    database.pools.update(pool.id, { ...content, config });
    const driver = this.#open.get(pool.name);
    if (driver) this.#reconfigure(driver, this.#given(pool.name, pool.driver, config));
    else if (await this.#openPool({ ...pool, config }, signal)) void this.#open.tellReturn(pool.name);
    events.lifecycle({ action: 'storage-pool-updated', source: `/1.0/storage-pools/${pool.name}` });
  }

  /** AppError 'invalid' while an instance or profile uses it; unpacked images go with it. */
  async delete(name: string, signal: AbortSignal): Promise<void> {
    const { database, locks, events, log } = this.#context;
    await locks.run(
      `pool/${name}`,
      async () => {
        const pool = this.get(name);
        if (database.pools.pending().some(({ id }) => id === pool.id)) return this.#discard(pool, signal);
        const driver = this.driver(name);
        if (this.#holders(name).length > 0) throw new AppError('invalid', 'The storage pool is currently in use');
        // From here on nobody gets the pool any more; after a failure it is there again.
        this.#open.delete(name);
        await using revert = new Reverter(log);
        revert.add('open pool', () => this.#open.set(name, driver));
        database.pools.setPending(pool.id, 'delete');
        revert.add('record', () => database.pools.setPending(pool.id, ''));
        for (const fingerprint of await driver.listImages(signal)) await driver.deleteImage(fingerprint, signal);
        await driver.deletePool(signal);
        database.pools.delete(pool.id);
        revert.commit();
        events.lifecycle({ action: 'storage-pool-deleted', source: `/1.0/storage-pools/${name}` });
      },
      signal,
    );
  }

  /** For a look: one that the database does not know is opened as it is said to be, and nothing is made. */
  async openUnknown(
    pool: NewPool,
    signal: AbortSignal,
  ): Promise<{ readonly pool: NewPool; readonly storage: StorageDriver; readonly isNew: boolean }> {
    const known = this.#context.database.pools.find(pool.name);
    if (known) return { pool: known, storage: this.driver(pool.name), isNew: false };
    checkName('Storage pool', pool.name);
    this.#validate(pool.driver, pool.config);
    const storage = this.#driverOf(pool);
    await this.#context.locks.run(`pool/${pool.name}`, () => storage.openPool(signal), signal);
    return { pool, storage, isNew: true };
  }

  /** Takes over a pool that openUnknown() opened. `noted`: how it was, as far as somebody knows; what the caller says counts before it. */
  async adopt(
    pool: NewPool,
    { storage, noted }: { readonly storage: StorageDriver; readonly noted?: Pick<NewPool, 'description' | 'config'> },
    signal: AbortSignal,
  ): Promise<void> {
    const { database, events } = this.#context;
    const seen = (await storage.recordedConfig?.(signal)) ?? {};
    const config = adoptedConfig({ noted: noted?.config, said: this.#withSource(pool), seen });
    this.#validate(pool.driver, config);
    const description = pool.description === '' ? (noted?.description ?? '') : pool.description;
    database.pools.create({ ...pool, description, config });
    this.#open.set(pool.name, storage);
    events.lifecycle({ action: 'storage-pool-created', source: `/1.0/storage-pools/${pool.name}` });
  }

  /** What must not lose the pool. */
  #holders(name: string): readonly string[] {
    const { database } = this.#context;
    const instances = database.instances
      .usingPool(name)
      .map((instance) => `/1.0/instances/${instance.name}${projectSuffix(instance.project)}`);
    const profiles = database.profiles
      .listAll()
      .filter(({ devices }) => rootPool(devices) === name || Object.values(devices).some(({ pool }) => pool === name))
      .map((profile) => `/1.0/profiles/${profile.name}${projectSuffix(profile.project)}`);
    const volumes = database.volumes.list(name).map((volume) => {
      const url = `/1.0/storage-pools/${name}/volumes/custom/${encodeURIComponent(volume.name)}`;
      return `${url}${projectSuffix(volume.project)}`;
    });
    return [...instances, ...profiles, ...volumes];
  }

  async #make(pool: NewPool, signal: AbortSignal): Promise<void> {
    const { database, log } = this.#context;
    await using revert = new Reverter(log);
    this.#validate(pool.driver, pool.config);
    const driver = this.#driverOf(pool);
    await driver.checkPool(signal);
    const id = database.pools.create(pool, 'create');
    revert.add('record', () => database.pools.delete(id));
    await driver.createPool(signal);
    revert.add('storage pool', () => driver.deletePool(AbortSignal.timeout(UNDO_MS)));
    const recorded = await driver.recordedConfig?.(signal);
    database.pools.complete(id, { ...this.#withSource(pool), ...recorded });
    this.#open.set(pool.name, driver);
    revert.commit();
  }

  /** One that was being made or removed when a daemon was killed: it goes, now or at another start. */
  async #settle(pool: PoolRecord, signal: AbortSignal): Promise<void> {
    const { log } = this.#context;
    try {
      await this.#discard(pool, signal);
      log.warn('removed a storage pool that a killed daemon left half-made', { pool: pool.name });
    } catch (error) {
      log.error('a half-made storage pool could not be removed', { pool: pool.name, error });
    }
  }

  async #discard(pool: PoolRecord, signal: AbortSignal): Promise<void> {
    await this.#driverOf(pool).discardPool(signal);
    this.#context.database.pools.delete(pool.id);
  }

  /** LXD's records always say where the pool is. */
  #withSource({ name, driver, config }: NewPool): ConfigMap {
    return this.#isDirectory(driver) && !config['source'] ? { ...config, source: this.path(name) } : config;
  }

  /** Pools of such drivers lie at their own path by default; those of others are made on files. */
  #isDirectory(driver: string): boolean {
    const { configKeys } = this.#module(driver);
    return Object.hasOwn(configKeys, 'source') && !Object.hasOwn(configKeys, 'size');
  }

  #validate(driver: string, config: ConfigMap): void {
    const module = this.#module(driver);
    for (const key of Object.keys(config)) {
      if (!key.startsWith('user.') && !Object.hasOwn(module.configKeys, key)) {
        throw new AppError('invalid', `Invalid option "${key}"`);
      }
    }
    checkRsyncSettings(config);
    checkVolumeDefaults(config);
    module.checkConfig?.(config);
    for (const [key, check] of Object.entries(module.volumeKeys ?? {})) check(config[`volume.${key}`] ?? '');
  }

  #module(driver: string): StorageModule {
    const module = Object.hasOwn(this.#modules, driver) ? this.#modules[driver] : undefined;
    if (!module) throw new AppError('internal', 'Unknown driver');
    return module;
  }

  #driverOf({ name, driver, config }: NewPool): StorageDriver {
    const { host, log, paths } = this.#context;
    const poolPath = this.path(name);
    const given = this.#given(name, driver, config);
    const disksPath = paths.disks;
    const defaultIdMap = this.#defaultIdMap;
    const module = this.#module(driver);
    const own = module.create({ host, log, pool: name, poolPath, disksPath, config: given, defaultIdMap });
    const made = this.#open.watched(name, own);
    this.#configs.set(made, given);
    return made;
  }

  /** A record made by us names the default place; the driver knows its default by the absence of the key. */
  #given(name: string, driver: string, config: ConfigMap): Record<string, string> {
    const isDefault = this.#isDirectory(driver) && config['source'] === this.path(name);
    return Object.fromEntries(Object.entries(config).filter(([key]) => key !== 'source' || !isDefault));
  }

  #reconfigure(driver: StorageDriver, config: ConfigMap): void {
    const current = this.#configs.get(driver) ?? {};
    for (const key of Object.keys(current)) if (!(key in config)) delete current[key];
    Object.assign(current, config);
  }

  #isChangeable(driver: string, key: string): boolean {
    return /^(?:user|volume|rsync)\./u.test(key) || this.#module(driver).changeableKeys?.includes(key) === true;
  }

  /** Where it is mounted or lies. */
  path(name: string): string {
    return join(this.#context.paths.storagePools, name);
  }

  async #openPool(pool: PoolRecord, signal: AbortSignal): Promise<boolean> {
    try {
      const driver = this.#driverOf(pool);
      await driver.openPool(signal);
      this.#open.set(pool.name, driver);
      return true;
    } catch (error) {
      this.#open.warn(pool.name, error);
      return false;
    }
  }

  async #openMissing(): Promise<void> {
    for (const { name, ...pool } of this.list()) {
      if (this.isOpen(name) || this.#open.isLost(name) || this.#context.locks.isBusy(`pool/${name}`)) continue;
      const isOpen = await this.#openPool({ name, ...pool }, limited(RETRY.mostMs, this.#stopping.signal));
      if (isOpen) await this.#open.tellReturn(name);
    }
  }
}
