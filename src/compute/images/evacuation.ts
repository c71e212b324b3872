// An instance of a host that is down is made anew here, from its image and with its ports (section 5.5, recreate=true).
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES, POWER_STATES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import type { SpawnImage } from '#drivers/virt/driver.ts';
import { refuseUnsupported } from '../build/refusals.ts';
import { injectPassword } from '../guest/admin-password.ts';
import { guestData } from '../guest/guest-data.ts';
import { guestFiles } from '../guest/injected-files.ts';
import { cachedVifs } from '../network/info-cache.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { transition } from '../transition.ts';
import type { ComputeServices, MoveRecords } from '../types.ts';
import { instanceName } from './instance-name.ts';
import { type RebuildWish, replaced } from './rebuild-operations.ts';
import { asImageError, spawnImage } from './spawn-image.ts';
import { spawnSpec } from './spawn-spec.ts';
import { rootVolumeAmong } from '../volumes/root-volume.ts';
import { wantsPins } from '../resources/pinning.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;
type Wish = RebuildWish & { readonly image: SpawnImage | null };

export class Evacuation {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
  }

  /** After a failure the instance is in error, nothing of it is here, and it can be evacuated again. */
  async evacuate(caller: RequestContext, instance: Instance, wish: RebuildWish, signal: AbortSignal): Promise<void> {
    const { notifications } = this.#services;
    const { migration } = wish;
    const context = caller.elevated();
    if (!migration) throw novaException('MigrationError', { reason: 'an evacuation comes with a migration' });
    const move = { instance, migration };
    const isOff = instance.get('vm_state') === VM_STATES.stopped || wish.targetState === VM_STATES.stopped;
    notifications.moment(context, instance, { name: 'exists', phase: 'once', ...replaced(wish) });
    notifications.moment(context, instance, { name: 'rebuild', phase: 'start' });
    try {
      await this.#claim(context, move);
      await this.#rebuild(context, instance, wish, signal);
      await this.settle(context, move);
    } catch (error) {
      notifications.moment(context, instance, { name: 'rebuild', phase: 'error', error });
      await this.#giveUp(context, move, isNova(error, 'InstanceNotFound', 'UnexpectedDeletingTaskStateError'));
      throw error;
    }
    if (isOff) await this.#stop(context, instance, signal);
    await this.#tools.announce(context, instance);
    notifications.moment(context, instance, { name: 'rebuild', phase: 'end' });
  }

  async #claim(context: RequestContext, { instance, migration }: MoveRecords): Promise<void> {
    const { tracker, virt } = this.#services;
    if (!virt.info.capabilities.has('supports_evacuate')) throw novaException('InstanceEvacuateNotSupported', {});
    // its pins are of the host that is gone, and moves find no others yet
    if (wantsPins(instance, instance.get('flavor'))) throw novaException('InstanceEvacuateNotSupported', {});
    await tracker.resizeClaim(context, instance, { migration, flavor: instance.get('flavor') });
  }

  async #rebuild(context: RequestContext, instance: Instance, wish: RebuildWish, signal: AbortSignal): Promise<void> {
    const { conductor, virt, glance, config } = this.#services;
    const uuid = instance.get('uuid');
    const { rebuilding, rebuildBlockDeviceMapping: mapping, rebuildSpawning: spawning } = TASK_STATES;
    if ((await virt.powerState(uuid, signal)) !== POWER_STATES.nostate) {
      throw novaException('InstanceExists', { name: instanceName(instance, config.build.instanceNameTemplate) });
    }
    // disks of a dead host are out of reach, whatever the sender thinks of shared storage
    const isOnVolume = rootVolumeAmong(wish.blockDevices) !== undefined;
    const image = isOnVolume ? null : await spawnImage(glance, context, { id: instance.find('image_ref') }, signal);
    refuseUnsupported(buildRequestOf(instance, image?.properties ?? {}, wish), virt);
    const saving = { conductor, context };
    const began = { power_state: POWER_STATES.nostate, task_state: rebuilding };
    await transition(saving, instance, began, { expectedTaskState: [rebuilding] });
    await this.#tools.networks.bindHere(context, instance, signal);
    await this.#tools.networks.refresh(context, instance, { signal });
    await transition(saving, instance, { task_state: mapping }, { expectedTaskState: [rebuilding] });
    // the dead host loses its way to them
    await this.#tools.volumes.reserveAnew(context, instance, signal);
    await transition(saving, instance, { task_state: spawning }, { expectedTaskState: [mapping] });
    try {
      await this.#spawn(context, instance, { ...wish, image }, signal);
      await injectPassword(this.#services, instance, wish.adminPassword, signal);
      const fields = {
        power_state: await virt.powerState(uuid, signal),
        vm_state: VM_STATES.active,
        task_state: null,
        launched_at: new Date(),
      };
      await transition(saving, instance, fields, { expectedTaskState: [spawning] });
    } catch (error) {
      await this.#remove(instance);
      throw asImageError(error, image);
    }
  }

  async #spawn(context: RequestContext, instance: Instance, wish: Wish, signal: AbortSignal): Promise<void> {
    const { virt, config } = this.#services;
    const { plugger, inbox, volumes } = this.#tools;
    const { vifPluggingTimeoutMs: timeoutMs, vifPluggingIsFatal: isFatal } = config.build;
    const { image, adminPassword, blockDevices } = wish;
    const guest = {
      image: { properties: image?.properties ?? {} },
      files: guestFiles(wish.injectedFiles),
      adminPassword,
      blockDevices,
    };
    const vifs = cachedVifs(instance);
    using watch = inbox.watch(instance.get('uuid'));
    const hooks = {
      network: (limit: AbortSignal) => plugger.plug(instance, vifs, limit),
      volumes: (limit: AbortSignal) => volumes.present(context, instance, limit),
      rootImage: (limit: AbortSignal) => volumes.rootImage(context, blockDevices, limit),
      guest: (limit: AbortSignal) =>
        guestData({ services: this.#services, context, signal: limit }, instance, guest, vifs),
      wired: (limit: AbortSignal) => plugger.waitUntilWired(instance, vifs, { watch, timeoutMs, isFatal }, limit),
    };
    // ephemeral disks are made anew: those of the dead host are out of reach
    await virt.spawn(spawnSpec(instance, image, this.#services, blockDevices), hooks, signal);
  }

  /** The instance is this host's. Safe to repeat. */
  async settle(context: RequestContext, { instance, migration }: MoveRecords): Promise<void> {
    const { conductor, tracker, config } = this.#services;
    const here = { host: config.host, node: tracker.nodeName, compute_id: tracker.computeNodeId };
    await transition({ conductor, context }, instance, here);
    await conductor.objectMethod(context, instance, { method: 'drop_migration_context' });
    migration.set('status', MIGRATION_STATUSES.done);
    await conductor.save(context, migration);
    await tracker.keepRoom(instance, null);
    await tracker.updateUsage(context, instance);
  }

  /** Of one that a killed process had begun; in error, it can be evacuated again. */
  async fail(context: RequestContext, move: MoveRecords): Promise<void> {
    await this.#remove(move.instance);
    await this.#giveUp(context, move, false);
  }

  async #giveUp(context: RequestContext, { instance, migration }: MoveRecords, isGone: boolean): Promise<void> {
    const { conductor, placement, tracker, log } = this.#services;
    const uuid = instance.get('uuid');
    migration.set('status', MIGRATION_STATUSES.failed);
    if (!isGone) instance.set('vm_state', VM_STATES.error).set('task_state', null).set('migration_context', null);
    const undo = [
      conductor.save(context, migration),
      ...(isGone ? [] : [conductor.save(context, instance)]),
      placement.removeFromAllocations(uuid, tracker.computeNodeUuid, limited(UNDO_LIMIT_MS)),
      tracker.release(instance),
    ];
    for (const result of await Promise.allSettled(undo)) {
      if (result.status === 'fulfilled') continue;
      log.warn('a failed evacuation is not wholly taken back', { instance: uuid, error: result.reason });
    }
  }

  async #remove(instance: Instance): Promise<void> {
    const { virt, log } = this.#services;
    const uuid = instance.get('uuid');
    await virt.destroy(uuid, limited(UNDO_LIMIT_MS)).catch((error: unknown) => {
      log.error('cannot remove the guest of a failed evacuation', { instance: uuid, error });
    });
    await this.#services.volumes.disconnectInstance(uuid, limited(UNDO_LIMIT_MS)).catch((error: unknown) => {
      log.error('volumes of a failed evacuation stay connected', { instance: uuid, error });
    });
    await this.#tools.plugger.unplug(cachedVifs(instance));
  }

  async #stop(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { conductor } = this.#services;
    const fields = { vm_state: VM_STATES.active, task_state: TASK_STATES.poweringOff, progress: 0 };
    await transition({ conductor, context }, instance, fields);
    await this.#power.stop(context, instance, false, signal);
  }
}

function buildRequestOf(instance: Instance, properties: Readonly<Record<string, string>>, wish: RebuildWish) {
  return {
    instance,
    image: { properties },
    requestSpec: null,
    filterProperties: {},
    acceleratorIds: wish.acceleratorIds,
    adminPassword: null,
    injectedFiles: wish.injectedFiles,
    requestedNetworks: null,
    securityGroups: [],
    blockDevices: wish.blockDevices,
    hostList: null,
  };
}
