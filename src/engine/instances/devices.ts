// Devices of instances other than nics and the root disk: their start and stop by the device drivers, and their coming and going
// while the container runs.
import type { Device, DeviceDriver, DeviceOwner, StartedDevice } from '#drivers/devices/driver.ts';
import { BlockView } from '#drivers/devices/common/block-view.ts';
import { DevicePlaces } from '#drivers/devices/common/places.ts';
import type { RunningContainer, RuntimeDriver, RuntimeMount } from '#drivers/runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import type { IdMapRange } from '#src/host/id-map.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';
import { deviceDriverOf } from './config-rules.ts';
import { DeviceWatch } from './device-watch.ts';
import { isRoot } from './disks.ts';
import { hostName, type InstanceKey } from './instance-paths.ts';

export interface DeviceParts {
  readonly drivers: Readonly<Record<string, DeviceDriver>>;
  readonly runtime: RuntimeDriver;
  readonly host: Host;
  readonly log: Log;
  readonly devicesPath: string;
  readonly blocksPath: string;
  /** Something came or went where a device is looked for. */
  readonly changed: (key: InstanceKey, device: string) => void;
}

const UNDO_LIMIT_MS = 30_000;

export class InstanceDevices {
  readonly #parts: DeviceParts;
  readonly #places: DevicePlaces;
  readonly #blocks: BlockView;
  readonly #watch = new DeviceWatch();

  constructor(parts: DeviceParts) {
    this.#parts = parts;
    this.#places = new DevicePlaces(parts);
    this.#blocks = new BlockView(parts);
  }

  /** Prepares the host for a container that is about to start; what it did is on `revert`. */
  async start(
    owner: DeviceOwner,
    devices: DeviceMap,
    revert: Reverter,
    signal: AbortSignal,
  ): Promise<{ readonly mounts: readonly RuntimeMount[]; readonly rules: readonly string[] }> {
    const started: StartedDevice[] = [];
    revert.add('watch of devices', () => this.#watch.dropAll(keyOf(owner)));
    this.watch(owner, devices);
    for (const device of inMountOrder(owned(owner, devices))) {
      started.push(await this.#startOne(device, revert, signal));
    }
    return { mounts: started.flatMap(({ mounts }) => mounts), rules: started.flatMap(({ rules }) => rules) };
  }

  /** A view of its own of the host's block devices, for a container whose devices have been started. */
  async showBlocks(owner: DeviceOwner, revert: Reverter): Promise<readonly RuntimeMount[]> {
    revert.add('view of block devices', () => this.#blocks.close(owner.hostName));
    return this.#blocks.open(owner);
  }

  /** What a daemon that was killed while a device came or went did not get to. */
  resumeBlocks(owner: DeviceOwner): Promise<void> {
    return this.#blocks.update(owner);
  }

  /** Devices that may come and go: what is reported of them goes to the handler of changes. */
  watch(owner: DeviceOwner, devices: DeviceMap): void {
    for (const device of owned(owner, devices)) this.#watchOne(device);
  }

  #watchOne(device: Device): void {
    const driver = this.#driver(device);
    const watched = driver.watched?.(device);
    const { project, name } = device.owner;
    if (watched)
      this.#watch.set(keyOf(device.owner, device.device), watched, () =>
        this.#parts.changed({ project, name }, device.device),
      );
  }

  #startOne(device: Device, revert: Reverter, signal: AbortSignal): Promise<StartedDevice> {
    const driver = this.#driver(device);
    revert.add(`device ${device.device}`, () => driver.stop(device));
    return failing('Failed to start', device, () => driver.start(device, signal));
  }

  /** AppError with LXD's text when the host lacks what a device needs. */
  async check(devices: DeviceMap, doing: string): Promise<void> {
    for (const [device, config] of others(devices)) {
      await failing(doing, { device }, async () => this.#driver({ device, config }).check?.({ device, config }));
    }
  }

  /** What works beside the container: when it has started, after its reboot, and after the daemon's restart. */
  async attach(owner: DeviceOwner, devices: DeviceMap, initPid: number, signal: AbortSignal): Promise<void> {
    for (const device of owned(owner, devices)) {
      await failing('Failed to start', device, async () => this.#driver(device).attach?.(device, initPid, signal));
    }
  }

  /** attach() for a container that runs without the daemon having started it. What fails is logged. */
  async resume(owner: DeviceOwner, devices: DeviceMap, initPid: number, signal: AbortSignal): Promise<void> {
    for (const device of owned(owner, devices)) {
      try {
        await this.#driver(device).attach?.(device, initPid, signal);
      } catch (error) {
        this.#parts.log.warn('device does not work any more', {
          instance: owner.name,
          device: device.device,
          error,
        });
      }
    }
  }

  /** Whether there is something for attach(). */
  needAttaching(devices: DeviceMap): boolean {
    return others(devices).some(([device, config]) => this.#driver({ device, config }).attach !== undefined);
  }

  /** Adds a device to a running container. After a failure nothing of it is left. */
  async plug(device: Device, running: RunningContainer, signal: AbortSignal): Promise<void> {
    this.#watchOne(device); // first: what changes from here on is heard of
    try {
      await this.#plugWatched(device, running, signal);
    } catch (error) {
      this.#watch.drop(keyOf(device.owner, device.device));
      throw error;
    }
  }

  async #plugWatched(device: Device, running: RunningContainer, signal: AbortSignal): Promise<void> {
    const { runtime, log } = this.#parts;
    await using revert = new Reverter(log);
    revert.add('view of block devices', () => this.#blocks.update(device.owner));
    const started = await this.#startOne(device, revert, signal);
    const undo = (): AbortSignal => AbortSignal.timeout(UNDO_LIMIT_MS);
    await failing('Failed to start', device, async () => {
      for (const rule of device.owner.idMap === null ? started.rules : []) {
        revert.add('device rule', () => runtime.setDeviceRule(running, rule, false, undo()));
        await runtime.setDeviceRule(running, rule, true, signal);
      }
      for (const mount of started.mounts) {
        revert.add('mount', () => runtime.detachMount(running, mount));
        await runtime.attachMount(running, mount, signal);
      }
      await this.#driver(device).attach?.(device, running.initPid, signal);
      await this.#blocks.update(device.owner);
    });
    revert.commit();
  }

  /** Makes a device of a running container what the host has for it now. */
  async refresh(device: Device, running: RunningContainer, signal: AbortSignal): Promise<void> {
    if ((await this.#driver(device).isStale?.(device)) !== true) return;
    await this.unplug(device, running, signal);
    this.#watchOne(device);
    await this.#plugWatched(device, running, signal);
  }

  /** AppError 'conflict' when a running container cannot be without the device now. */
  async refuseUsed(device: Device): Promise<void> {
    await failing('Failed to stop', device, async () => this.#driver(device).refuseUsed?.(device));
  }

  /** Takes a device out of a running container. Idempotent. */
  async unplug(device: Device, running: RunningContainer, signal: AbortSignal): Promise<void> {
    const { runtime } = this.#parts;
    const driver = this.#driver(device);
    this.#watch.drop(keyOf(device.owner, device.device));
    await failing('Failed to stop', device, async () => {
      await driver.detach?.(device);
      // What start() would say names what is mounted inside; a source that is gone meanwhile was mounted all the same.
      const started = await driver.started(device);
      for (const mount of started.mounts) await runtime.detachMount(running, mount);
      for (const rule of device.owner.idMap === null ? started.rules : []) {
        await runtime.setDeviceRule(running, rule, false, signal);
      }
      await driver.stop(device);
      await this.#blocks.update(device.owner);
    });
  }

  /** After the container is gone. One device's failure does not keep the others; it is logged. */
  async stop(owner: DeviceOwner, devices: DeviceMap): Promise<void> {
    this.#watch.dropAll(keyOf(owner));
    for (const device of owned(owner, devices)) {
      try {
        const driver = this.#driver(device);
        await driver.detach?.(device);
        await driver.stop(device);
      } catch (error) {
        this.#parts.log.warn('device did not stop cleanly', { device: device.device, error });
      }
    }
  }

  /** What is left on the host of a container that does not run. */
  async sweep(instance: string): Promise<void> {
    for (const driver of Object.values(this.#parts.drivers)) await driver.sweep?.(instance);
    await this.#blocks.close(instance);
    await this.#places.sweep(instance);
  }

  /** Nothing is noticed any more, and nothing is left of the places of devices when no instance runs. */
  async close(): Promise<void> {
    this.#watch.close();
    await this.#places.close();
  }

  /** Options that a running container takes without the device being removed and added. */
  liveOptions(device: string, config: ConfigMap): readonly string[] {
    return this.#driver({ device, config }).info.liveOptions;
  }

  throttlesOf(device: string, config: ConfigMap) {
    return this.#driver({ device, config }).throttles?.(config);
  }

  #driver({ device, config }: Pick<Device, 'device' | 'config'>): DeviceDriver {
    return deviceDriverOf(device, config, this.#parts.drivers);
  }
}

export function deviceOwner(
  key: InstanceKey,
  idMap: IdMapRange | null,
  devices: DeviceMap,
  userNamespace?: string,
): DeviceOwner {
  const { project, name } = key;
  return {
    project,
    name,
    hostName: hostName(key),
    idMap,
    devices,
    ...(userNamespace !== undefined && { userNamespace }),
  };
}

function keyOf({ hostName: instance }: DeviceOwner, device = ''): string {
  return `${instance}//${device}`;
}

/** All but nics and the root disk. */
function others(devices: DeviceMap): readonly (readonly [string, ConfigMap])[] {
  return Object.entries(devices).filter(([, device]) => device['type'] !== 'nic' && !isRoot(device));
}

function owned(owner: DeviceOwner, devices: DeviceMap): readonly Device[] {
  return others(devices).map(([device, config]) => ({ owner, device, config }));
}

/** What is mounted in something else comes after it. */
function inMountOrder(devices: readonly Device[]): readonly Device[] {
  const path = ({ config }: Device): string => (config['path'] ?? '').replace(/^\/+/, '');
  return [...devices].sort((left, right) => (path(left) < path(right) ? -1 : 1));
}

async function failing<T>(doing: string, { device }: Pick<Device, 'device'>, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new AppError(kindOf(cause), `${doing} device "${device}": ${messageOf(cause)}`, { cause });
  }
}
