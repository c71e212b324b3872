// An engine in memory behind the virt contract: for tests, for trying a control plane, for simulating many hosts.
import { type Duplex, Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
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
  type VirtInstance,
} from '../driver.ts';
import { EchoConsoles } from './echo-consoles.ts';
import { FAKE_INFO, fakeFacts, type FakeOptions } from './facts.ts';
import { FakeImages, requireFormat } from './images.ts';
import { type FakeInstance, seenFromOutside, withNic } from './instance.ts';
import { FakeMoves } from './moves.ts';
import { prepare } from './prepare.ts';
import { usageOf } from './usage.ts';
import { changeVolumes } from './volumes.ts';

export type { FakeOptions } from './facts.ts';
export type { FakeInstance } from './instance.ts';

export class FakeVirtDriver implements VirtDriver {
  readonly info = FAKE_INFO;
  /** What there is, by uuid; tests read and change it. */
  readonly instances = new Map<string, FakeInstance>();
  readonly moves = new FakeMoves(this.instances, (method) => this.#failOnDemand(method));
  /** Taken, and not yet disposed of. */
  openSnapshots = 0;
  /** By uuid. */
  readonly passwords = new Map<string, string>();
  readonly #options: Required<FakeOptions>;
  readonly #images = new FakeImages();
  readonly #listeners = new Set<(event: LifecycleEvent) => void>();
  /** Uuids between the begin and the end of spawn(): they exist for nobody else yet. */
  readonly #spawning = new Set<string>();
  readonly #consoles = new EchoConsoles();
  readonly #failures = new Map<string, Error>();

  constructor(options: FakeOptions) {
    this.#options = { vcpus: 10, memoryMib: 8192, diskGib: 1028, delayMs: 0, ...options };
  }

  async start(): Promise<void> {
    this.#failOnDemand('start');
  }

  async stop(): Promise<void> {
    this.#listeners.clear();
  }

  /** The next call of `method` rejects with `error`. */
  failNext(method: keyof VirtDriver | keyof GuestMoves, error: Error): void {
    this.#failures.set(method, error);
  }

  /** Something happened in the engine that nobody asked for; the container stops, starts … */
  emit(event: LifecycleEvent, powerState: PowerState): void {
    const instance = this.instances.get(event.uuid);
    if (instance) instance.powerState = powerState;
    for (const listener of this.#listeners) listener(event);
  }

  checkFlavor(flavor: SpawnFlavor): void {
    const refused = Object.keys(flavor.extraSpecs).find((key) => key.startsWith('fake:refused'));
    if (refused !== undefined) throw new AppError('unsupported', `${refused} of the flavor is not supported`);
  }

  async removeLeftovers(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#failOnDemand('removeLeftovers');
  }

  async hostFacts(signal: AbortSignal): Promise<HostFacts> {
    signal.throwIfAborted();
    this.#failOnDemand('hostFacts');
    return fakeFacts(
      this.#options,
      [...this.instances.values()].map(({ spec }) => spec.flavor),
    );
  }

  async listInstances(signal: AbortSignal): Promise<readonly VirtInstance[]> {
    signal.throwIfAborted();
    this.#failOnDemand('listInstances');
    return [...this.instances].map(seenFromOutside);
  }

  async powerState(uuid: string, signal: AbortSignal): Promise<PowerState> {
    signal.throwIfAborted();
    this.#failOnDemand('powerState');
    return this.instances.get(uuid)?.powerState ?? POWER_STATE.nostate;
  }

  async spawn(spec: SpawnSpec, hooks: SpawnHooks, signal: AbortSignal): Promise<void> {
    const { uuid, image } = spec;
    if (this.instances.has(uuid) || this.#spawning.has(uuid)) {
      throw new AppError('conflict', `instance ${uuid} exists`);
    }
    if (image) requireFormat(image);
    this.#spawning.add(uuid);
    try {
      const prepared = await prepare(this.#images, { image, hooks }, signal);
      await sleep(this.#options.delayMs, signal);
      this.#failOnDemand('spawn');
      this.instances.set(uuid, {
        spec,
        ...prepared,
        powerState: POWER_STATE.running,
        console: `${spec.hostname} login: `,
      });
    } finally {
      this.#spawning.delete(uuid);
    }
    this.#notify(uuid, 'started');
  }

  async destroy(uuid: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#failOnDemand('destroy');
    if (this.instances.delete(uuid)) this.#notify(uuid, 'stopped');
  }

  async cacheImage(image: SpawnImage, signal: AbortSignal): Promise<'cached' | 'existing'> {
    this.#failOnDemand('cacheImage');
    requireFormat(image);
    if (this.#images.has(image)) return 'existing';
    await this.#images.fetch(image, signal);
    return 'cached';
  }

  canRescue = true;
  canBootFromVolume = true;

  async rescue(spec: SpawnSpec, hooks: SpawnHooks, signal: AbortSignal): Promise<void> {
    const rescued = this.#existing(spec.uuid);
    if (rescued.rescued) throw new AppError('conflict', `instance ${spec.uuid} is rescued already`);
    if (rescued.powerState !== POWER_STATE.shutdown) throw new AppError('conflict', `instance ${spec.uuid} runs`);
    const { nics, guest } = await prepare(this.#images, { image: spec.image, hooks }, signal);
    await sleep(this.#options.delayMs, signal);
    this.#failOnDemand('rescue');
    const console = `${spec.hostname} rescue login: `;
    const told = guest && { ...guest, configDrive: null };
    const running = { powerState: POWER_STATE.running, volumes: [], console, rescued };
    this.instances.set(spec.uuid, { spec, nics, guest: told, ...running });
    this.#notify(spec.uuid, 'started');
  }

  async unrescue(uuid: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#failOnDemand('unrescue');
    const rescued = this.instances.get(uuid)?.rescued;
    if (rescued) this.instances.set(uuid, rescued);
  }

  async powerOn(uuid: string, nics: readonly SpawnNic[], signal: AbortSignal): Promise<void> {
    const instance = this.#existing(uuid);
    this.#failOnDemand('powerOn');
    if (instance.powerState === POWER_STATE.running) return;
    await sleep(this.#options.delayMs, signal);
    instance.nics = nics;
    instance.powerState = POWER_STATE.running;
    instance.isKept = false;
    this.#notify(uuid, 'started');
  }

  async suspendToDisk(uuid: string, signal: AbortSignal): Promise<void> {
    const instance = this.#existing(uuid);
    this.#failOnDemand('suspendToDisk');
    if (instance.isKept) return;
    if (instance.powerState !== POWER_STATE.running) throw new AppError('conflict', `instance ${uuid} does not run`);
    await sleep(this.#options.delayMs, signal);
    instance.powerState = POWER_STATE.shutdown;
    instance.isKept = true;
    this.#notify(uuid, 'stopped');
  }

  async resumeFromDisk(uuid: string, nics: readonly SpawnNic[], signal: AbortSignal): Promise<void> {
    this.#failOnDemand('resumeFromDisk');
    await this.powerOn(uuid, nics, signal);
  }

  async powerOff(
    uuid: string,
    { graceSeconds }: { readonly graceSeconds: number },
    signal: AbortSignal,
  ): Promise<void> {
    const instance = this.#existing(uuid);
    this.#failOnDemand('powerOff');
    if (instance.powerState === POWER_STATE.shutdown) return;
    if (graceSeconds > 0) await sleep(Math.min(this.#options.delayMs, graceSeconds * 1000), signal);
    instance.powerState = POWER_STATE.shutdown;
    this.#notify(uuid, 'stopped');
  }

  async resize(uuid: string, flavor: SpawnFlavor, signal: AbortSignal): Promise<void> {
    const instance = this.#existing(uuid);
    this.#failOnDemand('resize');
    await sleep(this.#options.delayMs, signal);
    instance.spec = { ...instance.spec, flavor };
  }

  async softReboot(uuid: string, signal: AbortSignal): Promise<void> {
    const instance = this.#existing(uuid);
    this.#failOnDemand('softReboot');
    if (instance.powerState !== POWER_STATE.running) throw new AppError('conflict', `instance ${uuid} does not run`);
    await sleep(this.#options.delayMs, signal);
    instance.console += `\n${instance.spec.hostname} login: `;
  }

  async pause(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#freeze('pause', uuid, { state: POWER_STATE.paused, event: 'paused' }, signal);
  }

  async unpause(uuid: string, signal: AbortSignal): Promise<void> {
    await this.#freeze('unpause', uuid, { state: POWER_STATE.running, event: 'resumed' }, signal);
  }

  async #freeze(
    method: 'pause' | 'unpause',
    uuid: string,
    { state, event }: { readonly state: PowerState; readonly event: LifecycleEvent['event'] },
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted();
    const instance = this.#existing(uuid);
    this.#failOnDemand(method);
    if (instance.powerState === POWER_STATE.shutdown) throw new AppError('conflict', `instance ${uuid} does not run`);
    if (instance.powerState === state) return;
    instance.powerState = state;
    this.#notify(uuid, event);
  }

  async attachNic(uuid: string, nic: SpawnNic, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const instance = this.#existing(uuid);
    this.#failOnDemand('attachNic');
    instance.nics = withNic(instance.nics, nic);
  }

  async detachNic(uuid: string, macAddress: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const instance = this.#existing(uuid);
    this.#failOnDemand('detachNic');
    instance.nics = instance.nics.filter((nic) => nic.macAddress !== macAddress);
  }

  async attachVolume(uuid: string, volume: GuestVolume, signal: AbortSignal): Promise<void> {
    const others = (volumes: readonly GuestVolume[]) => volumes.filter(({ volumeId }) => volumeId !== volume.volumeId);
    this.#volumes('attachVolume', uuid, (volumes) => [...others(volumes), volume], signal);
  }

  async detachVolume(uuid: string, id: string, signal: AbortSignal): Promise<void> {
    this.#volumes('detachVolume', uuid, (volumes) => volumes.filter(({ volumeId }) => volumeId !== id), signal);
  }

  async setVolumes(uuid: string, volumes: readonly GuestVolume[], signal: AbortSignal): Promise<void> {
    this.#volumes('setVolumes', uuid, () => volumes, signal);
  }

  #volumes(
    method: keyof VirtDriver,
    uuid: string,
    change: Parameters<typeof changeVolumes>[1],
    signal: AbortSignal,
  ): void {
    signal.throwIfAborted();
    const instance = this.#existing(uuid);
    this.#failOnDemand(method);
    changeVolumes(instance, change);
  }

  async usage(uuid: string, signal: AbortSignal): Promise<GuestUsage> {
    signal.throwIfAborted();
    const { nics, spec, powerState } = this.#existing(uuid);
    if (powerState === POWER_STATE.shutdown) throw new AppError('conflict', `instance ${uuid} does not run`);
    return usageOf(spec, nics);
  }

  async consoleLog(uuid: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
    signal.throwIfAborted();
    const bytes = new TextEncoder().encode(this.#existing(uuid).console);
    return bytes.subarray(Math.max(0, bytes.length - maxBytes));
  }

  async openConsole(uuid: string, terminal: Duplex, leave: AbortSignal): Promise<void> {
    this.#failOnDemand('openConsole');
    await this.#consoles.sit(this.#existing(uuid), terminal, leave);
  }

  async setPassword(uuid: string, login: Login, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { powerState } = this.#existing(uuid);
    this.#failOnDemand('setPassword');
    if (powerState !== POWER_STATE.running) throw new AppError('conflict', `instance ${uuid} does not run`);
    if (login.user !== 'root') throw new AppError('invalid', `${login.user} does not exist`);
    this.passwords.set(uuid, login.password);
  }

  async snapshot(uuid: string, signal: AbortSignal): Promise<GuestSnapshot> {
    const { spec } = this.#existing(uuid);
    this.#failOnDemand('snapshot');
    await sleep(this.#options.delayMs, signal);
    this.openSnapshots += 1;
    return {
      diskFormat: 'raw',
      containerFormat: 'bare',
      open: async () => Readable.from([Buffer.from(`root of ${spec.uuid}`)]),
      [Symbol.asyncDispose]: async () => {
        this.openSnapshots -= 1;
      },
    };
  }

  onLifecycle(listener: (event: LifecycleEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #existing(uuid: string): FakeInstance {
    const instance = this.instances.get(uuid);
    if (!instance) throw new AppError('not_found', `no instance ${uuid}`);
    return instance;
  }

  /** Engines report afterwards, never from within the call. */
  #notify(uuid: string, event: LifecycleEvent['event']): void {
    setImmediate(() => {
      for (const listener of this.#listeners) listener({ uuid, event });
    });
  }

  #failOnDemand(method: string): void {
    const failure = this.#failures.get(method);
    this.#failures.delete(method);
    if (failure) throw failure;
  }
}
