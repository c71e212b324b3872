// Instances that are put away as an image, and come back from it, on this host or another (section 5.10).
import { messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { userCredentials } from '../network/credentials.ts';
import { cachedVifs } from '../network/info-cache.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { told } from '../power/told.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { uploadSnapshot } from './upload-snapshot.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;

const DESTROY_LIMIT_MS = 300_000;

export interface ShelveWish {
  readonly imageId: string;
  readonly cleanShutdown: boolean;
}

export class ShelveOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;
  readonly #running = new Map<string, AbortController>();

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
  }

  /** The instance is being deleted: the upload ends as if it had noticed that itself. */
  interrupt(uuid: string): void {
    this.#running.get(uuid)?.abort(novaException('InstanceNotFound', { instance_id: uuid }));
  }

  async shelve(context: RequestContext, instance: Instance, wish: ShelveWish, outer: AbortSignal): Promise<void> {
    const uuid = instance.get('uuid');
    const controller = new AbortController();
    this.#running.set(uuid, controller);
    const signal = AbortSignal.any([outer, controller.signal]);
    const offloads = this.#services.config.build.shelvedOffloadTimeMs === 0;
    try {
      const isShelved = await this.#putAway(context, instance, { ...wish, offloads }, signal);
      if (isShelved && offloads) await this.offload(context, instance, false, signal);
    } finally {
      this.#running.delete(uuid);
    }
  }

  /** False when the instance was deleted meanwhile. What fails leaves no image, and a guest that ran runs again. */
  async #putAway(
    context: RequestContext,
    instance: Instance,
    wish: ShelveWish & { readonly offloads: boolean },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { virt, glance, log } = this.#services;
    const uuid = instance.get('uuid');
    const { imageId } = wish;
    const wasRunning = (await virt.powerState(uuid, signal)) === POWER_STATES.running;
    try {
      const about = { instance, name: 'shelve' } as const;
      this.#services.notifications.moment(context, instance, { name: 'exists', phase: 'once' });
      await told(this.#services.notifications, context, about, () => this.#upload(context, instance, wish, signal));
      return true;
    } catch (error) {
      await glance.deleteImage(userCredentials(context), imageId, limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
        log.warn('cannot delete the image of a failed shelving', { instance: uuid, image: imageId, error: cause });
      });
      if (isNova(error, 'InstanceNotFound', 'UnexpectedDeletingTaskStateError')) {
        log.info('instance disappeared while it was shelved', { instance: uuid, reason: messageOf(error) });
        return false;
      }
      if (wasRunning) {
        await this.#power.resume(context, instance, limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
          log.warn('cannot start an instance again that was not shelved', { instance: uuid, error: cause });
        });
      }
      throw error;
    }
  }

  async #upload(
    context: RequestContext,
    instance: Instance,
    { imageId, cleanShutdown, offloads }: ShelveWish & { readonly offloads: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const { virt, conductor, config } = this.#services;
    const { shelving, shelvingImagePendingUpload: pending, shelvingImageUploading: uploading } = TASK_STATES;
    await this.#power.powerOff(instance, cleanShutdown, signal);
    await uploadSnapshot(this.#services, { context, instance, imageId, tasks: [shelving, pending, uploading] }, signal);
    const fields = {
      power_state: await virt.powerState(instance.get('uuid'), signal),
      vm_state: VM_STATES.shelved,
      task_state: offloads ? TASK_STATES.shelvingOffloading : null,
      system_metadata: {
        ...instance.find('system_metadata'),
        // as Python writes a time without a zone
        shelved_at: new Date().toISOString().replace('Z', '000'),
        shelved_image_id: imageId,
        shelved_host: config.host,
      },
    };
    await transition({ conductor, context }, instance, fields, { expectedTaskState: [shelving, uploading] });
  }

  /** Takes the instance off this host; its ports stay its own, bound to no host. */
  async offload(
    context: RequestContext,
    instance: Instance,
    cleanShutdown: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const about = { instance, name: 'shelve_offload' } as const;
    await told(this.#services.notifications, context, about, async () => {
      const { virt, conductor, tracker, placement } = this.#services;
      const uuid = instance.get('uuid');
      await this.#power.powerOff(instance, cleanShutdown, signal);
      const powerState = await virt.powerState(uuid, signal);
      await this.#tools.networks.unbind(context, instance, signal);
      await virt.destroy(uuid, limited(DESTROY_LIMIT_MS));
      await this.#tools.plugger.unplug(cachedVifs(instance));
      await this.#tools.volumes.reserveAnew(context, instance, limited(UNDO_LIMIT_MS));
      await placement.deleteAllocations(uuid, limited(UNDO_LIMIT_MS));
      const fields = { power_state: powerState, vm_state: VM_STATES.shelvedOffloaded, task_state: null };
      const expectedTaskState = [TASK_STATES.shelving, TASK_STATES.shelvingOffloading];
      await transition({ conductor, context }, instance, fields, { expectedTaskState });
      await tracker.updateUsage(context, instance);
      const nowhere = { host: null, node: null, compute_id: null, launched_on: null, availability_zone: null };
      await transition({ conductor, context }, instance, nowhere, { expectedTaskState: null });
      await this.#tools.renounce(context, instance);
    });
  }

  /** For the periodic task: no request to Nova has prepared it. */
  async offloadShelved(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { conductor, log } = this.#services;
    const fields = { task_state: TASK_STATES.shelvingOffloading };
    await transition({ conductor, context }, instance, fields, { expectedTaskState: null });
    try {
      await this.offload(context, instance, false, signal);
    } catch (error) {
      await transition({ conductor, context }, instance, { task_state: null }).catch((cause: unknown) => {
        log.warn('cannot clear the task of an instance', { instance: instance.get('uuid'), error: cause });
      });
      throw error;
    }
  }
}
