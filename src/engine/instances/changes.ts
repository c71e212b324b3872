// Changes of an instance's record: configuration, devices, profiles, name; and its end.
import { rename, rm } from 'node:fs/promises';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { removeBackups } from '../backups/backup-files.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap, DeviceMap, InstanceRules } from '../types.ts';
import { changedCloudInitId, freshCloudInitId } from './cloud-init-id.ts';
import { validateExpanded } from './config-rules.ts';
import { rootDisk, rootDisks } from './disks.ts';
import type { InstanceDevices } from './devices.ts';
import type { Devlxd } from './devlxd.ts';
import { expander, type Expanded, type FormerProfile, type Unexpanded } from './expansion.ts';
import type { InstanceIds } from './instance-ids.ts';
import { hostName, instancePaths, rootVolume, type InstanceKey } from './instance-paths.ts';
import { refuseLent } from './lent-roots.ts';
import type { LiveChanges } from './live-changes.ts';
import { missingVolatile } from './nics.ts';
import type { InstanceContent } from './requests.ts';
import { eraseSnapshot, type InstanceSnapshots } from './snapshots.ts';
import type { Supervisor } from './supervisor.ts';
import { linkRoots, removeHome } from './root-links.ts';
import { endTransition, noteRemoval, noteTransition } from './transition.ts';
import { parseBoolean } from './values.ts';
import { withoutEmpty, withoutStale } from './volatile-keys.ts';

const UNDO_LIMIT_MS = 120_000;

export interface ChangeParts {
  readonly context: EngineContext;
  readonly rules: InstanceRules;
  readonly supervisor: Supervisor;
  readonly devices: InstanceDevices;
  readonly live: LiveChanges;
  readonly devlxd: Devlxd;
  readonly snapshots: InstanceSnapshots;
  readonly ids: Pick<InstanceIds, 'changed'>;
}

interface Change {
  readonly record: InstanceRecord;
  readonly config: ConfigMap;
  readonly before: Expanded;
  readonly after: Expanded;
}

/** Called by the holder of the instance's lock. */
export class InstanceChanges {
  readonly #parts: ChangeParts;

  constructor(parts: ChangeParts) {
    this.#parts = parts;
  }

  /** Replaces what clients may change. A running container is given at once what it can take; the rest waits for its next start. */
  async update(record: InstanceRecord, content: InstanceContent, signal: AbortSignal): Promise<void> {
    const { context, supervisor } = this.#parts;
    const running = supervisor.status(record.id) !== 'Stopped';
    const kept = keepVolatile(record.config, content.config, running);
    this.#validateLocal(record.project, kept, content.devices);
    const before = expander(context.database)(record);
    const after = this.#validateExpanded({ ...content, project: record.project, config: kept });
    context.gate.changedInstance(record.project, { ...content, name: record.name, config: kept }, record.config);
    const fresh = withoutStale(kept, before.devices, after.devices);
    const ids = await this.#idsOf(record, before, after);
    const fill = { ...missingVolatile(after.devices, fresh), ...changedCloudInitId(before, after, kept) };
    const config = { ...fresh, ...fill, ...ids };
    const changed = changedDevices(before.devices, after.devices);
    context.networks.checkChange({ ...record, config, devices: after.devices }, changed);
    const store = (volatile: ConfigMap): void => {
      const whole = { ...config, ...volatile };
      context.database.instances.update(record.id, {
        config: withoutEmpty(whole, volatile),
        devices: content.devices,
        ephemeral: content.ephemeral,
        profiles: content.profiles,
        description: content.description,
      });
    };
    await this.#apply({ record, config, before, after }, store, signal);
    this.#publish('instance-updated', record);
  }

  /** After a profile of the instance was changed: `former` is how it was. */
  async profileChanged(record: InstanceRecord, former: FormerProfile, signal: AbortSignal): Promise<void> {
    const { context, rules } = this.#parts;
    const before = expander(context.database, former)(record);
    const after = this.#validateExpanded(record);
    rules.validateDevices(after.devices, { profile: false, project: record.project });
    const fresh = withoutStale(record.config, before.devices, after.devices);
    const ids = await this.#idsOf(record, before, after);
    const missing = {
      ...ids,
      ...missingVolatile(after.devices, fresh),
      ...changedCloudInitId(before, after, record.config),
    };
    const store = (volatile: ConfigMap): void => {
      const now = context.database.instances.get(record.project, record.name).config;
      const whole = { ...withoutStale(now, before.devices, after.devices), ...missing, ...volatile };
      context.database.instances.update(record.id, { config: withoutEmpty(whole, volatile) });
    };
    await this.#apply({ record, config: { ...fresh, ...missing }, before, after }, store, signal);
  }

  async #idsOf(record: InstanceRecord, before: Expanded, after: Expanded): Promise<ConfigMap> {
    try {
      return await this.#parts.ids.changed(record, before.config, after.config);
    } catch (cause) {
      throw new AppError(kindOf(cause), `Failed to get ID map: ${messageOf(cause)}`, { cause });
    }
  }

  async #apply(change: Change, store: (volatile: ConfigMap) => void, signal: AbortSignal): Promise<void> {
    const { context, supervisor, live, devices } = this.#parts;
    const { record, before, after } = change;
    const life = supervisor.life(record.id);
    await devices.check(changedDevices(before.devices, after.devices), 'Failed add validation for');
    await using revert = new Reverter(context.log);
    await this.#resizeRoot(record, before.devices, after.devices, signal);
    revert.add('size of the root disk', () => {
      return this.#resizeRoot(record, after.devices, before.devices, AbortSignal.timeout(UNDO_LIMIT_MS));
    });
    await this.#publishNics(change, revert, life !== undefined);
    if (life) await live.apply({ ...change, life }, store, signal);
    else store({});
    revert.commit();
    this.#parts.devlxd.changed(record, before, after);
  }

  /** Before a nic can ask for its address. */
  async #publishNics({ record, config, before, after }: Change, revert: Reverter, running: boolean): Promise<void> {
    const { networks } = this.#parts.context;
    const next = { ...record, config, devices: after.devices };
    if (running) networks.checkStart(next);
    revert.add('nics on networks', () => networks.publish({ ...record, devices: before.devices }));
    await networks.publish(next);
  }

  #validateLocal(project: string, config: ConfigMap, devices: DeviceMap): void {
    const { rules } = this.#parts;
    withPrefix('Invalid config: ', () => rules.validateConfig(config, { profile: false }));
    withPrefix('Invalid devices: ', () => rules.validateDevices(devices, { profile: false, project }));
  }

  #validateExpanded(instance: Unexpanded) {
    const expanded = expander(this.#parts.context.database)(instance);
    withPrefix('Invalid expanded config: ', () => {
      this.#parts.rules.validateConfig(expanded.config, { profile: false });
    });
    withPrefix('Invalid expanded devices: ', () => {
      validateExpanded(expanded.devices);
      const root = withPrefix('Failed detecting root disk device: ', () => rootDisk(expanded.devices));
      if (root.fill) throw new AppError('invalid', 'A device is filled at the creation of an instance only');
    });
    return expanded;
  }

  async #resizeRoot(record: InstanceRecord, before: DeviceMap, after: DeviceMap, signal: AbortSignal): Promise<void> {
    const root = rootDisk(after);
    if (root.pool !== record.pool) {
      throw new AppError('invalid', `Cannot update root disk device pool name to "${root.pool}"`);
    }
    const former = rootDisks(before);
    if (former.length === 1 && former[0]?.sizeBytes === root.sizeBytes) return;
    const storage = this.#parts.context.pools.driver(record.pool);
    if (storage.info.quotas) await storage.resizeVolume(rootVolume(record), root.sizeBytes, signal);
  }

  /** The instance is stopped. A note on disk tells a later daemon which of pool and database is ahead. */
  async rename(
    record: InstanceRecord,
    to: InstanceKey,
    { template }: { readonly template: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const { context } = this.#parts;
    const { database, host } = context;
    refuseLent(this.#parts, record);
    if (database.instances.find(to.project, to.name)) {
      throw new AppError('conflict', `Name "${to.name}" already in use`);
    }
    const storage = context.pools.driver(record.pool);
    const from = { project: record.project, name: record.name };
    const newPaths = instancePaths(context.paths, to);
    await using revert = new Reverter(context.log);

    await noteTransition(host, newPaths, { kind: 'rename', pool: record.pool, from: hostName(from) });
    revert.add('note', () => rm(newPaths.home, { recursive: true, force: true }));
    await storage.renameVolume(rootVolume(from), hostName(to), signal);
    revert.add('volume', () => {
      return storage.renameVolume(rootVolume(to), hostName(from), AbortSignal.timeout(UNDO_LIMIT_MS));
    });
    database.transaction(() => {
      database.instances.rename(record.id, to);
      const config = {
        ...record.config,
        ...(template && { 'volatile.apply_template': 'rename' }),
        ...(to.name !== from.name && freshCloudInitId()),
      };
      database.instances.update(record.id, { config, profiles: record.profiles });
    });
    revert.commit();
    await moveDirectories(context, from, to);
    await context.networks.withdraw(from);
    await publishNics(context, { ...record, ...to });
    this.#publish('instance-renamed', { ...record, ...to }, { old_name: record.name });
  }

  /** The instance is stopped. */
  async remove(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const config = expander(context.database)(record).config;
    if (parseBoolean(config['security.protection.delete'])) throw new AppError('forbidden', 'Instance is protected');
    refuseLent(this.#parts, record);
    await this.#parts.supervisor.sessions.dismiss(record.id);
    const paths = instancePaths(context.paths, record);
    await noteRemoval(context, paths, { kind: 'delete', pool: record.pool });
    try {
      await eraseInstance(context, record, signal);
    } catch (error) {
      // It is there, and whoever has it may use it; it can be deleted again.
      await endTransition(paths);
      throw error;
    }
    this.#publish('instance-deleted', record);
  }

  /** Row by row, newest first: until the last one is gone they can be deleted again. */
  async removeSnapshots(record: InstanceRecord, signal: AbortSignal): Promise<void> {
    for (const snapshot of this.#parts.snapshots.list(record).toReversed()) {
      await this.#parts.snapshots.removeOne({ record, snapshot }, signal);
    }
  }

  #publish(action: string, { project, name }: InstanceKey, details?: Readonly<Record<string, unknown>>): void {
    const { events } = this.#parts.context;
    events.lifecycle({ action, source: `/1.0/instances/${name}`, project, ...(details && { context: details }) });
  }
}

/** Of an instance as it is in the database. */
export function publishNics({ networks, database }: EngineContext, record: InstanceRecord): Promise<void> {
  return networks.publish({ ...record, devices: expander(database)(record).devices });
}

/**
 * Snapshot by snapshot, newest first, and the row last: until then another request, or a later daemon, can go on. The note of it is in
 * the directory that goes after the row.
 */
export async function eraseInstance(
  context: EngineContext,
  record: InstanceRecord,
  signal: AbortSignal,
): Promise<void> {
  const { database, events, paths } = context;
  const { name, project } = record;
  for (const snapshot of database.snapshots.list(record.id).toReversed()) {
    await eraseSnapshot(context, { record, snapshot }, signal);
    const source = `/1.0/instances/${name}/snapshots/${encodeURIComponent(snapshot.name)}`;
    events.lifecycle({ action: 'instance-snapshot-deleted', source, project });
  }
  await context.pools.driver(record.pool).deleteVolume(rootVolume(record), signal);
  await removeBackups(context, record);
  const { logs, snapshots } = instancePaths(paths, record);
  for (const path of [snapshots, logs]) await rm(path, { recursive: true, force: true });
  database.instances.delete(record.id);
  await removeHome(paths, record);
  await context.networks.withdraw(record);
}

export async function removeDirectories({ paths }: Pick<EngineContext, 'paths'>, key: InstanceKey): Promise<void> {
  const { logs, snapshots } = instancePaths(paths, key);
  await rm(snapshots, { recursive: true, force: true });
  await rm(logs, { recursive: true, force: true });
  await removeHome(paths, key);
}

/** Puts the directories of `from` where the note of the rename is. Idempotent: a later daemon may have to go on. */
export async function moveDirectories(
  context: Pick<EngineContext, 'paths' | 'host' | 'database'>,
  from: InstanceKey,
  to: InstanceKey,
): Promise<void> {
  const { paths, host } = context;
  const old = instancePaths(paths, from);
  const next = instancePaths(paths, to);
  for (const kind of ['logs', 'snapshots'] as const) {
    if (!(await host.exists(old[kind]))) continue;
    await rm(next[kind], { recursive: true, force: true });
    await rename(old[kind], next[kind]);
  }
  // The note goes with this step, so it is the last.
  if (await host.exists(old.home)) {
    await linkRoots(context, to);
    await rm(old.link, { force: true });
    // In one step: the note is then where nothing else is, and says that this place has to go.
    await host.exchange(old.home, next.home);
    await rm(old.home, { recursive: true, force: true });
  }
  await rm(next.transition, { force: true });
}

/** Of a running instance volatile keys that the request leaves out stay: the end of its life needs them. */
function keepVolatile(before: ConfigMap, wanted: ConfigMap, running: boolean): ConfigMap {
  const volatile = Object.entries(before).filter(([key]) => key.startsWith('volatile.'));
  if (running) return { ...Object.fromEntries(volatile), ...wanted };
  for (const [key] of volatile) {
    if (key.startsWith('volatile.idmap.') && !(key in wanted)) {
      throw new AppError('invalid', "Volatile idmap keys can't be deleted by the user");
    }
  }
  return wanted;
}

function changedDevices(before: DeviceMap, after: DeviceMap): DeviceMap {
  return Object.fromEntries(
    Object.entries(after).filter(([name, device]) => {
      const old = before[name] ?? {};
      return [...Object.keys(old), ...Object.keys(device)].some((option) => old[option] !== device[option]);
    }),
  );
}

function withPrefix<T>(prefix: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new AppError(kindOf(cause), `${prefix}${messageOf(cause)}`, { cause });
  }
}
