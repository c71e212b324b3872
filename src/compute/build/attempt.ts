// One attempt to build an instance on this host (section 5.2 steps 3 to 14): all of it, or nothing is left.
import { kindOf, messageOf } from '#src/lib/errors.ts';
import { limited, sleep } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import type { GuestVolume, SpawnHooks, SpawnImage } from '#drivers/virt/driver.ts';
import type { EventWatch } from '../events/event-inbox.ts';
import { tagDevices } from '../guest/device-metadata.ts';
import { guestData } from '../guest/guest-data.ts';
import { guestFiles } from '../guest/injected-files.ts';
import { injectPassword } from '../guest/admin-password.ts';
import { asImageError, imageProperties, spawnImage } from '../images/spawn-image.ts';
import { spawnSpec } from '../images/spawn-spec.ts';
import { type Allocation, allocationOf, type NetworkPlan } from '../network/instance-networks.ts';
import { type NetworkWishes, readWishes } from '../network/request.ts';
import type { OperationTools } from '../operation-tools.ts';
import { transition } from '../transition.ts';
import type { Claim, ComputeServices } from '../types.ts';
import { isVolumeBacked, rootVolumeAmong } from '../volumes/root-volume.ts';
import { setAccessAddresses } from './access-addresses.ts';
import { nameBlockDevices } from './block-devices.ts';
import { connectVolumes } from './connect-volumes.ts';
import { type BuildStage, classify, isGone } from './failure.ts';
import { checkGroupPolicy } from './group-policy.ts';
import { refuseUnsupported } from './refusals.ts';
import { type BuildRequest, groupHint } from './request.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

const MAX_RETRY_PAUSE_MS = 30_000;

/** What a guest is put together from, side by side. */
interface Assembly {
  readonly network: Promise<Allocation>;
  /** With the volumes, which come on the way. */
  readonly states: Promise<readonly GuestVolume[]>;
  readonly cached: Promise<readonly Vif[]>;
  /** null: it boots from a volume. */
  readonly image: SpawnImage | null;
}

/** An error together with the part of the build that it came from. */
class StageError extends Error {
  readonly stage: BuildStage;
  readonly error: unknown;

  constructor(stage: BuildStage, error: unknown) {
    super(`${stage}: ${messageOf(error)}`, { cause: error });
    this.stage = stage;
    this.error = error;
  }
}

/** What the build's failure was, unwrapped. */
export function failureOf(thrown: unknown, uuid: string): ReturnType<typeof classify> {
  return thrown instanceof StageError ? classify(thrown.error, uuid, thrown.stage) : classify(thrown, uuid);
}

export class BuildAttempt {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #context: RequestContext;
  readonly #request: BuildRequest;
  readonly #instance: NovaObject<'Instance'>;
  readonly #signal: AbortSignal;
  /** Ends the parts that still run when one has failed. */
  readonly #stop = new AbortController();
  /** The engine had a guest of this instance before: what this build did not make it does not remove. */
  #isForeign = false;
  #plan: Promise<NetworkPlan> | undefined;

  constructor(
    services: ComputeServices,
    tools: OperationTools,
    { context, request, signal }: { context: RequestContext; request: BuildRequest; signal: AbortSignal },
  ) {
    this.#services = services;
    this.#tools = tools;
    this.#context = context;
    this.#request = request;
    this.#instance = request.instance;
    this.#signal = AbortSignal.any([signal, this.#stop.signal]);
  }

  /** Asks Neutron what there is, while Nova is told that the build begins. Changes nothing. */
  prepare(): void {
    const wishes = readWishes(this.#request.requestedNetworks);
    if (!wishes.isNone && !this.#isAllocated()) this.#plan = this.#planNetwork(wishes);
  }

  async run(): Promise<void> {
    const { notifications, tracker, virt } = this.#services;
    const extra = { image_name: this.#request.image['name'] ?? null };
    notifications.moment(this.#context, this.#instance, { name: 'create', phase: 'start', extra });
    try {
      const metadata = this.#instance.find('system_metadata') ?? {};
      this.#instance.set('system_metadata', { ...metadata, boot_roles: this.#context.roles.join(',') });
      refuseUnsupported(this.#request, virt);
      const isOnVolume = isVolumeBacked(this.#instance, this.#request.blockDevices);
      const claim = await tracker.instanceClaim(this.#context, this.#instance, { isOnVolume });
      await this.#build(claim);
    } catch (error) {
      notifications.moment(this.#context, this.#instance, { name: 'create', phase: 'error', error });
      throw error;
    }
    const success = { message: 'Success' };
    notifications.moment(this.#context, this.#instance, { name: 'create', phase: 'end', extra: success });
  }

  /** With a claim: when anything fails, the guest goes first and the claim after it. */
  async #build(claim: Claim): Promise<void> {
    const uuid = this.#instance.get('uuid');
    try {
      const hint = this.#services.config.build.disableGroupPolicyCheckUpcall ? null : groupHint(this.#request);
      if (hint !== null) await checkGroupPolicy(this.#services, this.#context, this.#instance, hint);
      using watch = this.#tools.inbox.watch(uuid);
      await this.#publish(await this.#assemble(watch));
    } catch (error) {
      await claim.abort(limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
        if (!isGone(cause)) this.#services.log.warn('cannot take back a claim', { instance: uuid, error: cause });
      });
      throw error;
    }
  }

  /**
   * Network, states and the container come about side by side: the container's init waits for the other two, so that
   * nothing of the guest runs before Nova has `spawning` and the interfaces are there.
   */
  async #assemble(watch: EventWatch): Promise<readonly Vif[]> {
    const { virt, glance } = this.#services;
    const wishes = readWishes(this.#request.requestedNetworks);
    const { image: sent, blockDevices } = this.#request;
    const isOnVolume = rootVolumeAmong(blockDevices) !== undefined;
    const image = isOnVolume ? null : await spawnImage(glance, this.#context, sent, this.#signal);
    const spec = spawnSpec(this.#instance, image, this.#services, blockDevices);
    const entered = this.#guard('other', this.#enterNetworking());
    // ports are made while Nova is told so, and bound when it knows
    const network = this.#guard('network', this.#network(wishes, entered));
    const cached = this.#guard(
      'network',
      network.then((allocation) => allocation.cached),
    );
    const states = this.#guard(
      'other',
      entered.then(() => this.#enterSpawning()),
    );
    const hooks = this.#hooks({ network, states, cached, image }, watch);
    const spawned = this.#guard(
      'other',
      virt.spawn(spec, hooks, this.#signal).catch((error: unknown) => {
        this.#isForeign = kindOf(error) === 'conflict' && !this.#stop.signal.aborted;
        throw asImageError(error, image);
      }),
    );
    await Promise.allSettled([cached, states, spawned]);
    if (!this.#stop.signal.aborted) {
      await spawned;
      await injectPassword(this.#services, this.#instance, this.#request.adminPassword, this.#signal);
      return await cached;
    }
    await this.#unplug(network);
    await this.#remove(this.#stop.signal.reason);
    throw this.#stop.signal.reason;
  }

  /** The cache, by which others unplug, may not have them yet. */
  async #unplug(network: Promise<Allocation>): Promise<void> {
    if (this.#isForeign) return;
    const vifs = await network.then((allocation) => allocation.vifs).catch(() => []);
    await this.#tools.plugger.unplug(vifs);
  }

  /** The first part that fails is the reason of the build's failure; the others are stopped. */
  async #guard<T>(stage: BuildStage, part: Promise<T>): Promise<T> {
    try {
      return await part;
    } catch (error) {
      const reason = this.#callerAborted(error);
      if (!this.#stop.signal.aborted) {
        this.#stop.abort(reason instanceof StageError ? reason : new StageError(stage, reason));
      }
      throw error;
    }
  }

  /** An abort from outside (the instance is being deleted) is the reason, whatever the part made of it. */
  #callerAborted(error: unknown): unknown {
    return this.#signal.aborted ? this.#signal.reason : error;
  }

  async #enterNetworking(): Promise<void> {
    if (this.#isAllocated()) return;
    await this.#save(TASK_STATES.networking, [null]);
  }

  async #enterSpawning(): Promise<readonly GuestVolume[]> {
    const { conductor } = this.#services;
    const devices = nameBlockDevices(this.#instance, this.#request.blockDevices);
    this.#signal.throwIfAborted();
    await Promise.all([
      ...devices.map((device) => conductor.save(this.#context, device)),
      // Stock computes do not check here, and write over a `deleting` that came meanwhile.
      this.#save(TASK_STATES.blockDeviceMapping, [TASK_STATES.networking, null]),
    ]);
    this.#signal.throwIfAborted();
    const { instance, blockDevices } = this.#request;
    const parts = { services: this.#services, volumes: this.#tools.volumes };
    const volumes = await connectVolumes(parts, this.#context, { instance, blockDevices }, this.#signal);
    await this.#save(TASK_STATES.spawning, TASK_STATES.blockDeviceMapping);
    return volumes;
  }

  async #save(task: string, expectedTaskState: string | readonly (string | null)[]): Promise<void> {
    const fields = { vm_state: VM_STATES.building, task_state: task };
    const { conductor } = this.#services;
    await transition({ conductor, context: this.#context }, this.#instance, fields, { expectedTaskState });
  }

  /** Whether an earlier attempt on another host left its ports to us. */
  #isAllocated(): boolean {
    return this.#instance.find('system_metadata')?.['network_allocated'] === 'True';
  }

  async #network(networks: NetworkWishes, entered: Promise<void>): Promise<Allocation> {
    const { networks: service } = this.#tools;
    if (this.#isAllocated()) {
      await entered;
      await service.bindHere(this.#context, this.#instance, this.#signal);
      return allocationOf(await service.refresh(this.#context, this.#instance, { signal: this.#signal }));
    }
    if (networks.isNone) return allocationOf([]);
    const { networkAllocateRetries: retries } = this.#services.config.build;
    for (let attempt = 0; ; attempt += 1) {
      try {
        const plan = await (this.#plan ?? this.#planNetwork(networks));
        return await service.allocate(this.#context, this.#instance, { plan, bindAfter: entered }, this.#signal);
      } catch (error) {
        this.#plan = undefined;
        if (attempt >= retries || this.#signal.aborted) throw error;
        this.#services.log.warn('cannot allocate the network, trying again', { instance: this.#instance, error });
        await sleep(Math.min(1000 * 2 ** attempt, MAX_RETRY_PAUSE_MS), this.#signal);
      }
    }
  }

  #planNetwork(networks: NetworkWishes): Promise<NetworkPlan> {
    const wishes = { networks, securityGroups: this.#request.securityGroups };
    const plan = this.#tools.networks.plan(this.#context, this.#instance, wishes, this.#signal);
    // The build may fail before it is needed; whoever needs it gets the error.
    plan.catch(() => undefined);
    return plan;
  }

  #hooks({ network, states, cached, image }: Assembly, watch: EventWatch): SpawnHooks {
    const { plugger, volumes } = this.#tools;
    const { conductor, config } = this.#services;
    const { vifPluggingTimeoutMs: timeoutMs, vifPluggingIsFatal: isFatal } = config.build;
    // What the driver itself gave up is not the reason: spawn() will say what was.
    const reported = <T>(work: Promise<T>, signal: AbortSignal): Promise<T> =>
      work.catch((error: unknown) => (signal.aborted ? Promise.reject(error) : this.#guard('other', work)));
    return {
      network: async (signal) => {
        const [{ vifs }] = await Promise.all([network, states]);
        return await reported(plugger.plug(this.#instance, vifs, signal), signal);
      },
      volumes: async (signal) => reported(states, signal),
      rootImage: (signal) => volumes.rootImage(this.#context, this.#request.blockDevices, signal),
      guest: async (signal) => {
        const { injectedFiles, adminPassword, blockDevices } = this.#request;
        const properties = image?.properties ?? imageProperties(this.#request.image);
        const wish = { image: { properties }, files: guestFiles(injectedFiles), adminPassword, blockDevices };
        const asking = { services: this.#services, context: this.#context, signal };
        await reported(tagDevices({ conductor, context: this.#context }, this.#request), signal);
        return await reported(guestData(asking, this.#instance, wish, await cached), signal);
      },
      wired: async (signal) => {
        const { vifs } = await network;
        await reported(plugger.waitUntilWired(this.#instance, vifs, { watch, timeoutMs, isFatal }, signal), signal);
      },
    };
  }

  /** The guest of a failed build. When it cannot be removed, no other host may have the instance. */
  async #remove(failure: unknown): Promise<void> {
    const { virt, log } = this.#services;
    const instanceUuid = this.#instance.get('uuid');
    if (this.#isForeign) return;
    try {
      await virt.destroy(instanceUuid, limited(UNDO_LIMIT_MS));
    } catch (error) {
      log.warn('cannot remove the guest of a failed build, not rescheduling', { instance: instanceUuid, error });
      const judged = failureOf(failure, instanceUuid);
      if (judged.kind !== 'reschedule') return;
      const params = { instance_uuid: instanceUuid, reason: judged.reason };
      throw novaException('BuildAbortException', params, { cause: judged.error });
    }
  }

  /**
   * Nova learns that the guest runs. When that fails the guest goes again, and the build is not tried elsewhere: the
   * conductor may have taken the news all the same, and there must never be two guests of one instance.
   */
  async #publish(vifs: readonly Vif[]): Promise<void> {
    try {
      await this.#saveActive(vifs);
    } catch (error) {
      await this.#remove(error);
      if (isGone(error)) throw error;
      const params = { instance_uuid: this.#instance.get('uuid'), reason: 'the running guest could not be recorded' };
      throw novaException('BuildAbortException', params, { cause: error });
    }
    await this.#tools.announce(this.#context, this.#instance);
  }

  async #saveActive(vifs: readonly Vif[]): Promise<void> {
    const { conductor, virt } = this.#services;
    const instance = this.#instance;
    const { network_allocated: _allocated, ...metadata } = instance.find('system_metadata') ?? {};
    instance.set('system_metadata', metadata);
    setAccessAddresses(instance, vifs, this.#services.config.build.defaultAccessIpNetworkName);
    const fields = {
      power_state: await virt.powerState(instance.get('uuid'), this.#signal),
      vm_state: VM_STATES.active,
      task_state: null,
      launched_at: new Date(),
    };
    const options = { expectedTaskState: TASK_STATES.spawning };
    await transition({ conductor, context: this.#context }, instance, fields, options);
  }
}
