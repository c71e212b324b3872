// The middle of a resize (section 5.7, resize_instance and finish_resize): off, other limits, on again, in the same place.
import { asError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { spawnFlavor } from '../images/spawn-spec.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { castStep } from './cast-step.ts';
import { type Move, orError, refuseOtherHost, setFlavor, setStatus, wasStopped } from './failing.ts';
import { refuseSmallerDisk } from './prep-resize.ts';

type Plain = Readonly<Record<string, unknown>>;

const UNDO_LIMIT_MS = 60_000;

export interface ResizeRequest extends Move {
  readonly flavor: NovaObject<'Flavor'>;
  readonly image: Plain;
  readonly requestSpec: NovaObject<'RequestSpec'> | null;
  readonly cleanShutdown: boolean;
}

export class ResizeGuest {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
  }

  async resize(context: RequestContext, request: ResizeRequest, signal: AbortSignal): Promise<void> {
    const { config, notifications, placement, log } = this.#services;
    const { instance, migration } = request;
    await orError(this.#services, context, instance, async () => {
      try {
        refuseOtherHost(request, config.host);
        refuseSmallerDisk(instance, request.flavor);
        await this.#switchOff(context, request, signal);
      } catch (error) {
        notifications.moment(context, instance, {
          name: 'resize',
          phase: 'error',
          error: asError(error).cause ?? error,
        });
        const undo = limited(UNDO_LIMIT_MS);
        await placement.moveAllocations(migration.get('uuid'), instance.get('uuid'), undo).catch((cause: unknown) => {
          log.error('cannot move back the allocation of an instance', { instance: instance.get('uuid'), error: cause });
        });
        throw error;
      }
    });
  }

  async #switchOff(context: RequestContext, request: ResizeRequest, signal: AbortSignal): Promise<void> {
    const { config, conductor, tracker, notifications, rpc } = this.#services;
    const { instance, migration, image, requestSpec } = request;
    await this.#tools.networks.refresh(context, instance, { signal });
    await setStatus(this.#services, context, migration, 'migrating');
    const migrating = { task_state: TASK_STATES.resizeMigrating };
    await transition({ conductor, context }, instance, migrating, { expectedTaskState: TASK_STATES.resizePrep });
    notifications.moment(context, instance, { name: 'resize', phase: 'start' });
    await this.#power.powerOff(instance, request.cleanShutdown, signal);
    await setStatus(this.#services, context, migration, 'postMigrating');
    const migrated = {
      host: config.host,
      node: tracker.nodeName,
      compute_id: tracker.computeNodeId,
      old_flavor: instance.get('flavor'),
      task_state: TASK_STATES.resizeMigrated,
    };
    await transition({ conductor, context }, instance, migrated, { expectedTaskState: TASK_STATES.resizeMigrating });
    await castStep({ rpc, host: config.host }, context, 'finish_resize', {
      disk_info: null,
      image,
      instance,
      migration,
      request_spec: requestSpec,
    });
    notifications.moment(context, instance, { name: 'resize', phase: 'end' });
  }

  async finish(context: RequestContext, move: Move, signal: AbortSignal): Promise<void> {
    const { config, placement, log } = this.#services;
    const { instance, migration } = move;
    await orError(this.#services, context, instance, async () => {
      try {
        refuseOtherHost(move, config.host);
        await this.#switchOn(context, move, signal);
      } catch (error) {
        await placement.removeAllocations(migration.get('uuid'), limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
          log.warn('cannot remove the allocation of a failed move', { instance: instance.get('uuid'), error: cause });
        });
        throw error;
      }
    });
  }

  async #switchOn(context: RequestContext, { instance, migration }: Move, signal: AbortSignal): Promise<void> {
    const { conductor, notifications, tracker, virt } = this.#services;
    const old = instance.get('flavor');
    const flavor = instance.get('new_flavor') ?? old;
    await this.#tools.networks.bindHere(context, instance, signal);
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    instance.set('old_flavor', old);
    setFlavor(instance, flavor);
    const finishing = { task_state: TASK_STATES.resizeFinish };
    await transition({ conductor, context }, instance, finishing, { expectedTaskState: TASK_STATES.resizeMigrated });
    await tracker.keepRoom(instance, old);
    notifications.moment(context, instance, { name: 'resize_finish', phase: 'start' });
    await virt.resize(instance.get('uuid'), spawnFlavor(flavor), signal);
    if (!wasStopped(instance)) await this.#power.powerOn(instance, vifs, signal);
    await setStatus(this.#services, context, migration, 'finished');
    const resized = { vm_state: VM_STATES.resized, task_state: null, launched_at: new Date() };
    await transition({ conductor, context }, instance, resized, { expectedTaskState: TASK_STATES.resizeFinish });
    await tracker.updateUsage(context, instance);
    await this.#tools.announce(context, instance);
    notifications.moment(context, instance, { name: 'resize_finish', phase: 'end' });
  }
}
