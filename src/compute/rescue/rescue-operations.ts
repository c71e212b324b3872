// Rescue and back (table 5.1): another guest in the place of the instance's own, which it can repair. The callers hold the
// instance's lock. As a stock compute does it, an instance whose rescue or its end fails is in error until a hard reboot, which brings its
// own guest back.
import { messageOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import type { SpawnImage } from '#drivers/virt/driver.ts';
import { guestData } from '../guest/guest-data.ts';
import { spawnImage } from '../images/spawn-image.ts';
import { spawnSpec } from '../images/spawn-spec.ts';
import type { OperationTools } from '../operation-tools.ts';
import { finishTask } from '../power/finish-task.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { told } from '../power/told.ts';
import { bootsFromVolume } from '../resize/volume-move.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';

type Instance = NovaObject<'Instance'>;

export interface RescueWish {
  /** Of the rescue guest's administrator. */
  readonly password: string | null;
  /** null: what the instance's image was made from, or else that image. */
  readonly imageId: string | null;
  readonly cleanShutdown: boolean;
}

export class RescueOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
  }

  async rescue(caller: RequestContext, instance: Instance, wish: RescueWish, signal: AbortSignal): Promise<void> {
    const { notifications, virt, conductor, glance } = this.#services;
    const context = caller.elevated();
    const uuid = instance.get('uuid');
    if (!virt.canRescue) throw notRescuable(uuid, 'the container engine cannot show its root to another container');
    if (await bootsFromVolume(this.#services, context, instance)) throw notRescuable(uuid, 'its root is on a volume');
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    const image = await spawnImage(glance, context, { id: wish.imageId ?? imageOf(instance) }, signal);
    const moment = {
      name: 'rescue',
      extra: { rescue_image_name: image.name },
      ...(wish.imageId !== null && { rescueImageId: wish.imageId }),
    } as const;
    notifications.moment(context, instance, { ...moment, phase: 'start' });
    await this.#orError(context, instance, async () => {
      await this.#power.powerOff(instance, wish.cleanShutdown, signal);
      await this.#start(context, instance, { ...wish, image, vifs }, signal);
    }).catch((cause: unknown) => {
      throw notRescuable(uuid, `Driver Error: ${messageOf(cause)}`, cause);
    });
    notifications.moment(context, instance, { name: 'exists', phase: 'once' });
    const fields = {
      power_state: await virt.powerState(uuid, signal),
      vm_state: VM_STATES.rescued,
      task_state: null,
      launched_at: new Date(),
    };
    await transition({ conductor, context }, instance, fields, { expectedTaskState: TASK_STATES.rescuing });
    notifications.moment(context, instance, { ...moment, phase: 'end' });
  }

  async #start(
    context: RequestContext,
    instance: Instance,
    { image, vifs, password }: RescueWish & { readonly image: SpawnImage; readonly vifs: readonly Vif[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { virt, log } = this.#services;
    const { plugger } = this.#tools;
    // Whether there is a config drive is the instance's affair.
    const told = { image: { properties: {} }, files: [], adminPassword: password, blockDevices: null };
    const hooks = {
      network: (limit: AbortSignal) => plugger.plug(instance, vifs, limit),
      guest: (limit: AbortSignal) =>
        guestData({ services: this.#services, context, signal: limit }, instance, told, vifs),
    };
    await virt.rescue(spawnSpec(instance, image, this.#services), hooks, signal);
    if (password === null || password === '') return;
    const user = image.properties['os_admin_user'] ?? 'root';
    const uuid = instance.get('uuid');
    await virt.setPassword(uuid, { user, password }, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      log.warn('cannot set the password of a rescue guest', { instance: uuid, error });
    });
  }

  async unrescue(caller: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { notifications, virt } = this.#services;
    const context = caller.elevated();
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    await told(notifications, context, { instance, name: 'unrescue' }, async () => {
      await this.#orError(context, instance, async () => {
        await virt.unrescue(instance.get('uuid'), signal);
        await this.#power.powerOn(context, instance, vifs, signal);
      });
      const ending = { instance, vmState: VM_STATES.active, expectedTaskState: TASK_STATES.unrescuing };
      await finishTask(this.#services, context, ending, signal);
    });
  }

  /** A rescue that a killed process left half-way: the instance is as it was before. */
  async undo(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt, conductor } = this.#services;
    const uuid = instance.get('uuid');
    await virt.unrescue(uuid, signal);
    if (instance.get('power_state') === POWER_STATES.running) await this.#power.resume(context, instance, signal);
    const fields = { power_state: await virt.powerState(uuid, signal), task_state: null };
    await transition({ conductor, context }, instance, fields, { expectedTaskState: TASK_STATES.rescuing });
  }

  async #orError(context: RequestContext, instance: Instance, work: () => Promise<void>): Promise<void> {
    const { conductor, log } = this.#services;
    try {
      await work();
    } catch (error) {
      instance.set('vm_state', VM_STATES.error);
      await conductor.save(context, instance).catch((cause: unknown) => {
        log.warn('cannot put an instance into error', { instance: instance.get('uuid'), error: cause });
      });
      throw error;
    }
  }
}

function imageOf(instance: Instance): string {
  const base = instance.find('system_metadata')?.['image_base_image_ref'] ?? '';
  return base === '' ? (instance.find('image_ref') ?? '') : base;
}

function notRescuable(uuid: string, reason: string, cause?: unknown): Error {
  return novaException('InstanceNotRescuable', { instance_id: uuid, reason }, cause === undefined ? {} : { cause });
}
