// Starting and stopping one instance. Every method is called by the holder of the instance's lock.
import type { RuntimeCheckpoint, RuntimeDriver, RuntimeSpec } from '#drivers/runtime/driver.ts';
import type { IdMapRange, MountedRoot } from '#drivers/storage/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { once, together } from '#src/lib/together.ts';
import { aborted, limited } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { parseMetadata } from '../images/metadata.ts';
import { isDueAtStart } from '../snapshots/schedule.ts';
import type { ConfigMap } from '../types.ts';
import type { CpuBalancer } from './cpu-balancer.ts';
import { deviceOwner, type InstanceDevices } from './devices.ts';
import { devlxdMount, wantsDevlxd } from './devlxd-mount.ts';
import { expander, type Expanded } from './expansion.ts';
import { idMapFromJson } from './idmap.ts';
import { InstanceIds } from './instance-ids.ts';
import { hostName, instancePaths, type InstancePaths } from './instance-paths.ts';
import type { InstanceRoot, InstanceRoots } from './instance-roots.ts';
import { cpuLimit } from './limits.ts';
import { refuseLent } from './lent-roots.ts';
import { loadKernelModules } from './kernel-modules.ts';
import { rotateLogs } from './logs.ts';
import { networkPrioritiesOf } from './network-priority.ts';
import { hasTraces, withoutLife, type InstanceNics } from './nics.ts';
import type { InstanceSnapshots } from './snapshots.ts';
import type { SavedStates, StartOptions } from './saved-states.ts';
import { runProcesses } from './run-processes.ts';
import { thaw } from './silence.ts';
import { runtimeSpec } from './spec.ts';
import { startDigest } from './start-digest.ts';
import { recordStart } from './start-record.ts';
import type { Life, Supervisor } from './supervisor.ts';
import { diskThrottlesOf } from './throttles.ts';
import { parseBoolean } from './values.ts';
import { applyTemplates, isTrigger, type TemplateTrigger } from './templates.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

const UNDO_LIMIT_MS = 60_000;
const KILL_LIMIT_MS = 60_000;

export interface LifecycleParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly nics: InstanceNics;
  readonly devices: InstanceDevices;
  readonly supervisor: Supervisor;
  readonly snapshots: InstanceSnapshots;
  readonly cpus: CpuBalancer;
  readonly roots: InstanceRoots;
  readonly states: SavedStates;
}

/** What start() gathers before anything is changed. */
interface Preparation {
  readonly record: InstanceRecord;
  readonly expanded: Expanded;
  readonly paths: InstancePaths;
  readonly idMap: IdMapRange | null;
  readonly triggers: readonly TemplateTrigger[];
  /** It goes on where it was; undefined: its init begins. */
  readonly checkpoint: RuntimeCheckpoint | undefined;
  readonly userNamespace?: string | undefined;
}

export class InstanceLifecycle {
  readonly #parts: LifecycleParts;
  readonly ids: InstanceIds;

  constructor(parts: LifecycleParts) {
    this.#parts = parts;
    this.ids = new InstanceIds(parts.context);
  }

  /** Id map of an instance by its expanded configuration; null: privileged. */
  idMap(record: Pick<InstanceRecord, 'id'>, config: ConfigMap): Promise<IdMapRange | null> {
    return this.ids.of(record, config);
  }

  /** The id map that a running instance was started with; null: privileged. */
  runningIdMap(config: ConfigMap): IdMapRange | null {
    return idMapFromJson(config['volatile.idmap.current']);
  }

  /** The instance is stopped. Resolves when its init runs; after a failure it is as before. */
  async start(record: InstanceRecord, signal: AbortSignal, options: StartOptions = { stateful: false }): Promise<void> {
    const { context, runtime, supervisor } = this.#parts;
    refuseLent(this.#parts, record);
    await this.#parts.states.adopt(record); // nothing of an earlier life may be taken for one of this
    const ready = await this.#prepare(record, options);
    await this.#snapshotAtStart(ready, signal);
    await using revert = new Reverter(context.log);

    const cpus = await this.#parts.cpus.placeOf({ id: record.id, limit: cpuLimit(ready.expanded.config) });
    const { container } = ready.paths;
    const [{ spec, volatile }] = await together(
      this.#build({ ...ready, cpus }, revert, signal),
      rotateLogs(context.host, ready.paths),
      context.host.writeFile(ready.paths.started, startDigest(ready.expanded), { mode: 0o600 }),
    );
    await runtime.writeConfig(container, spec, signal);
    recordStart(context, ready, volatile, revert);
    await runProcesses(this.#parts, ready, spec, signal);
    await this.#attachDevices(ready, revert, signal);
    const life = supervisor.attach(record, { container, cpuLimit: cpuLimit(ready.expanded.config), cpus });
    await this.#parts.roots.watch(record, life, ready.expanded.devices);
    this.#parts.cpus.changed();
    revert.commit();
    if (context.database.instances.get(record.project, record.name).stateful) await this.#parts.states.forget(record);
  }

  /** What works beside the container; without it the start has failed. */
  async #attachDevices({ record, expanded, paths, idMap }: Preparation, revert: Reverter, signal: AbortSignal) {
    const { runtime, devices } = this.#parts;
    if (!devices.needAttaching(expanded.devices)) return;
    revert.add('container', () => runtime.kill(paths.container, AbortSignal.timeout(KILL_LIMIT_MS)));
    const pid = await runtime.initPid(paths.container, signal);
    if (pid === undefined) throw new AppError('internal', 'The container ended as soon as it was started');
    await devices.attach(deviceOwner(record, idMap, expanded.devices), expanded.devices, pid, signal);
  }

  /** Devices that work beside a container which the daemon did not start itself: found running, or rebooted. */
  async resume(record: InstanceRecord, life: Life, signal: AbortSignal): Promise<void> {
    const { container } = life;
    const { context, runtime, devices } = this.#parts;
    const expanded = expander(context.database)(record);
    const owner = deviceOwner(record, this.runningIdMap(record.config), expanded.devices);
    await this.#parts.roots.watch(record, life, expanded.devices);
    devices.watch(owner, expanded.devices);
    await devices.resumeBlocks(owner);
    if (!devices.needAttaching(expanded.devices)) return;
    const pid = await runtime.initPid(container, signal);
    if (pid === undefined) return;
    await devices.resume(owner, expanded.devices, pid, signal);
  }

  /** `@startup`. One that fails is no reason not to start. */
  async #snapshotAtStart({ record, expanded }: Preparation, signal: AbortSignal): Promise<void> {
    if (!isDueAtStart(expanded.config['snapshots.schedule'] ?? '')) return;
    try {
      await this.#parts.snapshots.takeNext(record, signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#parts.context.log.warn('the snapshot at the start failed', { instance: record.name, error });
    }
  }

  async #prepare(stopped: InstanceRecord, { stateful }: StartOptions): Promise<Preparation> {
    const { database, paths } = this.#parts.context;
    const { record, idMap } = await this.ids.assign(stopped);
    const checkpoint = stateful ? await this.#parts.states.checkpointOf(record) : undefined;
    const expanded = expander(database)(record);
    const pending = record.config['volatile.apply_template'];
    return {
      record,
      expanded,
      paths: instancePaths(paths, record),
      idMap,
      // What runs has seen its files; templates that are due wait for a start.
      triggers: checkpoint ? [] : [...(isTrigger(pending) ? [pending] : []), 'start'],
      checkpoint,
    };
  }

  async #build(
    ready: Preparation & { readonly cpus: readonly number[] | undefined },
    revert: Reverter,
    signal: AbortSignal,
  ): Promise<{ spec: RuntimeSpec; volatile: ConfigMap }> {
    const { context, nics } = this.#parts;
    const { record, expanded, idMap } = ready;
    await loadKernelModules(context.host, expanded.config, signal);
    let volatile: ConfigMap = {};
    const remember = (names: ConfigMap): void => {
      volatile = names;
      revert.add('names of nics', () => context.database.instances.update(record.id, { config: record.config }));
      context.database.instances.update(record.id, { config: { ...record.config, ...names } });
    };
    const mounting = once(() => this.#mount(ready, revert, signal));
    const userNamespace = await this.#parts.roots.namespaceFor(record, ready, mounting);
    const [root, started, made] = await together(
      mounting(),
      nics.start({ ...record, devices: expanded.devices }, remember, revert, signal),
      this.#startDevices({ ...ready, userNamespace }, revert, signal),
    );
    const spec = runtimeSpec({
      record,
      config: expanded.config,
      root: { ...root, ...(userNamespace !== undefined && { userNamespace }) },
      idMap,
      nics: started,
      mounts: made.mounts,
      deviceRules: made.rules,
      throttles: await diskThrottlesOf(this.#parts, record, expanded.devices),
      network: await networkPrioritiesOf(context.host, expanded.config),
      cpus: ready.cpus,
      ...(ready.checkpoint && { rebootNote: ready.paths.startsAgain }),
    });
    return { spec, volatile };
  }

  async #startDevices(ready: Preparation, revert: Reverter, signal: AbortSignal) {
    const { record, expanded, idMap, userNamespace } = ready;
    const { context, devices } = this.#parts;
    const owner = deviceOwner(record, idMap, expanded.devices, userNamespace);
    const { mounts, rules } = await devices.start(owner, expanded.devices, revert, signal);
    const own = [
      ...(wantsDevlxd(expanded.config) ? [devlxdMount(context.paths)] : []),
      ...(parseBoolean(expanded.config['lighter.sysfs.block'], true) ? await devices.showBlocks(owner, revert) : []),
    ];
    return { mounts: [...own, ...mounts], rules };
  }

  /** With what its image's templates write into it. */
  async #mount(ready: Preparation, revert: Reverter, signal: AbortSignal): Promise<InstanceRoot> {
    const { context, roots } = this.#parts;
    const { record, paths } = ready;
    const mounted = roots.mount(record, ready, signal);
    revert.add('mount', () => roots.unmount(record, AbortSignal.timeout(UNDO_LIMIT_MS)));
    const [root, metadata] = await together(mounted, readIfPresent(context.host, paths.metadata));
    await this.#applyTemplates(ready, root, metadata);
    return ready.checkpoint ? roots.map(record, root, ready.idMap) : root;
  }

  async #applyTemplates({ record, expanded, paths, triggers }: Preparation, root: MountedRoot, text?: string) {
    await applyTemplates({
      record,
      expanded,
      metadata: text === undefined ? undefined : await parseMetadata(text),
      templatesPath: paths.templates,
      root,
      triggers,
    });
  }

  /** Kills at once. Resolves when the container is gone and cleaned up after. */
  async kill(record: InstanceRecord, life: Life): Promise<void> {
    life.awaited = true;
    try {
      // Not the caller's signal: what was begun to be killed is to be seen off.
      await this.#parts.runtime.kill(life.container, AbortSignal.timeout(KILL_LIMIT_MS));
      await life.ended;
    } catch (error) {
      life.awaited = false;
      throw error;
    }
    await this.finish(record, life);
  }

  /** Keeps the state of its processes. Resolves when the container is gone and cleaned up after; when it rejects it runs on. */
  async suspend(record: InstanceRecord, life: Life): Promise<void> {
    life.awaited = true;
    try {
      await this.#parts.states.dump(record, life);
      await Promise.race([life.ended, aborted(AbortSignal.timeout(KILL_LIMIT_MS))]);
    } catch (error) {
      life.awaited = false;
      if (life.gone) await this.finish(record, life);
      throw error;
    }
    await this.finish(record, life);
  }

  /** Asks init, and waits as long as `timeoutMs` (undefined: for ever). AppError with LXD's text when it did not obey. */
  async shutDown(record: InstanceRecord, life: Life, { timeoutMs, signal }: ShutDownOptions): Promise<void> {
    const { runtime } = this.#parts;
    life.awaited = true;
    life.shuttingDown = true;
    const limit = timeoutMs === undefined ? signal : limited(timeoutMs, signal);
    try {
      if (life.status === 'Frozen') await thaw(this.#parts, record, life, limit);
      await runtime.requestShutdown(life.container, limit);
      await Promise.race([life.ended, aborted(limit)]);
      if (!life.gone) {
        signal.throwIfAborted();
        const text = `Failed shutting down instance, status is "${life.status}": context deadline exceeded`;
        throw new AppError('unavailable', text);
      }
    } catch (error) {
      life.awaited = false;
      throw error;
    } finally {
      life.shuttingDown = false;
    }
    await this.finish(record, life);
  }

  /** After the end of a life: takes down what start() put up. Does not fail: what stays is logged and found at the next start. */
  async finish(record: InstanceRecord, life: Life): Promise<void> {
    const { context, supervisor, nics, devices } = this.#parts;
    await this.#parts.states.adoptOrLog(record);
    const current = context.database.instances.find(record.project, record.name) ?? record;
    const expanded = expander(context.database)(current);
    await nics.stop({ ...current, devices: expanded.devices });
    const idMap = this.runningIdMap(current.config);
    await devices.stop(deviceOwner(current, idMap, expanded.devices), expanded.devices);
    await this.tidy(current);
    const config = { ...withoutLife(current.config), 'volatile.last_state.power': 'STOPPED' };
    context.database.instances.update(current.id, { config });
    supervisor.detach(record.id, life);
    this.#parts.cpus.changed();
  }

  /** What a daemon that was killed between the notes of a start and the start itself left of nics. */
  async forgetStart(record: InstanceRecord): Promise<void> {
    if (!hasTraces(record.config)) return;
    const { context, nics } = this.#parts;
    await nics.stop({ ...record, devices: expander(context.database)(record).devices });
    context.database.instances.update(record.id, { config: withoutLife(record.config) });
  }

  /** Removes what a container that does not run may have left: control groups, the mount of its root. */
  async tidy(record: InstanceRecord): Promise<void> {
    const { context, runtime } = this.#parts;
    const { container } = instancePaths(context.paths, record);
    const undo = AbortSignal.timeout(UNDO_LIMIT_MS);
    const steps = [
      () => this.#parts.devices.sweep(hostName(record)),
      () => this.#parts.roots.unmount(record, undo),
      () => runtime.cleanUp(container, undo),
    ];
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        context.log.warn('a stopped container left something behind', { instance: record.name, error });
      }
    }
  }

  /** Whether the running container has other settings than it would be started with now. */
  async isOutdated(record: InstanceRecord): Promise<boolean> {
    const { context } = this.#parts;
    const { started } = instancePaths(context.paths, record);
    const then = await context.host.readFile(started).catch(() => '');
    return then !== startDigest(expander(context.database)(record));
  }
}

export interface ShutDownOptions {
  readonly timeoutMs?: number | undefined;
  readonly signal: AbortSignal;
}
