// The ends of a resize (section 5.7): confirmed, or reverted in two steps. The guest is the same before and after, so the
// old flavor is only given back, and what was written to its disk meanwhile stays.
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES, POWER_STATES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { spawnFlavor } from '../images/spawn-spec.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { findInstance } from '../records.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { castStep } from './cast-step.ts';
import { forgetFlavors, type Move, orError, refuseOtherHost, setFlavor, setStatus, wasStopped } from './failing.ts';

const PLACEMENT_LIMIT_MS = 60_000;
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
    const { conductor, config, log, placement } = this.#services;
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
      refuseOtherHost({ instance, migration }, config.host);
      try {
        await this.#confirm(context, { instance, migration }, signal);
      } finally {
        const limit = limited(PLACEMENT_LIMIT_MS);
        await placement.removeAllocations(migration.get('uuid'), limit).catch((error: unknown) => {
          log.error('cannot remove the allocation of a confirmed resize', { instance: uuid, error });
        });
        await forgetFlavors(this.#services, context, instance);
      }
    });
  }

  async #confirm(context: RequestContext, { instance, migration }: Move, signal: AbortSignal): Promise<void> {
    const { conductor, notifications, virt } = this.#services;
    notifications.moment(context, instance, { name: 'resize_confirm', phase: 'start' });
    await this.#tools.networks.refresh(context, instance, { signal });
    await setStatus(this.#services, context, migration, 'confirmed');
    await this.#dropClaim(context, instance);
    const power = await virt.powerState(instance.get('uuid'), signal);
    const fields = {
      vm_state: power === POWER_STATES.shutdown ? VM_STATES.stopped : VM_STATES.active,
      task_state: null,
      power_state: power,
    };
    const expectedTaskState = [null, TASK_STATES.deleting, TASK_STATES.softDeleting];
    await transition({ conductor, context }, instance, fields, { expectedTaskState });
    notifications.moment(context, instance, { name: 'resize_confirm', phase: 'end' });
  }

  async revert(
    context: RequestContext,
    move: Move & { readonly requestSpec: NovaObject<'RequestSpec'> | null },
    signal: AbortSignal,
  ): Promise<void> {
    const { conductor, config, rpc } = this.#services;
    const { instance, migration, requestSpec } = move;
    await orError(this.#services, context, instance, async () => {
      refuseOtherHost(move, config.host);
      await this.#tools.networks.refresh(context, instance, { signal });
      await this.#power.powerOff(instance, true, signal);
      await setStatus(this.#services, context, migration, 'reverted');
      const expectedTaskState = [TASK_STATES.resizeReverting];
      await transition({ conductor, context }, instance, { migration_context: null }, { expectedTaskState });
      const args = { instance, migration, request_spec: requestSpec };
      await castStep({ rpc, host: config.host }, context, 'finish_revert_resize', args);
    });
  }

  async finishRevert(context: RequestContext, move: Move, signal: AbortSignal): Promise<void> {
    const { config } = this.#services;
    const { instance } = move;
    await orError(this.#services, context, instance, async () => {
      refuseOtherHost(move, config.host);
      try {
        await this.#finishRevert(context, move, signal);
      } finally {
        await forgetFlavors(this.#services, context, instance);
      }
    });
  }

  async #finishRevert(context: RequestContext, { instance, migration }: Move, signal: AbortSignal): Promise<void> {
    const { conductor, notifications, placement, tracker, virt } = this.#services;
    const uuid = instance.get('uuid');
    notifications.moment(context, instance, { name: 'resize_revert', phase: 'start' });
    const flavor = instance.get('old_flavor') ?? instance.get('flavor');
    const wasOff = wasStopped(instance);
    setFlavor(instance, flavor);
    const expectedTaskState = [TASK_STATES.resizeReverting];
    await conductor.save(context, instance, { expectedTaskState });
    await placement.moveAllocations(migration.get('uuid'), uuid, limited(PLACEMENT_LIMIT_MS));
    await this.#tools.networks.bindHere(context, instance, signal);
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    await virt.resize(uuid, spawnFlavor(flavor), signal);
    if (!wasOff) await this.#power.powerOn(instance, vifs, signal);
    await this.#dropClaim(context, instance);
    await transition({ conductor, context }, instance, { launched_at: new Date() }, { expectedTaskState });
    const fields = wasOff ? { task_state: TASK_STATES.poweringOff } : { vm_state: VM_STATES.active, task_state: null };
    await transition({ conductor, context }, instance, fields, { expectedTaskState });
    if (wasOff) await this.#power.stop(context, instance, true, signal);
    await tracker.updateUsage(context, instance);
    notifications.moment(context, instance, { name: 'resize_revert', phase: 'end' });
  }

  async #dropClaim(context: RequestContext, instance: NovaObject<'Instance'>): Promise<void> {
    const { conductor, tracker } = this.#services;
    await tracker.keepRoom(instance, null);
    await conductor.objectMethod(context, instance, { method: 'drop_migration_context' });
  }
}
