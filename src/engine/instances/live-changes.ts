// What a running container is given of a changed configuration: devices that come, go and change, limits, and a few switches. The
// rest waits for its next start. All or nothing: after a failure the container is as the record still says.
import { rm } from 'node:fs/promises';
import type { Device } from '#drivers/devices/driver.ts';
import type { RunningContainer, RuntimeDriver, RuntimeLimits } from '#drivers/runtime/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { deviceOwner, type InstanceDevices } from './devices.ts';
import { devlxdMount, wantsDevlxd } from './devlxd-mount.ts';
import { isRoot, LIVE_ROOT_OPTIONS } from './disks.ts';
import type { Expanded } from './expansion.ts';
import { instancePaths } from './instance-paths.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import { loadKernelModules } from './kernel-modules.ts';
import type { CpuBalancer } from './cpu-balancer.ts';
import { cpuLimit, runtimeLimits } from './limits.ts';
import { networkPrioritiesOf } from './network-priority.ts';
import type { InstanceNics } from './nics.ts';
import { settleNics } from './settle-nics.ts';
import type { Life } from './supervisor.ts';
import { diskThrottlesOf } from './throttles.ts';
import { withoutStale } from './volatile-keys.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

const UNDO_LIMIT_MS = 60_000;

export interface LiveParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
  readonly devices: InstanceDevices;
  readonly nics: InstanceNics;
  readonly lifecycle: InstanceLifecycle;
  readonly cpus: CpuBalancer;
}

export interface LiveChange {
  /** As in the database. */
  readonly record: InstanceRecord;
  readonly life: Life;
  readonly before: Expanded;
  readonly after: Expanded;
  /** Local configuration that is about to be stored: volatile.* of nics. */
  readonly config: ConfigMap;
}

interface Step extends LiveChange {
  readonly running: RunningContainer;
  readonly owner: Device['owner'];
  /** Keys volatile.* that nics remembered; '' for those that are to go. */
  readonly volatile: Record<string, string>;
}

/** Called by the holder of the instance's lock. */
export class LiveChanges {
  readonly #parts: LiveParts;

  constructor(parts: LiveParts) {
    this.#parts = parts;
  }

  /**
   * Applies the difference, then runs `store` with the volatile keys that devices left (an empty value removes one); what was applied
   * is undone when either fails. A note on disk tells a daemon that was killed meanwhile.
   */
  async apply(change: LiveChange, store: (volatile: ConfigMap) => void, signal: AbortSignal): Promise<void> {
    const { context } = this.#parts;
    const { record, life, before, after } = change;
    const step = { ...change, ...(await this.#running(record, life, after, signal)), volatile: {} };
    await using revert = new Reverter(context.log);
    const devices = differences(before.devices, after.devices, (name, device) => {
      return this.#liveOptions(record.project, name, device);
    });
    const note = instancePaths(context.paths, record).liveChange;
    if (devices.removed.length + devices.added.length + devices.updated.length > 0) {
      await context.host.writeFile(note, JSON.stringify(after.devices), { mode: 0o600 });
      revert.add('note', () => rm(note, { force: true }));
    }
    for (const name of devices.removed) await this.#remove(step, name, revert, signal);
    for (const name of devices.added) await this.#add(step, name, revert, signal);
    for (const name of devices.updated) await this.#update(step, name, revert, signal);
    await this.#applyLimits(step, revert);
    await this.#applyCpus(step, revert);
    await this.#applySwitches(step, revert, signal);
    store(step.volatile);
    revert.commit();
    await rm(note, { force: true });
  }

  /**
   * A daemon was killed in apply(): devices that it had added and not stored are taken out, those that it had removed come back, and
   * nics that it had changed are as they were.
   */
  async settle(record: InstanceRecord, life: Life, expanded: Expanded, signal: AbortSignal): Promise<void> {
    const { context, devices } = this.#parts;
    const note = instancePaths(context.paths, record).liveChange;
    const text = await readIfPresent(context.host, note);
    if (text === undefined) return;
    const wanted = JSON.parse(text) as DeviceMap;
    const { running, owner } = await this.#running(record, life, expanded, signal);
    const options = (name: string, device: ConfigMap) => this.#liveOptions(record.project, name, device);
    const change = differences(wanted, expanded.devices, options);
    const parts = { nics: this.#parts.nics, instances: context.database.instances };
    await settleNics(parts, { record, wanted, stored: expanded.devices, pid: running.initPid, change }, signal);
    for (const name of change.removed) {
      const config = wanted[name] ?? {};
      if (isPlain(config)) await devices.unplug({ owner, device: name, config }, running, signal);
    }
    for (const name of change.added) {
      const config = expanded.devices[name] ?? {};
      if (!isPlain(config)) continue;
      await devices.unplug({ owner, device: name, config }, running, signal);
      await devices.plug({ owner, device: name, config }, running, signal);
    }
    await rm(note, { force: true });
  }

  /** Something came or went where a device is looked for. */
  async refresh(
    record: InstanceRecord,
    { life, expanded, device }: { readonly life: Life; readonly expanded: Expanded; readonly device: string },
    signal: AbortSignal,
  ): Promise<void> {
    const config = expanded.devices[device];
    if (!config || !isPlain(config)) return;
    const { running, owner } = await this.#running(record, life, expanded, signal);
    await this.#parts.devices.refresh({ owner, device, config }, running, signal);
  }

  async #running(record: InstanceRecord, { container }: Life, { devices }: Expanded, signal: AbortSignal) {
    const { runtime, context, lifecycle } = this.#parts;
    const initPid = await runtime.initPid(container, signal);
    if (initPid === undefined) throw new AppError('conflict', `Instance "${record.name}" is just starting or stopping`);
    const idMap = lifecycle.runningIdMap(context.database.instances.get(record.project, record.name).config);
    const running = { container, initPid, rootUid: idMap?.uidBase ?? 0, rootGid: idMap?.gidBase ?? 0 };
    return { running, owner: deviceOwner(record, idMap, devices, `/proc/${initPid}/ns/user`) };
  }

  #liveOptions(project: string, name: string, device: ConfigMap): readonly string[] {
    if (device['type'] === 'nic') return this.#parts.nics.liveOptions(project, name, device);
    return isRoot(device) ? LIVE_ROOT_OPTIONS : this.#parts.devices.liveOptions(name, device);
  }

  async #remove(step: Step, name: string, revert: Reverter, signal: AbortSignal): Promise<void> {
    const config = step.before.devices[name] ?? {};
    if (isRoot(config)) {
      // A second one, which a profile had brought, was never in use.
      if (keepsRoot(step)) return;
      throw new AppError('invalid', 'The root disk of a running instance cannot be removed');
    }
    const { owner } = step;
    if (config['type'] !== 'nic') await this.#parts.devices.refuseUsed({ owner, device: name, config });
    revert.add(`device ${name}`, () => this.#plug(step, name, step.before, AbortSignal.timeout(UNDO_LIMIT_MS)));
    await this.#unplug(step, name, step.before, signal);
  }

  async #add(step: Step, name: string, revert: Reverter, signal: AbortSignal): Promise<void> {
    const config = step.after.devices[name] ?? {};
    if (isRoot(config)) throw new AppError('invalid', 'A root disk cannot be added to a running instance');
    await this.#plug(step, name, step.after, signal);
    revert.add(`device ${name}`, () => this.#unplug(step, name, step.after, AbortSignal.timeout(UNDO_LIMIT_MS)));
  }

  async #plug(step: Step, name: string, { devices: all }: Expanded, signal: AbortSignal): Promise<void> {
    const { devices, nics } = this.#parts;
    const { record, running, owner, volatile } = step;
    const config = all[name] ?? {};
    if (config['type'] !== 'nic') return devices.plug({ owner, device: name, config }, running, signal);
    const remember = (names: ConfigMap): void => {
      Object.assign(volatile, names);
      this.#storeVolatile(record, names);
    };
    const current = this.#currentConfig(record);
    const isNew = all === step.after.devices;
    const kept = isNew ? withoutStale(current, step.before.devices, all) : current;
    const local = { ...kept, ...step.config };
    await nics.plug({ ...record, devices: all, config: local }, name, remember, { pid: running.initPid, signal });
  }

  async #unplug(step: Step, name: string, { devices: all }: Expanded, signal: AbortSignal): Promise<void> {
    const { devices, nics } = this.#parts;
    const { record, running, owner, volatile } = step;
    const config = all[name] ?? {};
    if (config['type'] !== 'nic') return devices.unplug({ owner, device: name, config }, running, signal);
    const local = this.#currentConfig(record);
    await nics.unplug({ ...record, devices: all, config: local }, name, { pid: running.initPid, signal });
    const keys = Object.keys(local).filter((key) => key.startsWith(`volatile.${name}.`));
    const kept = step.after.devices[name] === undefined ? [] : [`volatile.${name}.hwaddr`, `volatile.${name}.name`];
    for (const key of keys.filter((key) => !kept.includes(key))) volatile[key] = '';
  }

  #currentConfig({ project, name }: InstanceRecord): ConfigMap {
    return this.#parts.context.database.instances.get(project, name).config;
  }

  /** At once: a daemon that is killed before the end of the change has to know the names. */
  #storeVolatile(record: InstanceRecord, names: ConfigMap): void {
    const { instances } = this.#parts.context.database;
    instances.update(record.id, { config: { ...this.#currentConfig(record), ...names } });
  }

  async #update(step: Step, name: string, revert: Reverter, signal: AbortSignal): Promise<void> {
    const { nics } = this.#parts;
    const { record, before, after } = step;
    if (after.devices[name]?.['type'] !== 'nic') return; // limits of disks are applied with all others
    const config = this.#currentConfig(record);
    const [old, next] = [before, after].map(({ devices }) => ({ ...record, devices, config }));
    if (!old || !next) return;
    revert.add(`device ${name}`, () => nics.update(next, old, name, AbortSignal.timeout(UNDO_LIMIT_MS)));
    await nics.update(old, next, name, signal);
  }

  async #applyLimits({ record, running, before, after }: Step, revert: Reverter): Promise<void> {
    const { runtime } = this.#parts;
    const [old, next] = [await this.limits(record, before), await this.limits(record, after)];
    if (JSON.stringify(old) === JSON.stringify(next)) return;
    await runtime.setLimits(running.initPid, old, next);
    revert.add('limits', () => runtime.setLimits(running.initPid, next, old));
  }

  async #applyCpus({ life, before, after }: Step, revert: Reverter): Promise<void> {
    const { cpus } = this.#parts;
    const [was, is] = [cpuLimit(before.config), cpuLimit(after.config)];
    if (was === is) return;
    revert.add('CPUs', () => cpus.setLimit(life, was));
    await cpus.setLimit(life, is);
  }

  /** Without CPUs: they are the balancer's. */
  async limits(record: InstanceRecord, { config, devices }: Expanded): Promise<RuntimeLimits> {
    const limits = runtimeLimits(config);
    const { context } = this.#parts;
    const throttles = await diskThrottlesOf({ context, devices: this.#parts.devices }, record, devices);
    return {
      ...limits,
      ...(await networkPrioritiesOf(context.host, config)),
      ...(Object.keys(throttles).length > 0 && { throttles }),
    };
  }

  async #applySwitches({ running, before, after }: Step, revert: Reverter, signal: AbortSignal): Promise<void> {
    const { runtime, context } = this.#parts;
    const mount = devlxdMount(context.paths);
    const [was, is] = [wantsDevlxd(before.config), wantsDevlxd(after.config)];
    if (is && !was) {
      await runtime.attachMount(running, mount, signal);
      revert.add('devlxd', () => runtime.detachMount(running, mount));
    }
    if (was && !is) {
      await runtime.detachMount(running, mount);
      revert.add('devlxd', () => runtime.attachMount(running, mount, AbortSignal.timeout(UNDO_LIMIT_MS)));
    }
    const modules = 'linux.kernel_modules';
    if (before.config[modules] !== after.config[modules]) await loadKernelModules(context.host, after.config, signal);
  }
}

/** Devices that are the device drivers' own. */
function isPlain(config: ConfigMap): boolean {
  return config['type'] !== undefined && config['type'] !== 'nic' && !isRoot(config);
}

export interface DeviceDifferences {
  readonly removed: readonly string[];
  readonly added: readonly string[];
  readonly updated: readonly string[];
}

/** Whether a root that was there stays. */
function keepsRoot({ before, after }: Step): boolean {
  return Object.entries(before.devices).some(([name, device]) => isRoot(device) && isRoot(after.devices[name] ?? {}));
}

/** Which devices go, come, or change in place. One that changes in what cannot change in place goes and comes. */
export function differences(
  before: DeviceMap,
  after: DeviceMap,
  liveOptions: (name: string, device: ConfigMap) => readonly string[],
): DeviceDifferences {
  const kinds = [...new Set([...Object.keys(before), ...Object.keys(after)])].map((name) => {
    return { name, kind: differenceOf(before[name], after[name], (device) => liveOptions(name, device)) };
  });
  const of = (...wanted: readonly Difference[]) =>
    kinds.filter(({ kind }) => wanted.includes(kind)).map(({ name }) => name);
  return { removed: of('removed', 'replaced'), added: of('added', 'replaced'), updated: of('updated') };
}

type Difference = 'none' | 'removed' | 'added' | 'replaced' | 'updated';

function differenceOf(
  old: ConfigMap | undefined,
  next: ConfigMap | undefined,
  liveOptions: (device: ConfigMap) => readonly string[],
): Difference {
  if (!old || !next) return old ? 'removed' : 'added';
  const changed = changedOptions(old, next);
  if (changed.length === 0) return 'none';
  return changesInPlace(changed, liveOptions(next)) ? 'updated' : 'replaced';
}

/** What users note on a device changes nothing of it. */
function changedOptions(old: ConfigMap, next: ConfigMap): readonly string[] {
  const options = new Set([...Object.keys(old), ...Object.keys(next)]);
  return [...options].filter((option) => !option.startsWith('user.') && (old[option] ?? '') !== (next[option] ?? ''));
}

/** The type never does. */
function changesInPlace(changed: readonly string[], live: readonly string[]): boolean {
  return changed.every((option) => option !== 'type' && live.includes(option));
}
