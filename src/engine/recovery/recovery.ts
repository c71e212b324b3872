// Takes over what pools hold and the database does not know, as `lxd recover` has it: first a look, then rows for what was found. Nothing
// in a pool is changed.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { BackedUpInstance } from '../backups/read-index.ts';
import type { EngineContext } from '../context.ts';
import { type NewInstance, ZERO_TIME } from '../db/records.ts';
import type { Unowned } from '../instances/copy.ts';
import { supported } from '../instances/inheritance.ts';
import { hostName, instancePaths, lockKey } from '../instances/instance-paths.ts';
import { validateInstanceName } from '../instances/names.ts';
import { withoutLife } from '../instances/nics.ts';
import { devicesOnPool } from '../instances/restore.ts';
import { linkRoots } from '../instances/root-links.ts';
import { copySnapshotFiles } from '../instances/snapshot-files.ts';
import { adoptFiles } from '../instances/staging.ts';
import { validateSnapshotName } from '../snapshots/names.ts';
import type { NewPool, StoragePools } from '../storage/storage-pools.ts';
import type { InstancesPart } from '../types.ts';
import { ownersOf } from '../storage/copy-volume.ts';
import type { ConfigMap } from '../types.ts';
import { lockKey as volumeLock, urlOf } from '../volumes/custom-volumes.ts';
import { withOwners } from '../volumes/volume-owners.ts';
import { validateVolumeName } from '../volumes/volume-config.ts';
import { type Found, type FoundInstance, type FoundVolume, scanPool } from './scan.ts';

export interface UnknownVolume {
  readonly name: string;
  readonly type: 'container' | 'custom';
  readonly snapshotCount: number;
  readonly project: string;
  readonly pool: string;
}

export interface Findings {
  readonly volumes: readonly UnknownVolume[];
  /** What has to be there before, in words. */
  readonly missing: readonly string[];
}

export interface RecoveryParts {
  readonly context: EngineContext;
  readonly pools: StoragePools;
  readonly instances: Pick<InstancesPart, 'rules' | 'adopt'>;
}

export class Recovery {
  readonly #parts: RecoveryParts;

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
  }

  /** Of pools that the database has the name is enough. */
  async validate(pools: readonly NewPool[], signal: AbortSignal): Promise<Findings> {
    const found = await this.#scan(pools, signal);
    return {
      volumes: found.flatMap(({ pool, instances, volumes }) => [
        ...instances.map(({ project, name, snapshots }) => {
          return { name, type: 'container', snapshotCount: snapshots.length, project, pool: pool.name } as const;
        }),
        ...volumes.map(({ project, name, snapshots }) => {
          return { name, type: 'custom', snapshotCount: snapshots.length, project, pool: pool.name } as const;
        }),
      ]),
      missing: this.#missing(found),
    };
  }

  /** AppError 'invalid', before anything is done, while something is missing. Safe to call again. */
  async import(pools: readonly NewPool[], signal: AbortSignal): Promise<void> {
    const found = await this.#scan(pools, signal);
    const missing = this.#missing(found);
    if (missing.length > 0) throw new AppError('invalid', `Cannot recover: ${missing.join('; ')}`);
    for (const { pool, storage, isNew, instances, volumes } of found) {
      const noted = instances.find(({ index }) => index.poolNotes)?.index.poolNotes;
      if (isNew) await this.#parts.pools.adopt(pool, { storage, ...(noted && { noted }) }, signal);
      for (const volume of volumes) await this.#importVolume(pool.name, volume, signal);
      for (const instance of instances) await this.#importInstance(pool.name, instance, signal);
    }
  }

  async #scan(pools: readonly NewPool[], signal: AbortSignal): Promise<readonly Found[]> {
    const found: Found[] = [];
    for (const pool of pools) {
      const opened = await this.#parts.pools.openUnknown(pool, signal);
      found.push(await scanPool(this.#parts.context, opened, signal));
    }
    return found;
  }

  #missing(found: readonly Found[]): readonly string[] {
    const { database } = this.#parts.context;
    const new_ = new Set(found.map(({ pool }) => pool.name));
    const complaints = found.flatMap(({ complaints, volumes, instances, pool }) => [
      ...complaints,
      ...[...volumes, ...instances].flatMap(({ project }) =>
        database.projects.find(project) ? [] : [`Project "${project}"`],
      ),
      ...volumes.flatMap((volume) =>
        this.#complaint(volume.name, pool.name, () => {
          validateVolumeName(volume.name);
          for (const name of volume.snapshots) validateSnapshotName(name);
        }),
      ),
      ...instances.flatMap((instance) => this.#missingOf(instance, pool.name, new_)),
    ]);
    return [...new Set(complaints)];
  }

  #missingOf(found: FoundInstance, pool: string, pools: ReadonlySet<string>): readonly string[] {
    const { context, instances } = this.#parts;
    const { rules } = instances;
    const { database } = context;
    const { instance } = found.index;
    if (!instance) return [`Instance "${found.name}" on pool "${pool}": its record says nothing of it`];
    if (!database.projects.find(found.project)) return [];
    const profiles = instance.profiles.filter((name) => !database.profiles.find(found.project, name));
    const disks = Object.values(instance.devices).flatMap(({ type, pool: used }) =>
      type === 'disk' && used ? [used] : [],
    );
    const lost = disks.filter((name) => !database.pools.find(name) && !pools.has(name));
    const missing = [
      ...profiles.map((name) => `Profile "${name}" in project "${found.project}"`),
      ...lost.map((name) => `Storage pool "${name}"`),
    ];
    if (missing.length > 0) return missing;
    return this.#complaint(found.name, pool, () => {
      validateInstanceName(found.name);
      if (database.instances.find(found.project, found.name)) {
        throw new AppError('conflict', 'Another instance has its name');
      }
      supported(instance.architecture);
      for (const name of found.snapshots) validateSnapshotName(name);
      rules.validateConfig(instance.config, { profile: false });
      rules.validateDevices(instance.devices, { profile: false, project: found.project });
    });
  }

  #complaint(name: string, pool: string, check: () => void): readonly string[] {
    try {
      check();
      return [];
    } catch (error) {
      return [`"${name}" on pool "${pool}": ${messageOf(error)}`];
    }
  }

  async #importVolume(pool: string, found: FoundVolume, signal: AbortSignal): Promise<void> {
    const { database, locks, events } = this.#parts.context;
    const { project, name, hostName, snapshots } = found;
    const key = { pool, project, name };
    await locks.run(
      volumeLock(key),
      async () => {
        const times = { createdAt: new Date().toISOString(), expiresAt: ZERO_TIME };
        const content = { description: '', pending: '' } as const;
        const config = await this.#ownersIn(pool, found, signal);
        database.transaction(() => {
          const row = { ...key, ...content, hostName, config: config(undefined), createdAt: times.createdAt };
          const { id: volumeId } = database.volumes.create(row);
          for (const one of snapshots) {
            const named = { name: one, hostName: one, config: config(one) };
            database.volumeSnapshots.create({ ...content, ...times, ...named, volumeId });
          }
        });
      },
      signal,
    );
    events.lifecycle({ action: 'storage-volume-created', source: urlOf(key), project, context: { type: 'custom' } });
  }

  /** All that is known of the configuration of a volume and its snapshots. */
  async #ownersIn(
    pool: string,
    { hostName: name, snapshots }: FoundVolume,
    signal: AbortSignal,
  ): Promise<(snapshot: string | undefined) => ConfigMap> {
    const { pools, log } = this.#parts.context;
    const volume = { kind: 'custom', name, forReading: true } as const;
    const source = { storage: pools.driver(pool), volume, idMap: null };
    const configs = new Map<string | undefined, ConfigMap>();
    for (const one of [...snapshots, undefined]) {
      configs.set(one, withOwners({}, await ownersOf(source, one, { log, signal })));
    }
    return (snapshot) => configs.get(snapshot) ?? {};
  }

  async #importInstance(pool: string, found: FoundInstance, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const { project, name, index, snapshots } = found;
    const { instance } = index;
    if (!instance) throw new AppError('internal', 'An instance without a record passed the check');
    await context.locks.run(
      lockKey(found),
      async () => {
        await this.#takeFiles(pool, found, signal);
        const row = this.#row(pool, found, instance);
        context.database.transaction(() => {
          const { id: instanceId } = context.database.instances.create(row);
          for (const snapshot of snapshots) {
            context.database.snapshots.create({ ...this.#snapshotRow(snapshot, row, index.snapshotRows), instanceId });
          }
        });
        await linkRoots(context, found);
      },
      signal,
    );
    const details = { 'storage-pool': pool, type: 'container' };
    context.events.lifecycle({
      action: 'instance-created',
      source: `/1.0/instances/${name}`,
      project,
      context: details,
    });
    await this.#parts.instances.adopt(found, signal);
  }

  async #takeFiles(pool: string, found: FoundInstance, signal: AbortSignal): Promise<void> {
    const { host, paths, pools } = this.#parts.context;
    const { home, snapshots } = instancePaths(paths, found);
    const take = (directory: string): Promise<void> => adoptFiles(host, directory, home);
    await pools.driver(pool).withFolder?.(hostName(found), take, signal);
    for (const snapshot of found.snapshots) await copySnapshotFiles(host, home, join(snapshots, snapshot));
  }

  #row(pool: string, { project, name, index }: FoundInstance, instance: BackedUpInstance): NewInstance {
    const { context } = this.#parts;
    const { config, devices, profiles, ephemeral, description } = instance;
    const lasting = Object.entries(withoutLife(config)).filter(([key]) => !key.startsWith('volatile.last_state.'));
    const uuid = config['volatile.uuid'] ?? randomUUID();
    return {
      project,
      name,
      uuid,
      type: 'container',
      architecture: instance.architecture,
      ephemeral,
      stateful: false,
      description,
      config: { ...Object.fromEntries(lasting), 'volatile.uuid': uuid, 'volatile.last_state.idmap': '[]' },
      devices: devicesOnPool(context, { project, profiles, config, devices }, pool),
      profiles,
      pool,
      createdAt: index.createdAt,
      lastUsedAt: index.lastUsedAt,
    };
  }

  /** A snapshot that the record does not know was taken at its last moment: it has the instance's own settings. */
  #snapshotRow(name: string, row: NewInstance, known: readonly Unowned[]): Unowned {
    const found = known.find((snapshot) => snapshot.name === name);
    if (found) return found;
    const { architecture, config, devices, profiles, ephemeral, description } = row;
    const times = { createdAt: new Date().toISOString(), lastUsedAt: row.lastUsedAt, expiresAt: ZERO_TIME };
    return { name, architecture, config, devices, profiles, ephemeral, description, stateful: false, ...times };
  }
}
