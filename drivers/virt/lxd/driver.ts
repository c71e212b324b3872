// The virt driver of everything that speaks LXD's REST API: our engine, LXD and Incus.
/* oxlint-disable max-lines -- a method for each of the contract; what they do is in the files beside */
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { isDeepStrictEqual } from 'node:util';
import { EngineClient } from '#src/client/client.ts';
import type { DeviceMap } from '#src/client/wire.ts';
import { AppError, asError } from '#src/lib/errors.ts';
import {
  type GuestMoves,
  type GuestSnapshot,
  type GuestUsage,
  type GuestVolume,
  type HostFacts,
  type LifecycleEvent,
  type Login,
  POWER_STATE,
  type PowerState,
  type SpawnFlavor,
  type SpawnHooks,
  type SpawnImage,
  type SpawnNic,
  type SpawnSpec,
  type VirtDriver,
  type VirtInfo,
  type VirtInstance,
} from '../driver.ts';
import { changeDevices } from './change-instance.ts';
import { ConfigDrives } from './config-drives.ts';
import { ConsoleLogs } from './console-log.ts';
import { sitAtConsole } from './console-session.ts';
import { DISK_FORMATS } from './declared-format.ts';
import { Directory } from './directory.ts';
import { DiskImages } from './disk-image/disk-images.ts';
import { DRIVE_DISK, DriveDisks } from './drive-disks.ts';
import { EngineCalls, stateConflict } from './engine-calls.ts';
import { removeStrayEphemerals } from './ephemeral-disks.ts';
import { flavorSettings } from './extra-specs.ts';
import { hostFacts, uptimeOf } from './facts.ts';
import { ImageCache } from './image-cache.ts';
import { Lifecycle } from './lifecycle.ts';
import { within } from './limit.ts';
import { isArriving } from './marks.ts';
import { LxdMoves } from './moves.ts';
import type { LxdDriverContext } from './options.ts';
import { attachNic, detachNic } from './nics.ts';
import { setPassword } from './password.ts';
import { Power } from './power.ts';
import { powerStateOf } from './power-state.ts';
import { findReach, type Reach } from './reach.ts';
import { rescue, unrescue } from './rescue.ts';
import { resize } from './resize.ts';
import { type EngineSetup, findSetup } from './setup.ts';
import { EngineSnapshot } from './snapshot.ts';
import { type SpawnContext, spawn } from './spawn.ts';
import { removeStaleSnapshots } from './stale-snapshots.ts';
import { usageOf } from './usage.ts';
import { attachVolume, detachVolume, requireMounts, setVolumes } from './volumes.ts';

const GIB = 1024 ** 3;
/** The API waits for 60 seconds. */
const PASSWORD_LIMIT_MS = 30_000;

export class LxdDriver implements VirtDriver {
  readonly info: VirtInfo = {
    name: 'lxd',
    hypervisorType: 'lxd',
    capabilities: new Set([
      'has_imagecache',
      'supports_attach_interface',
      'supports_device_tagging',
      'supports_tagged_attach_interface',
      'supports_tagged_attach_volume',
      'supports_evacuate',
      'supports_extend_volume',
      'supports_image_type_raw',
      'supports_image_type_qcow2',
      'supports_multiattach',
    ]),
    diskFormats: DISK_FORMATS,
  };
  readonly #context: LxdDriverContext;
  readonly #client: EngineClient;
  readonly #directory: Directory;
  readonly #calls: EngineCalls;
  readonly #lifecycle: Lifecycle;
  readonly #disks: DiskImages;
  readonly #images: ImageCache;
  readonly #power: Power;
  readonly #consoles: ConsoleLogs;
  /** In use by this process. */
  readonly #snapshots = new Set<string>();
  readonly #ending = new AbortController();
  #sweep: Promise<void> = Promise.resolve();
  readonly moves: GuestMoves;
  #setup: EngineSetup | undefined;
  #reach: Reach = { reason: 'the engine has not been found yet' };

  constructor(context: LxdDriverContext) {
    const { options, log, host } = context;
    this.#context = context;
    this.#client = new EngineClient({
      endpoint: options.endpoint,
      log,
      ...(options.project === undefined ? {} : { project: options.project }),
    });
    this.#directory = new Directory(this.#client);
    this.#calls = new EngineCalls(this.#client);
    this.#lifecycle = new Lifecycle({
      client: this.#client,
      directory: this.#directory,
      log,
      recovered: (limit) => this.#calls.removeOwed(limit),
    });
    this.#consoles = new ConsoleLogs(this.#client, this.#directory);
    this.#disks = new DiskImages({
      host,
      log,
      folder: join(options.stateFolder, 'disk-images'),
      maxDiskBytes: options.maxDiskImageGib * GIB,
    });
    this.#images = new ImageCache({
      client: this.#client,
      host,
      disks: this.#disks,
      log,
      timeoutMs: options.imageTimeoutMs,
      architectures: () => this.#started.architectures,
    });
    this.#power = new Power({
      client: this.#client,
      directory: this.#directory,
      calls: this.#calls,
      log,
      options,
    });
    this.moves = this.#createMoves();
  }

  #createMoves(): GuestMoves {
    const { options, log } = this.#context;
    return new LxdMoves({
      client: this.#client,
      directory: this.#directory,
      calls: this.#calls,
      log,
      options,
      setup: () => this.#started,
      reach: () => this.#reach,
      drives: () => this.#drives,
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#request('start of the driver', signal, async (limit) => {
      const engine = { client: this.#client, host: this.#context.host };
      this.#setup = await findSetup(engine, this.#context.options, limit);
      this.#reach = await findReach(this.#client, this.#context.options, limit);
      await this.#lifecycle.start(limit);
    });
    const { server, pool, rootQuota } = this.#started;
    const { server: engine, server_version: version } = server.environment ?? {};
    const moves = 'address' in this.#reach ? this.#reach.address : this.#reach.reason;
    this.#context.log.info('engine found', { engine, version, pool, rootQuota, moves });
  }

  async stop(): Promise<void> {
    this.#ending.abort(new AppError('unavailable', 'the driver stops'));
    await this.#sweep;
    this.#lifecycle.stop();
    this.#client.close();
  }

  /** Snapshots go in the background: an image that the engine still makes of one is waited for. */
  async removeLeftovers(signal: AbortSignal): Promise<void> {
    const context = { client: this.#client, calls: this.#calls, log: this.#context.log, live: this.#snapshots };
    this.#sweep = removeStaleSnapshots(context, this.#ending.signal).catch((error: unknown) => {
      if (this.#ending.signal.aborted) return;
      this.#context.log.warn('leftovers of snapshots are not looked for', { error: asError(error) });
    });
    await this.#disks.removeLeftovers();
    const uuids = new Set((await this.listInstances(signal)).map(({ uuid }) => uuid));
    await this.#removeStrays((owner) => !uuids.has(owner), signal);
    const drives = this.#drives;
    if (!drives) return;
    const stale = await drives.keepOnly(uuids, signal);
    if (stale.length > 0) this.#context.log.info('config drives of no instance removed', { drives: stale });
  }

  async #removeStrays(isStray: (uuid: string) => boolean, signal: AbortSignal): Promise<void> {
    const { pool } = this.#started;
    const strays = await removeStrayEphemerals({ client: this.#client, pool }, isStray, signal);
    if (strays.length > 0) this.#context.log.info('ephemeral disks of no instance removed', { volumes: strays });
  }

  async hostFacts(signal: AbortSignal): Promise<HostFacts> {
    const { nodeName, server, pool } = this.#started;
    const { options, host } = this.#context;
    return this.#request('facts of the host', signal, async (limit) => {
      const [resources, usage, uptime] = await Promise.all([
        this.#client.resources(limit),
        this.#client.storagePools.resources(pool, limit),
        uptimeOf(options.endpoint, host),
      ]);
      return hostFacts({ nodeName, server, resources, pool: usage, uptime });
    });
  }

  checkFlavor(flavor: SpawnFlavor): void {
    flavorSettings(flavor, this.#context.options.policy);
    const { swapComplaint } = this.#started;
    if (flavor.swapMib > 0 && swapComplaint !== null) throw new AppError('unsupported', swapComplaint);
  }

  async listInstances(signal: AbortSignal): Promise<readonly VirtInstance[]> {
    const ours = await this.#request('list of instances', signal, async (limit) => this.#directory.list(limit));
    return ours.map(([uuid, instance]) => ({
      uuid,
      name: instance.name,
      powerState: powerStateOf(instance.status_code),
      isArriving: isArriving(instance),
    }));
  }

  async powerState(uuid: string, signal: AbortSignal): Promise<PowerState> {
    const what = `state of instance ${uuid}`;
    const instance = await this.#request(what, signal, async (limit) => this.#directory.find(uuid, limit));
    return instance ? powerStateOf(instance.status_code) : POWER_STATE.nostate;
  }

  async spawn(spec: SpawnSpec, hooks: SpawnHooks, signal: AbortSignal): Promise<void> {
    await this.#spawning(`spawn of instance ${spec.uuid}`, signal, (limit) =>
      spawn(this.#spawnContext(), spec, hooks, limit),
    );
  }

  async cacheImage(image: SpawnImage, signal: AbortSignal): Promise<'cached' | 'existing'> {
    const { imageTimeoutMs } = this.#context.options;
    return within(`image ${image.id}`, imageTimeoutMs, signal, async (limit) => {
      if (await this.#images.has(image, limit)) return 'existing';
      await this.#images.ensure(image, limit);
      return 'cached';
    });
  }

  get canRescue(): boolean {
    return this.#started.lendsRoots;
  }

  get canBootFromVolume(): boolean {
    return this.#started.rootsOnDevices;
  }

  async rescue(spec: SpawnSpec, hooks: SpawnHooks, signal: AbortSignal): Promise<void> {
    await this.#spawning(`rescue of instance ${spec.uuid}`, signal, (limit) =>
      rescue(this.#spawnContext(), spec, hooks, limit),
    );
    this.#consoles.forget(spec.uuid);
  }

  async unrescue(uuid: string, signal: AbortSignal): Promise<void> {
    const context = { directory: this.#directory, calls: this.#calls };
    await within(`end of the rescue of ${uuid}`, this.#context.options.spawnTimeoutMs, signal, async (limit) => {
      if (await unrescue(context, uuid, limit)) this.#consoles.forget(uuid);
    });
  }

  async #spawning(what: string, signal: AbortSignal, work: (limit: AbortSignal) => Promise<void>): Promise<void> {
    const { spawnTimeoutMs, imageTimeoutMs } = this.#context.options;
    await within(what, spawnTimeoutMs + imageTimeoutMs, signal, work);
  }

  #spawnContext(): SpawnContext {
    return {
      client: this.#client,
      directory: this.#directory,
      calls: this.#calls,
      images: this.#images,
      host: this.#context.host,
      setup: this.#started,
      drives: this.#drives,
      profiles: this.#context.options.profiles,
      log: this.#context.log,
    };
  }

  async destroy(uuid: string, signal: AbortSignal): Promise<void> {
    await within(`deletion of instance ${uuid}`, this.#context.options.spawnTimeoutMs, signal, async (limit) => {
      await unrescue({ directory: this.#directory, calls: this.#calls }, uuid, limit);
      const instance = await this.#directory.find(uuid, limit);
      if (instance) await this.#calls.remove(instance.name, uuid, limit);
      else await this.#removeStrays((owner) => owner === uuid, limit);
      await this.#drives?.remove(uuid, limit);
      this.#directory.forget(uuid);
      this.#consoles.forget(uuid);
    });
  }

  async powerOn(uuid: string, nics: readonly SpawnNic[], signal: AbortSignal): Promise<void> {
    await this.#readyDrive(uuid, signal);
    await this.#power.on(uuid, nics, signal);
  }

  async suspendToDisk(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#power.suspendToDisk(uuid, signal);
  }

  async resumeFromDisk(uuid: string, nics: readonly SpawnNic[], signal: AbortSignal): Promise<void> {
    await this.#readyDrive(uuid, signal);
    await this.#power.on(uuid, nics, signal, { stateful: true });
  }

  /** The id map may have changed since, where the drive has to follow it by itself, and the host may have booted. */
  async #readyDrive(uuid: string, signal: AbortSignal): Promise<void> {
    const drives = this.#drives;
    if (!drives) return;
    const instance = await this.#directory.get(uuid, signal);
    if (powerStateOf(instance.status_code) !== POWER_STATE.shutdown) return;
    if (!drives.isMapped) await drives.own(uuid, instance);
    const disk = await drives.disk(uuid, signal);
    // asks the engine for nothing as long as the guest has what it should
    if (isDeepStrictEqual(instance.devices[DRIVE_DISK], disk[DRIVE_DISK])) return;
    const change = ({ [DRIVE_DISK]: _old, ...devices }: DeviceMap): DeviceMap => ({ ...devices, ...disk });
    await changeDevices(this.#client, instance.name, change, signal);
  }

  async powerOff(uuid: string, options: { readonly graceSeconds: number }, signal: AbortSignal): Promise<void> {
    await this.#power.off(uuid, options.graceSeconds, signal);
  }

  async resize(uuid: string, flavor: SpawnFlavor, signal: AbortSignal): Promise<void> {
    const setup = this.#started;
    await within(`resize of instance ${uuid}`, this.#context.options.spawnTimeoutMs, signal, async (limit) => {
      const { log } = this.#context;
      await resize({ client: this.#client, directory: this.#directory, setup, log }, uuid, flavor, limit);
    });
  }

  async softReboot(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#power.softReboot(uuid, signal);
  }

  async pause(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#power.pause(uuid, signal);
  }

  async unpause(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#power.unpause(uuid, signal);
  }

  async attachNic(uuid: string, nic: SpawnNic, signal: AbortSignal): Promise<void> {
    await within(`attachment to instance ${uuid}`, this.#context.options.spawnTimeoutMs, signal, async (limit) => {
      await attachNic(this.#client, (await this.#directory.get(uuid, limit)).name, nic, limit);
    });
  }

  async detachNic(uuid: string, macAddress: string, signal: AbortSignal): Promise<void> {
    await within(`detachment from instance ${uuid}`, this.#context.options.spawnTimeoutMs, signal, async (limit) => {
      await detachNic(this.#client, (await this.#directory.get(uuid, limit)).name, macAddress, limit);
    });
  }

  async attachVolume(uuid: string, volume: GuestVolume, signal: AbortSignal): Promise<void> {
    requireMounts([volume], this.#started.servesDisks);
    await this.#volumes(uuid, signal, (name, limit) => attachVolume(this.#client, name, volume, limit));
  }

  async detachVolume(uuid: string, volumeId: string, signal: AbortSignal): Promise<void> {
    await this.#volumes(uuid, signal, (name, limit) => detachVolume(this.#client, name, volumeId, limit));
  }

  async setVolumes(uuid: string, volumes: readonly GuestVolume[], signal: AbortSignal): Promise<void> {
    requireMounts(volumes, this.#started.servesDisks);
    await this.#volumes(uuid, signal, (name, limit) => setVolumes(this.#client, name, volumes, limit));
  }

  async #volumes(
    uuid: string,
    signal: AbortSignal,
    change: (name: string, limit: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const { endpoint, spawnTimeoutMs } = this.#context.options;
    if (endpoint.kind !== 'unix') throw new AppError('unsupported', 'volumes need the container engine on this host');
    await within(`volumes of instance ${uuid}`, spawnTimeoutMs, signal, async (limit) => {
      await change((await this.#directory.own(uuid, limit)).name, limit);
    });
  }

  async usage(uuid: string, signal: AbortSignal): Promise<GuestUsage> {
    return this.#request(`usage of instance ${uuid}`, signal, async (limit) => {
      const { name } = await this.#directory.get(uuid, limit);
      const state = await this.#client.instances.state(name, limit);
      if (powerStateOf(state.status_code) === POWER_STATE.shutdown) throw stateConflict(uuid, 'does not run');
      return usageOf(state);
    });
  }

  async consoleLog(uuid: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    const what = `console log of instance ${uuid}`;
    return this.#request(what, signal, async (limit) => this.#consoles.tail(uuid, maxBytes, limit));
  }

  async openConsole(uuid: string, terminal: Duplex, leave: AbortSignal): Promise<void> {
    const what = `console of instance ${uuid}`;
    const instance = await this.#request(what, leave, async (limit) => this.#directory.get(uuid, limit));
    if (powerStateOf(instance.status_code) !== POWER_STATE.running) throw stateConflict(uuid, 'does not run');
    await sitAtConsole(this.#client, instance.name, terminal, leave);
  }

  async setPassword(uuid: string, login: Login, signal: AbortSignal): Promise<void> {
    await within(`password of instance ${uuid}`, PASSWORD_LIMIT_MS, signal, async (limit) => {
      const { name, status_code: status } = await this.#directory.get(uuid, limit);
      if (powerStateOf(status) !== POWER_STATE.running) throw stateConflict(uuid, 'does not run');
      await setPassword(this.#client, name, login, limit);
    });
  }

  async snapshot(uuid: string, signal: AbortSignal): Promise<GuestSnapshot> {
    const { log, options } = this.#context;
    const context = { client: this.#client, log, timeoutMs: options.imageTimeoutMs, live: this.#snapshots };
    return within(`snapshot of instance ${uuid}`, options.spawnTimeoutMs, signal, async (limit) =>
      EngineSnapshot.take(context, (await this.#directory.own(uuid, limit)).name, limit),
    );
  }

  onLifecycle(listener: (event: LifecycleEvent) => void): Disposable {
    return this.#lifecycle.onLifecycle(listener);
  }

  /** Undefined: the engine is elsewhere, and sees no folder of this machine. */
  get #drives(): ConfigDrives | undefined {
    const { options, host } = this.#context;
    if (options.endpoint.kind !== 'unix') return undefined;
    const { mkisofsCommand: command, configDriveDisk: givesDisks } = options;
    const disks = new DriveDisks(host, { folder: join(options.stateFolder, 'config-drive-disks'), command });
    const folder = join(options.stateFolder, 'config-drives');
    return new ConfigDrives(host, { folder, isMapped: this.#started.mapsIds, disks, givesDisks });
  }

  get #started(): EngineSetup {
    if (!this.#setup) throw new AppError('unavailable', 'the engine has not been found yet');
    return this.#setup;
  }

  async #request<T>(what: string, signal: AbortSignal, work: (limit: AbortSignal) => Promise<T>): Promise<T> {
    return within(what, this.#context.options.requestTimeoutMs, signal, work);
  }
}
