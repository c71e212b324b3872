// A guest made anew from an image, on its host, with its ports and its resources (section 5.5, recreate=false).
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import type { SpawnImage } from '#drivers/virt/driver.ts';
import { refuseUnsupported } from '../build/refusals.ts';
import { injectPassword } from '../guest/admin-password.ts';
import { guestData } from '../guest/guest-data.ts';
import { guestFiles, type InjectedFile } from '../guest/injected-files.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { asImageError, spawnImage } from './spawn-image.ts';
import { spawnSpec } from './spawn-spec.ts';
import { rootVolumeAmong } from '../volumes/root-volume.ts';

type Instance = NovaObject<'Instance'>;

const DESTROY_LIMIT_MS = 300_000;
const GIB = 1024 ** 3;

export interface RebuildWish {
  readonly imageId: string | null;
  /** What the instance had before the API entered the new image. */
  readonly before: {
    readonly imageId: string | null;
    readonly metadata: Readonly<Record<string, string | null>> | null;
  };
  /** Another host's guest, which is gone with its host: see evacuation.ts. */
  readonly isEvacuation: boolean;
  /** Of an evacuation. */
  readonly migration: NovaObject<'Migration'> | null;
  /** The vm_state that an evacuation is to end in; null: the one it had. */
  readonly targetState: string | null;
  readonly preserveEphemeral: boolean;
  /** A volume that it boots from gets the image as well; else that stays as it is. */
  readonly overwritesRoot: boolean;
  readonly injectedFiles: readonly InjectedFile[];
  readonly adminPassword: string | null;
  readonly blockDevices: readonly NovaObject<'BlockDeviceMapping'>[];
  readonly acceleratorIds: readonly unknown[];
}

type Wish = RebuildWish & { readonly image: SpawnImage };

/** Until now the instance was of another image than its record says. */
export function replaced({ before }: Pick<RebuildWish, 'before'>): { readonly imageId?: string } {
  return before.imageId === null ? {} : { imageId: before.imageId };
}

export class RebuildOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
  }

  /** Until the old guest goes a failure leaves everything as it was; after that the instance is in error. */
  async rebuild(caller: RequestContext, instance: Instance, wish: RebuildWish, signal: AbortSignal): Promise<void> {
    const { notifications } = this.#services;
    const context = caller.elevated();
    const wasStopped = instance.get('vm_state') === VM_STATES.stopped;
    try {
      const image = await this.#checked(context, instance, wish, signal);
      const extra = { image_name: image.name };
      notifications.moment(context, instance, { name: 'exists', phase: 'once', ...replaced(wish) });
      notifications.moment(context, instance, { name: 'rebuild', phase: 'start', extra });
      await this.#replace(context, instance, { ...wish, image }, signal);
      if (wasStopped) await this.#stopAgain(context, instance, signal);
      await this.#tools.announce(context, instance);
      notifications.moment(context, instance, { name: 'rebuild', phase: 'end', extra });
    } catch (error) {
      notifications.moment(context, instance, { name: 'rebuild', phase: 'error', error });
      throw error;
    }
  }

  async #checked(
    context: RequestContext,
    instance: Instance,
    wish: RebuildWish,
    signal: AbortSignal,
  ): Promise<SpawnImage> {
    const { glance, virt, conductor } = this.#services;
    try {
      if (wish.preserveEphemeral) throw novaException('PreserveEphemeralNotSupported', {});
      const image = await spawnImage(glance, context, { id: wish.imageId }, signal);
      refuseUnsupported(
        {
          instance,
          image: { properties: image.properties },
          requestSpec: null,
          filterProperties: {},
          acceleratorIds: wish.acceleratorIds,
          adminPassword: null,
          injectedFiles: wish.injectedFiles,
          requestedNetworks: null,
          securityGroups: [],
          blockDevices: wish.blockDevices,
          hostList: null,
        },
        virt,
      );
      const fields = {
        power_state: await virt.powerState(instance.get('uuid'), signal),
        task_state: TASK_STATES.rebuildBlockDeviceMapping,
      };
      // before the guest goes: the instance may be on its way to deletion
      const expectedTaskState = [TASK_STATES.rebuilding];
      await transition({ conductor, context }, instance, fields, { expectedTaskState });
      return image;
    } catch (error) {
      // to be saved with the end of the task; of a server on a volume, what was before is the volume's image and not its own
      if (wish.before.imageId !== null && !rootVolumeAmong(wish.blockDevices))
        instance.set('image_ref', wish.before.imageId);
      if (wish.before.metadata !== null) instance.set('system_metadata', wish.before.metadata);
      throw error;
    }
  }

  async #replace(context: RequestContext, instance: Instance, wish: Wish, signal: AbortSignal): Promise<void> {
    const { conductor, log } = this.#services;
    try {
      await this.#makeAnew(context, instance, wish, signal);
    } catch (error) {
      instance.set('vm_state', VM_STATES.error);
      await conductor.save(context, instance).catch((cause: unknown) => {
        log.warn('cannot put an instance into error', { instance: instance.get('uuid'), error: cause });
      });
      throw error;
    }
  }

  async #makeAnew(context: RequestContext, instance: Instance, wish: Wish, signal: AbortSignal): Promise<void> {
    const { virt, conductor } = this.#services;
    const { networks, plugger, volumes } = this.#tools;
    const { rebuildBlockDeviceMapping: mapping, rebuildSpawning: spawning } = TASK_STATES;
    const { image, adminPassword, blockDevices } = wish;
    const uuid = instance.get('uuid');
    const vifs = await networks.refresh(context, instance, { signal });
    await this.#power.powerOff(instance, true, signal);
    await virt.destroy(uuid, limited(DESTROY_LIMIT_MS));
    await plugger.unplug(vifs);
    const isOnVolume = rootVolumeAmong(blockDevices) !== undefined;
    if (isOnVolume && wish.overwritesRoot) await this.#overwriteRoot(context, instance, wish, signal);
    const entered = { expectedTaskState: [mapping] };
    await transition({ conductor, context }, instance, { task_state: spawning }, entered);
    try {
      // as after a hard reboot, Neutron has wired these ports before
      const guest = { image, files: guestFiles(wish.injectedFiles), adminPassword, blockDevices };
      const hooks = {
        network: (limit: AbortSignal) => plugger.plug(instance, vifs, limit),
        // on the same host, they stay connected
        volumes: (limit: AbortSignal) => volumes.present(context, instance, limit),
        rootImage: (limit: AbortSignal) => volumes.rootImage(context, blockDevices, limit),
        guest: (limit: AbortSignal) =>
          guestData({ services: this.#services, context, signal: limit }, instance, guest, vifs),
      };
      const spec = spawnSpec(instance, isOnVolume ? null : image, this.#services, blockDevices);
      await virt.spawn(spec, hooks, signal);
    } catch (error) {
      await plugger.unplug(vifs);
      throw asImageError(error, isOnVolume ? null : image);
    }
    await injectPassword(this.#services, instance, adminPassword, signal);
    const fields = {
      power_state: await virt.powerState(uuid, signal),
      vm_state: VM_STATES.active,
      task_state: null,
      launched_at: new Date(),
    };
    await transition({ conductor, context }, instance, fields, { expectedTaskState: [spawning] });
  }

  /** By Cinder, while the volume is nobody's. */
  async #overwriteRoot(context: RequestContext, instance: Instance, wish: Wish, signal: AbortSignal): Promise<void> {
    const { config } = this.#services;
    const { volumes, inbox } = this.#tools;
    using watch = inbox.watch(instance.get('uuid'));
    const gib = Math.max(1, Math.ceil((wish.image.sizeBytes ?? 0) / GIB));
    const limit = limited(config.build.reimageTimeoutPerGibMs * gib, signal);
    try {
      await volumes.overwriteRoot(context, instance, { imageId: wish.image.id, watch }, limit);
    } catch (cause) {
      signal.throwIfAborted();
      const params = { instance_uuid: instance.get('uuid'), reason: 'Failed to rebuild volume backed instance.' };
      throw novaException('BuildAbortException', params, { cause });
    }
  }

  async #stopAgain(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { conductor } = this.#services;
    const fields = { vm_state: VM_STATES.active, task_state: TASK_STATES.poweringOff, progress: 0 };
    await transition({ conductor, context }, instance, fields);
    await this.#power.stop(context, instance, false, signal);
  }
}
