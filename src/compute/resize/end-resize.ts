// The ends of a move (section 5.7): confirmed, or reverted in two steps. On one host the guest is the same before and after,
// so the old flavor is only given back, and what was written to its disk meanwhile stays. Between hosts one of two guests goes.
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES, POWER_STATES, type PowerState, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { spawnFlavor } from '../images/spawn-spec.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { findInstance } from '../records.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { castStep } from './cast-step.ts';
import {
  dropClaim,
  forgetFlavors,
  isBetweenHosts,
  type Move,
  orError,
  refuseElsewhere,
  setFlavor,
  setStatus,
  statusNow,
  wasStopped,
} from './failing.ts';
import { readEphemeralSizes } from '../volumes/ephemerals.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

const DESTROY_LIMIT_MS = 300_000;
const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;
const CONFIRMABLE: ReadonlySet<string | null> = new Set([MIGRATION_STATUSES.finished, MIGRATION_STATUSES.confirming]);

export class EndResize {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
  }

  /** A move that is confirmed already, or an instance that is gone, is left alone. */
  async confirm(context: RequestContext, { instance: given, migration }: Move, signal: AbortSignal): Promise<void> {
    const { conductor, config, log } = this.#services;
    const uuid = given.get('uuid');
    if (!CONFIRMABLE.has(migration.get('status'))) {
      log.info('resize is not to be confirmed', { instance: uuid, status: migration.get('status') });
      return;
    }
    const instance = await findInstance({ conductor, context: context.elevated() }, uuid, ATTRIBUTES);
    if (!instance) {
      log.info('instance disappeared before its resize was confirmed', { instance: uuid });
      return;
    }
    await orError(this.#services, context, instance, async () => {
      refuseElsewhere({ instance, migration }, 'source_compute', config.host);
      try {
        await this.#confirm(context, { instance, migration }, signal);
      } finally {
        await forgetFlavors(this.#services, context, instance);
      }
    });
  }

  /** Told last that it is done: what an interruption leaves is taken up again by what Nova still calls confirming. */
  async #confirm(context: RequestContext, { instance, migration }: Move, signal: AbortSignal): Promise<void> {
    const { notifications } = this.#services;
    notifications.moment(context, instance, { name: 'resize_confirm', phase: 'start' });
    try {
      await this.#removeLeft({ instance, migration });
      await dropClaim(this.#services, context, instance);
      await this.#settle(context, { instance, migration }, signal);
    } finally {
      await this.#dropAllocation({ instance, migration });
    }
    await setStatus(this.#services, context, migration, 'confirmed');
    if (isBetweenHosts({ migration })) await this.#tools.renounce(context, instance);
    notifications.moment(context, instance, { name: 'resize_confirm', phase: 'end' });
  }

  /** The guest that went. Its interfaces went with it: those of the same names may be plugged elsewhere by now. */
  async #removeLeft({ instance, migration }: Move): Promise<void> {
    const { virt, config } = this.#services;
    // a message that comes so late that the instance is back
    if (!isBetweenHosts({ migration }) || instance.get('host') === config.host) return;
    await virt.destroy(instance.get('uuid'), limited(DESTROY_LIMIT_MS));
  }

  async #settle(context: RequestContext, { instance, migration }: Move, signal: AbortSignal): Promise<void> {
    const { conductor, virt } = this.#services;
    // an earlier process came so far
    if (instance.get('vm_state') !== VM_STATES.resized) return;
    const power = isBetweenHosts({ migration })
      ? (instance.get('power_state') as PowerState | null)
      : await virt.powerState(instance.get('uuid'), signal);
    const fields = {
      vm_state: power === POWER_STATES.shutdown ? VM_STATES.stopped : VM_STATES.active,
      task_state: null,
      power_state: power,
    };
    const expectedTaskState = [null, TASK_STATES.deleting, TASK_STATES.softDeleting];
    await transition({ conductor, context }, instance, fields, { expectedTaskState });
  }

  async #dropAllocation({ instance, migration }: Move): Promise<void> {
    const { placement, log } = this.#services;
    const limit = limited(UNDO_LIMIT_MS);
    await placement.removeAllocations(migration.get('uuid'), limit).catch((error: unknown) => {
      log.error('cannot remove the allocation of a confirmed move', { instance: instance.get('uuid'), error });
    });
  }

  /** `isRepeat`: an earlier process was interrupted in it. */
  async revert(
    context: RequestContext,
    move: Move & { readonly requestSpec: NovaObject<'RequestSpec'> | null },
    signal: AbortSignal,
    isRepeat = false,
  ): Promise<void> {
    const { conductor, config, rpc, tracker } = this.#services;
    const { instance, migration, requestSpec } = move;
    await orError(this.#services, context, instance, async () => {
      refuseElsewhere(move, 'dest_compute', config.host);
      if (!isRepeat && (await this.#isTakenDown(context, move))) return;
      const vifs = await this.#tools.networks.refresh(context, instance, { signal });
      await this.#takeDown(context, move, vifs, signal);
      await setStatus(this.#services, context, migration, 'reverted');
      const expectedTaskState = [TASK_STATES.resizeReverting];
      await transition({ conductor, context }, instance, { migration_context: null }, { expectedTaskState });
      if (isBetweenHosts(move)) await tracker.release(instance);
      const args = { instance, migration, request_spec: requestSpec };
      const host = migration.get('source_compute') ?? config.host;
      await castStep({ rpc, host }, context, 'finish_revert_resize', args);
    });
  }

  /** A message that came late, after a recovery had done it: there may be another guest of the instance here by now. */
  async #isTakenDown(context: RequestContext, move: Move): Promise<boolean> {
    if (!isBetweenHosts(move)) return false;
    const status = await statusNow(this.#services, context, move.migration);
    if (status === MIGRATION_STATUSES.reverting) return false;
    this.#services.log.info('move is not to be reverted', { instance: move.instance.get('uuid'), status });
    return true;
  }

  /** What was written here since the move is lost, as with every hypervisor: the source has what was before. */
  async #takeDown(context: RequestContext, move: Move, vifs: readonly Vif[], signal: AbortSignal): Promise<void> {
    const { instance } = move;
    if (!isBetweenHosts(move)) return await this.#power.powerOff(instance, true, signal);
    await this.#services.virt.destroy(instance.get('uuid'), limited(DESTROY_LIMIT_MS));
    await this.#tools.plugger.unplug(vifs);
    await this.#tools.volumes.reserveAnew(context, instance, signal);
  }

  async finishRevert(context: RequestContext, move: Move, signal: AbortSignal): Promise<void> {
    const { config, log } = this.#services;
    const { instance } = move;
    await orError(this.#services, context, instance, async () => {
      refuseElsewhere(move, 'source_compute', config.host);
      try {
        await this.#finishRevert(context, move, signal);
      } catch (error) {
        if (!isNova(error, 'UnexpectedTaskStateError') || !(await this.#isReverted(context, move))) throw error;
        log.info('move is reverted already', { instance: instance.get('uuid') });
        return;
      } finally {
        await forgetFlavors(this.#services, context, instance);
      }
    });
  }

  async #finishRevert(context: RequestContext, { instance, migration }: Move, signal: AbortSignal): Promise<void> {
    const { conductor, notifications, placement, tracker, virt, config } = this.#services;
    const uuid = instance.get('uuid');
    notifications.moment(context, instance, { name: 'resize_revert', phase: 'start' });
    const flavor = instance.get('old_flavor') ?? instance.get('flavor');
    const wasOff = wasStopped(instance);
    setFlavor(instance, flavor);
    const expectedTaskState = [TASK_STATES.resizeReverting];
    const here = { host: config.host, node: tracker.nodeName, compute_id: tracker.computeNodeId };
    await transition({ conductor, context }, instance, here, { expectedTaskState });
    await placement.moveAllocations(migration.get('uuid'), uuid, limited(UNDO_LIMIT_MS));
    await this.#tools.networks.bindHere(context, instance, signal);
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    const disks = await readEphemeralSizes({ conductor, context }, uuid, flavor);
    const cpuIds = tracker.cpusFor(uuid, flavor.get('vcpus'));
    await virt.resize(uuid, { ...spawnFlavor(flavor, disks), cpuIds }, signal);
    if (!wasOff) await this.#power.powerOn(context, instance, vifs, signal);
    else if (isBetweenHosts({ migration })) await this.#tools.volumes.present(context, instance, signal);
    await dropClaim(this.#services, context, instance);
    await transition({ conductor, context }, instance, { launched_at: new Date() }, { expectedTaskState });
    const fields = wasOff ? { task_state: TASK_STATES.poweringOff } : { vm_state: VM_STATES.active, task_state: null };
    await transition({ conductor, context }, instance, fields, { expectedTaskState });
    if (wasOff) await this.#power.stop(context, instance, true, signal);
    await tracker.updateUsage(context, instance);
    notifications.moment(context, instance, { name: 'resize_revert', phase: 'end' });
  }

  /** A message that came late, or twice. */
  async #isReverted(context: RequestContext, { instance, migration }: Move): Promise<boolean> {
    const { conductor, config } = this.#services;
    if ((await statusNow(this.#services, context, migration)) !== MIGRATION_STATUSES.reverted) return false;
    const stored = await findInstance({ conductor, context: context.elevated() }, instance.get('uuid'), []);
    return stored?.get('host') === config.host && stored.get('vm_state') !== VM_STATES.resized;
  }
}
