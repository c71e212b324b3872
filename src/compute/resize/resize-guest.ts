// The middle of a move (section 5.7, resize_instance and finish_resize): off, to the other host if there is one, other
// limits, on again.
import { asError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { spawnFlavor } from '../images/spawn-spec.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { castStep } from './cast-step.ts';
import { type Departure, GuestDeparture } from './departure.ts';
import {
  isBetweenHosts,
  type Move,
  orError,
  Refusal,
  refuseElsewhere,
  setFlavor,
  setStatus,
  statusNow,
  takeBackAllocation,
  wasStopped,
} from './failing.ts';
import { refuseSmallerDisk } from './prep-resize.ts';
import { readEphemeralSizes } from '../volumes/ephemerals.ts';
import { arriveOnVolume, bootsFromVolume } from './volume-move.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Plain = Readonly<Record<string, unknown>>;

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
  readonly #departure: GuestDeparture;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
    this.#departure = new GuestDeparture(services, tools, power);
  }

  /** The instance is being deleted: what is under way to another host is given up. */
  interrupt(uuid: string): void {
    this.#departure.interrupt(uuid);
  }

  async resize(context: RequestContext, request: ResizeRequest, signal: AbortSignal): Promise<void> {
    const { notifications, config } = this.#services;
    const { instance, migration } = request;
    await orError(this.#services, context, instance, async () => {
      try {
        refuseElsewhere(request, 'source_compute', config.host);
        await refuseSmallerDisk(this.#services, context, { instance, flavor: request.flavor });
        if (isBetweenHosts(request)) await this.#departure.refuseUnreachable(context, request);
        await this.#begin(context, request, signal);
        await this.#leave(context, request, signal);
      } catch (error) {
        notifications.moment(context, instance, {
          name: 'resize',
          phase: 'error',
          error: asError(error).cause ?? error,
        });
        await takeBackAllocation(this.#services, request);
        throw error;
      }
      await this.#passOn(context, request);
      notifications.moment(context, instance, { name: 'resize', phase: 'end' });
    });
    await this.#departure.countRoom(context, { instance, migration });
  }

  async #begin(context: RequestContext, { instance, migration }: ResizeRequest, signal: AbortSignal): Promise<void> {
    const { conductor, notifications } = this.#services;
    await this.#tools.networks.refresh(context, instance, { signal }).catch(async (error: unknown) => {
      // nothing has been done to the guest yet
      await this.#departure.takeBack(context, instance);
      throw new Refusal(asError(error));
    });
    await setStatus(this.#services, context, migration, 'migrating');
    const migrating = { task_state: TASK_STATES.resizeMigrating };
    const options = { expectedTaskState: TASK_STATES.resizePrep };
    await transition({ conductor, context }, instance, migrating, options).catch((error: unknown) => {
      // the move was given up meanwhile, or somebody has another use for the instance
      throw isNova(error, 'UnexpectedTaskStateError') ? new Refusal(asError(error)) : error;
    });
    notifications.moment(context, instance, { name: 'resize', phase: 'start' });
  }

  /** From here on the instance is the destination's. */
  async #leave(context: RequestContext, request: ResizeRequest, signal: AbortSignal): Promise<void> {
    const { conductor } = this.#services;
    const { instance, migration, cleanShutdown } = request;
    const place = async (): Promise<void> => {
      await setStatus(this.#services, context, migration, 'postMigrating');
      const migrated = {
        ...this.#destination(migration),
        old_flavor: instance.get('flavor'),
        task_state: TASK_STATES.resizeMigrated,
      };
      await transition({ conductor, context }, instance, migrated, { expectedTaskState: TASK_STATES.resizeMigrating });
    };
    const departure: Departure = { instance, migration, cleanShutdown, place };
    if (isBetweenHosts(request)) return await this.#departure.depart(context, departure, signal);
    await this.#power.powerOff(instance, cleanShutdown, signal);
    await place();
  }

  #destination(migration: NovaObject<'Migration'>) {
    const { config, tracker } = this.#services;
    const host = migration.get('dest_compute');
    if (host === config.host) return { host, node: tracker.nodeName, compute_id: tracker.computeNodeId };
    return { host, node: migration.get('dest_node'), compute_id: migration.find('dest_compute_id') ?? null };
  }

  /** Also after an interruption: the destination does what it has done already only once. */
  async passOn(context: RequestContext, move: Move): Promise<void> {
    await this.#passOn(context, { ...move, image: {}, requestSpec: null });
  }

  async #passOn(context: RequestContext, request: Move & Pick<ResizeRequest, 'image' | 'requestSpec'>): Promise<void> {
    const { rpc, config } = this.#services;
    const { instance, migration, image, requestSpec } = request;
    const host = migration.get('dest_compute') ?? config.host;
    await castStep({ rpc, host }, context, 'finish_resize', {
      disk_info: null,
      image,
      instance,
      migration,
      request_spec: requestSpec,
    });
  }

  /** `isRepeat`: an earlier process was interrupted in it. */
  async finish(context: RequestContext, move: Move, signal: AbortSignal, isRepeat = false): Promise<void> {
    const { config, placement, log } = this.#services;
    const { instance, migration } = move;
    await orError(this.#services, context, instance, async () => {
      try {
        refuseElsewhere(move, 'dest_compute', config.host);
        await this.#switchOn(context, move, { isRepeat, signal });
      } catch (error) {
        if (isNova(error, 'UnexpectedTaskStateError') && (await this.#isFinished(context, migration))) {
          log.info('move is finished already', { instance: instance.get('uuid') });
          return;
        }
        await placement.removeAllocations(migration.get('uuid'), limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
          log.warn('cannot remove the allocation of a failed move', { instance: instance.get('uuid'), error: cause });
        });
        throw error;
      }
    });
  }

  async #isFinished(context: RequestContext, migration: NovaObject<'Migration'>): Promise<boolean> {
    const underWay: readonly (string | null)[] = [MIGRATION_STATUSES.migrating, MIGRATION_STATUSES.postMigrating];
    return !underWay.includes(await statusNow(this.#services, context, migration));
  }

  async #switchOn(
    context: RequestContext,
    move: Move,
    { isRepeat, signal }: { readonly isRepeat: boolean; readonly signal: AbortSignal },
  ): Promise<void> {
    const { conductor, notifications, tracker } = this.#services;
    const { instance, migration } = move;
    const old = isRepeat ? (instance.get('old_flavor') ?? instance.get('flavor')) : instance.get('flavor');
    const flavor = instance.get('new_flavor') ?? old;
    const isMove = isBetweenHosts(move);
    await this.#tools.networks.bindHere(context, instance, signal);
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    instance.set('old_flavor', old);
    setFlavor(instance, flavor);
    const finishing = {
      task_state: TASK_STATES.resizeFinish,
      ...(isMove && { compute_id: tracker.computeNodeId }),
    };
    const { resizeMigrated, resizeFinish } = TASK_STATES;
    const expectedTaskState = isRepeat ? [resizeMigrated, resizeFinish] : resizeMigrated;
    await transition({ conductor, context }, instance, finishing, { expectedTaskState });
    // on the way to another host the room for the way back is the source's
    await tracker.keepRoom(instance, isMove ? null : old);
    notifications.moment(context, instance, { name: 'resize_finish', phase: 'start' });
    if (isMove && (await bootsFromVolume(this.#services, context, instance))) {
      await arriveOnVolume(this.#services, this.#tools, { context, instance, vifs }, signal);
    } else {
      await this.#arrive(context, instance, { flavor, isMove }, signal);
      await this.#startAgain(context, instance, { vifs, isMove }, signal);
    }
    await setStatus(this.#services, context, migration, 'finished');
    const resized = { vm_state: VM_STATES.resized, task_state: null, launched_at: new Date() };
    await transition({ conductor, context }, instance, resized, { expectedTaskState: resizeFinish });
    await tracker.updateUsage(context, instance);
    await this.#tools.announce(context, instance);
    notifications.moment(context, instance, { name: 'resize_finish', phase: 'end' });
  }

  async #startAgain(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    { vifs, isMove }: { readonly vifs: readonly Vif[]; readonly isMove: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    if (!wasStopped(instance)) await this.#power.powerOn(context, instance, vifs, signal);
    else if (isMove) await this.#tools.volumes.present(context, instance, signal);
  }

  async #arrive(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    { flavor, isMove }: { readonly flavor: NovaObject<'Flavor'>; readonly isMove: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const { virt, conductor, tracker } = this.#services;
    const uuid = instance.get('uuid');
    try {
      if (isMove) await virt.moves.adopt(uuid, signal);
      const disks = await readEphemeralSizes({ conductor, context }, uuid, flavor);
      const cpuIds = tracker.cpusFor(uuid, flavor.get('vcpus'));
      await virt.resize(uuid, { ...spawnFlavor(flavor, disks), cpuIds }, signal);
    } catch (cause) {
      if (!isMove) throw cause;
      throw novaException('MigrationError', { reason: 'the copied instance could not be set up' }, { cause });
    }
  }
}
