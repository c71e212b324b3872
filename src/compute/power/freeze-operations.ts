// Pause and suspend (section 5.4): a container is frozen for both, its memory stays where it is, unless its flavor or image wants to be
// suspended to disk and it can be. The callers hold the instance's lock.
import { kindOf, messageOf } from '#src/lib/errors.ts';
import { truthOf } from '#src/lib/truth.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import type { ComputeServices } from '../types.ts';
import { finishTask } from './finish-task.ts';
import { orNotFound, type PowerOperations } from './power-operations.ts';
import { told } from './told.ts';

type Instance = NovaObject<'Instance'>;

/** Where suspend keeps what resume gives back. */
const OLD_VM_STATE = 'old_vm_state';

export class FreezeOperations {
  readonly #services: ComputeServices;
  readonly #power: PowerOperations;

  constructor(services: ComputeServices, power: PowerOperations) {
    this.#services = services;
    this.#power = power;
  }

  async pause(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt, notifications } = this.#services;
    await told(notifications, context, { instance, name: 'pause' }, async () => {
      await orNotFound(instance, virt.pause(instance.get('uuid'), signal));
      const ending = { instance, vmState: VM_STATES.paused, expectedTaskState: TASK_STATES.pausing };
      await finishTask(this.#services, context, ending, signal);
    });
  }

  async unpause(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt, notifications } = this.#services;
    await told(notifications, context, { instance, name: 'unpause' }, async () => {
      await orNotFound(instance, virt.unpause(instance.get('uuid'), signal));
      const ending = { instance, vmState: VM_STATES.active, expectedTaskState: TASK_STATES.unpausing };
      await finishTask(this.#services, context, ending, signal);
    });
  }

  async suspend(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { notifications } = this.#services;
    instance.set('system_metadata', { ...instance.find('system_metadata'), [OLD_VM_STATE]: instance.get('vm_state') });
    await told(notifications, context, { instance, name: 'suspend' }, async () => {
      await this.#orError(context, instance, this.#keep(instance, signal));
      const ending = { instance, vmState: VM_STATES.suspended, expectedTaskState: TASK_STATES.suspending };
      await finishTask(this.#services, context, ending, signal);
    });
  }

  async #keep(instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt } = this.#services;
    const uuid = instance.get('uuid');
    // frozen: an earlier process of this compute came that far
    const mayBeKept = this.#wantsDisk(instance) && (await virt.powerState(uuid, signal)) !== POWER_STATES.paused;
    if (mayBeKept && (await this.#toDisk(uuid, signal))) return;
    await virt.pause(uuid, signal);
  }

  /** The flavor goes before the image. */
  #wantsDisk(instance: Instance): boolean {
    const ofFlavor = instance.find('flavor')?.find('extra_specs')?.['lxd:suspend_to_disk'];
    const wish = ofFlavor ?? instance.find('system_metadata')?.['image_lxd_suspend_to_disk'] ?? '';
    const truth = truthOf(wish);
    if (truth === undefined && wish !== '') {
      // a flavor with such a word makes no guest; nobody looks at an image for it
      this.#services.log.warn('lxd_suspend_to_disk of the image is neither true nor false: the guest is frozen', {
        instance: instance.get('uuid'),
        value: wish,
      });
    }
    return truth ?? false;
  }

  /** False: it runs on. */
  async #toDisk(uuid: string, signal: AbortSignal): Promise<boolean> {
    const { virt, log } = this.#services;
    try {
      await virt.suspendToDisk(uuid, signal);
      return true;
    } catch (error) {
      if (signal.aborted || ['unavailable', 'not_found', 'conflict'].includes(kindOf(error))) throw error;
      log.info('the memory of a guest is not kept on disk: it is frozen', { instance: uuid, reason: messageOf(error) });
      return false;
    }
  }

  /** A guest that does not run any more (it is on disk, or the host was down) is started. */
  async resume(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { notifications } = this.#services;
    const { [OLD_VM_STATE]: before, ...metadata } = instance.find('system_metadata') ?? {};
    await told(notifications, context, { instance, name: 'resume' }, async () => {
      await this.#orError(context, instance, this.#goOn(context, instance, signal));
      instance.set('system_metadata', metadata);
      const ending = { instance, vmState: before ?? VM_STATES.active, expectedTaskState: TASK_STATES.resuming };
      await finishTask(this.#services, context, ending, signal);
    });
  }

  async #goOn(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt } = this.#services;
    const uuid = instance.get('uuid');
    if ((await virt.powerState(uuid, signal)) === POWER_STATES.paused) return await virt.unpause(uuid, signal);
    await this.#power.resumeFromDisk(context, instance, signal);
  }

  /** A guest of which nobody knows whether it is frozen is in error, until a reboot or an operator says otherwise. */
  async #orError(context: RequestContext, instance: Instance, work: Promise<void>): Promise<void> {
    const { conductor, log } = this.#services;
    try {
      await orNotFound(instance, work);
    } catch (error) {
      if (kindOf(error) !== 'unsupported') instance.set('vm_state', VM_STATES.error);
      instance.set('task_state', null);
      await conductor.save(context, instance).catch((cause: unknown) => {
        log.warn('cannot put an instance into error', { instance: instance.get('uuid'), error: cause });
      });
      throw error;
    }
  }
}
