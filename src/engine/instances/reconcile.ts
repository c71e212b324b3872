// Brings rows and kernel together at the start of the daemon: containers that run are found again, those that died are
// stopped, half-done steps are undone.
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RuntimeDriver, RuntimeState } from '#drivers/runtime/driver.ts';
import { isUnfinished } from '#src/host/unfinished.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { moveDirectories, removeDirectories } from './changes.ts';
import { expander } from './expansion.ts';
import { hostName, instancePaths, lockKey, rootVolume, type InstanceKey } from './instance-paths.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import type { Life, Supervisor } from './supervisor.ts';
import { cpuLimit } from './limits.ts';
import type { InstanceRoots } from './instance-roots.ts';
import type { LiveChanges } from './live-changes.ts';
import type { InstanceNics } from './nics.ts';
import type { SavedStates } from './saved-states.ts';
import { cleanStaging } from './staging.ts';
import { linkInstance, linkRoots } from './root-links.ts';
import { settleStep } from './settle-steps.ts';
import { endTransition, readTransition, type Transition } from './transition.ts';

export interface ReconcileParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly supervisor: Supervisor;
  readonly lifecycle: InstanceLifecycle;
  readonly live: LiveChanges;
  readonly nics: InstanceNics;
  readonly roots: InstanceRoots;
  readonly states: SavedStates;
}

/** One instance that cannot be reconciled does not keep the others. */
export async function reconcileInstances(parts: ReconcileParts, signal: AbortSignal): Promise<void> {
  await cleanStaging(parts.context);
  await settleTransitions(parts, signal);
  const records = parts.context.database.instances.list();
  await parts.roots.sweep(records);
  for (const record of records) await guarded(parts, record, () => linkInstance(parts.context.paths, record));
  await Promise.all(records.map((record) => guarded(parts, record, () => reconcileOne(parts, record, signal))));
  await restoreFilters(parts, signal);
}

/** Containers run on without them, and say so. */
async function restoreFilters({ context, nics, supervisor }: ReconcileParts, signal: AbortSignal): Promise<void> {
  const expand = expander(context.database);
  const running = context.database.instances.list().filter(({ id }) => supervisor.status(id) !== 'Stopped');
  try {
    const owners = running.map((record) => ({ ...record, devices: expand(record).devices }));
    await nics.restoreFilters(owners, signal);
  } catch (error) {
    signal.throwIfAborted();
    context.log.error('filters of nics could not be restored', { error });
  }
}

async function guarded({ context }: ReconcileParts, record: InstanceRecord, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    context.log.error('an instance could not be reconciled', { instance: record.name, error });
  }
}

/** By the holder of its lock, or before anybody else is there. */
export async function reconcileOne(parts: ReconcileParts, record: InstanceRecord, signal: AbortSignal): Promise<void> {
  const { context, runtime, supervisor, lifecycle } = parts;
  const { container } = instancePaths(context.paths, record);
  const state = await runtime.state(container, signal).catch((): RuntimeState => 'running');
  if (state !== 'stopped') {
    const expanded = expander(context.database)(record);
    const life = supervisor.attach(record, {
      container,
      status: state === 'frozen' || state === 'freezing' ? 'Frozen' : 'Running',
      cpuLimit: cpuLimit(expanded.config),
    });
    if (record.stateful) await parts.states.forget(record);
    await adopt(parts, record);
    await parts.live.settle(record, life, expanded, signal);
    return lifecycle.resume(record, life, signal);
  }
  if (record.config['volatile.last_state.power'] !== 'RUNNING') {
    await parts.states.adopt(record);
    await lifecycle.forgetStart(record);
    return lifecycle.tidy(record);
  }
  const dead: Life = {
    id: record.id,
    key: record,
    container,
    ended: Promise.resolve(),
    status: 'Running',
    pid: undefined,
    gone: true,
    awaited: true,
    shuttingDown: false,
    cpuLimit: undefined,
    cpus: undefined,
  };
  await lifecycle.finish(record, dead);
  const { name, project } = record;
  context.events.lifecycle({ action: 'instance-shutdown', source: `/1.0/instances/${name}`, project });
}

/** What stays goes with the container. */
async function adopt({ context, runtime }: ReconcileParts, record: InstanceRecord): Promise<void> {
  try {
    await runtime.adopt(instancePaths(context.paths, record).container);
  } catch (error) {
    context.log.warn('a container that runs could not be taken up whole', { instance: record.name, error });
  }
}

/** What a daemon that was killed between pool and database left. */
async function settleTransitions(parts: ReconcileParts, signal: AbortSignal): Promise<void> {
  const { context } = parts;
  const names = await readdir(context.paths.instances).catch(() => []);
  for (const directory of names) {
    const key = keyOf(directory);
    await guardedStep(context, directory, async () => {
      await removeUnfinished(context, key);
      const transition = await readTransition(context.host, instancePaths(context.paths, key));
      if (transition?.frozen === true) await letGoOn(parts, key, signal);
      if (transition) await settle(context, { key, transition }, signal);
      else await removeUnbegun(context, key);
    });
  }
}

/** What could not be settled at the start because this pool was away. Who holds the lock of an instance is still at it. */
export async function settleLate({ context }: Pick<ReconcileParts, 'context'>, pool: string, signal: AbortSignal) {
  const { host, locks, paths } = context;
  for (const directory of await readdir(paths.instances)) {
    const key = keyOf(directory);
    const work = async (): Promise<void> => {
      const transition = await readTransition(host, instancePaths(paths, key));
      if (transition?.pool === pool) await settle(context, { key, transition }, signal);
    };
    await guardedStep(context, directory, () => locks.run(lockKey(key), work, signal));
  }
}

async function guardedStep({ log }: EngineContext, instance: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    log.error('a half-done step could not be settled', { instance, error });
  }
}

/** A container that was held still for a step that nobody does any more. */
async function letGoOn({ context, runtime }: ReconcileParts, key: InstanceKey, signal: AbortSignal): Promise<void> {
  const { container } = instancePaths(context.paths, key);
  if ((await runtime.state(container, signal)) === 'frozen') await runtime.unfreeze(container, signal);
}

/** What was being written when the daemon was killed. */
async function removeUnfinished({ paths }: EngineContext, key: InstanceKey): Promise<void> {
  const { home } = instancePaths(paths, key);
  for (const entry of await readdir(home)) if (isUnfinished(entry)) await rm(join(home, entry));
}

/** A directory whose note was not even written: nothing else can have been made for it. */
async function removeUnbegun({ paths, database }: EngineContext, key: InstanceKey): Promise<void> {
  if (database.instances.find(key.project, key.name)) return;
  const { home } = instancePaths(paths, key);
  const entries = await readdir(home);
  if (entries.every((entry) => entry.startsWith('.'))) await rm(home, { recursive: true });
}

/** PROJECT_NAME; names have no "_". */
function keyOf(directory: string): InstanceKey {
  const at = directory.lastIndexOf('_');
  if (at < 0) return { project: 'default', name: directory };
  return { project: directory.slice(0, at), name: directory.slice(at + 1) };
}

interface Found {
  readonly key: InstanceKey;
  readonly transition: Transition;
}

async function settle(context: EngineContext, { key, transition }: Found, signal: AbortSignal): Promise<void> {
  const { database, log, paths } = context;
  const place = instancePaths(paths, key);
  const record = database.instances.find(key.project, key.name);
  const published = record !== undefined;
  log.warn('settling what a killed daemon left half-done', {
    instance: hostName(key),
    kind: transition.kind,
    published,
  });
  if (transition.kind === 'rename') {
    const from = keyOf(transition.from);
    if (record) return moveDirectories(context, from, key);
    const storage = context.pools.driver(transition.pool);
    const volumes = await storage.listVolumes('container', signal);
    if (volumes.includes(hostName(key))) await storage.renameVolume(rootVolume(key), transition.from, signal);
    await rm(place.home, { recursive: true, force: true });
    return;
  }
  if (record) {
    await settleStep(context, record, transition, signal);
    if (transition.kind === 'delete') return;
    await linkRoots(context, record);
    return endTransition(place);
  }
  await context.pools.driver(transition.pool).deleteVolume(rootVolume(key), signal);
  await removeDirectories(context, key);
}
