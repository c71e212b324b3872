// Brings an instance back to one of its snapshots: root, configuration, devices and profiles.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { EngineContext } from '../context.ts';
import { recordNewContent } from '../recovery/instance-records.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { refuseOnBlock } from './block-rules.ts';
import { rootDisk } from './disks.ts';
import { expander } from './expansion.ts';
import { publishNics } from './changes.ts';
import { instancePaths, lockKey, rootVolume, STATE } from './instance-paths.ts';
import { refuseLent } from './lent-roots.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { withoutLife } from './nics.ts';
import { operationSpec } from './operation-spec.ts';
import { copyState, forgetState, type SavedStates } from './saved-states.ts';
import { copySnapshotFiles } from './snapshot-files.ts';
import type { InstanceSnapshots, SnapshotOf } from './snapshots.ts';
import type { Life, Supervisor } from './supervisor.ts';
import { endTransition, noteTransition } from './transition.ts';
import { whileStopped } from './while-stopped.ts';

const START_LIMIT_MS = 120_000;

export interface RestoreParts {
  readonly context: EngineContext;
  readonly supervisor: Supervisor;
  readonly lifecycle: InstanceLifecycle;
  readonly snapshots: InstanceSnapshots;
  readonly states: SavedStates;
}

export class InstanceRestore {
  readonly #parts: RestoreParts;

  constructor(parts: RestoreParts) {
    this.#parts = parts;
  }

  /** An operation. `name` may begin with the instance's own: c1/snap0. */
  start(record: InstanceRecord, name: string, { stateful }: { readonly stateful: boolean }): string {
    const { context, snapshots } = this.#parts;
    const own = name.startsWith(`${record.name}/`) ? name.slice(record.name.length + 1) : name;
    const { stateful: hasState } = snapshots.get(record, own);
    if (stateful && !hasState) {
      throw new AppError('invalid', 'Stateful snapshot restore requested but snapshot is stateless');
    }
    const spec = operationSpec('Restoring snapshot', record.project, [record.name]);
    return context.operations.start(spec, ({ signal }) => {
      const work = (): Promise<void> => {
        const current = context.database.instances.get(record.project, record.name);
        return this.#restore({ record: current, snapshot: snapshots.get(current, own), stateful }, signal);
      };
      return context.locks.run(lockKey(record), work, signal);
    });
  }

  /** A running instance is stopped, and started again whether or not the restore worked. */
  async #restore(target: RestoreTarget, signal: AbortSignal): Promise<void> {
    const { context, supervisor, lifecycle, states } = this.#parts;
    const { record, snapshot, stateful } = target;
    if (stateful) await states.require(record, 'Unable to restore the snapshot statefully', signal);
    for (const profile of snapshot.profiles) context.database.profiles.get(record.project, profile);
    refuseLent(this.#parts, record);
    refuseOnBlock(record, 'restored');
    await this.#makeWay(target, signal);
    const life: Life | undefined = supervisor.life(record.id);
    if (!life && !stateful) return this.#restoreStopped(target, signal);
    await whileStopped(context, record, async () => {
      if (life) await lifecycle.kill(record, life);
      try {
        await this.#restoreStopped(target, signal);
      } catch (error) {
        if (life) await this.#startAgain(record);
        throw error;
      }
      const restored = context.database.instances.get(record.project, record.name);
      await lifecycle.start(restored, signal, { stateful: restored.stateful });
    });
  }

  async #restoreStopped(target: RestoreTarget, signal: AbortSignal): Promise<void> {
    const { context, supervisor } = this.#parts;
    const { record, snapshot } = target;
    await supervisor.sessions.dismiss(record.id);
    await this.#replace(target, signal);
    const { name, project } = record;
    const details = { snapshot: snapshot.name };
    context.events.lifecycle({
      action: 'instance-restored',
      source: `/1.0/instances/${name}`,
      project,
      context: details,
    });
  }

  /** Of a driver that cannot keep later snapshots: they go when the pool's configuration says so. */
  async #makeWay({ record, snapshot }: SnapshotOf, signal: AbortSignal): Promise<void> {
    const { context, snapshots } = this.#parts;
    const storage = context.pools.driver(record.pool);
    const later = await storage.laterSnapshots?.(rootVolume(record), snapshot.name, signal);
    if (!later || later.names.length === 0) return;
    if (!later.mayGo) throw new AppError('invalid', later.why);
    for (const name of later.names)
      await snapshots.removeOne({ record, snapshot: snapshots.get(record, name) }, signal);
  }

  async #startAgain({ project, name }: InstanceRecord): Promise<void> {
    const { context, lifecycle } = this.#parts;
    try {
      await lifecycle.start(context.database.instances.get(project, name), AbortSignal.timeout(START_LIMIT_MS));
    } catch (error) {
      context.log.warn('an instance did not start again after a failed restore', { instance: name, error });
    }
  }

  async #replace({ record, snapshot, stateful }: RestoreTarget, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const paths = instancePaths(context.paths, record);
    const current = context.database.instances.get(record.project, record.name);
    const { name } = snapshot;
    await noteTransition(context.host, paths, { kind: 'restore', pool: record.pool, snapshot: name, stateful });
    try {
      await context.pools.driver(record.pool).restoreSnapshot(rootVolume(record), snapshot.name, signal);
    } catch (error) {
      await endTransition(paths);
      throw error;
    }
    await restoreRecord(context, { record: current, snapshot, stateful }, signal);
    await endTransition(paths);
  }
}

interface RestoreTarget extends SnapshotOf {
  readonly stateful: boolean;
}

/** Everything but the root. Idempotent: a later daemon may have to go on. */
export async function restoreRecord(
  context: EngineContext,
  { record, snapshot, stateful = false }: SnapshotOf & { readonly stateful?: boolean | undefined },
  signal: AbortSignal,
): Promise<void> {
  const { database, host } = context;
  const paths = instancePaths(context.paths, record);
  const from = join(paths.snapshots, snapshot.name);
  await copySnapshotFiles(host, from, paths.home);
  // What the instance had belongs to the root that it had.
  await forgetState(context, record);
  if (stateful) await copyState(context, join(from, STATE), paths.state);
  database.instances.update(record.id, {
    architecture: snapshot.architecture,
    config: restoredConfig(record.config, snapshot.config),
    description: snapshot.description,
    devices: devicesOnPool(context, { ...snapshot, project: record.project }, record.pool),
    ephemeral: snapshot.ephemeral,
    profiles: snapshot.profiles,
    stateful,
  });
  database.rootVolumes.set('instance', record.id, database.rootVolumes.get('snapshot', snapshot.id));
  await publishNics(context, database.instances.get(record.project, record.name));
  await recordNewContent(context, record, signal);
}

/** The ids and the power state are those of now: they go with the instance, not with its contents. */
function restoredConfig(now: ConfigMap, then: ConfigMap): ConfigMap {
  const isPresent = (key: string): boolean => /^volatile\.(?:idmap\.|last_state\.|uuid$)/u.test(key);
  const entries = Object.entries(withoutLife(then)).filter(([key]) => !isPresent(key));
  return Object.fromEntries([...entries, ...Object.entries(now).filter(([key]) => isPresent(key))]);
}

interface Layers {
  readonly project: string;
  readonly profiles: readonly string[];
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
}

/** The local devices, such that the root disk is on the given pool whatever the profiles say. */
export function devicesOnPool({ database }: Pick<EngineContext, 'database'>, layers: Layers, pool: string): DeviceMap {
  const expanded = expander(database)(layers).devices;
  const hasRoot = Object.values(expanded).some(({ type, path }) => type === 'disk' && path === '/');
  if (!hasRoot) return { ...layers.devices, root: { type: 'disk', path: '/', pool } };
  const root = rootDisk(expanded);
  if (root.pool === pool) return layers.devices;
  return { ...layers.devices, [root.device]: { ...expanded[root.device], pool } };
}
