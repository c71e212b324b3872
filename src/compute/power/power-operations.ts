// Stop, start and reboot of an instance (section 5.4). The callers hold the instance's lock.
import { kindOf, messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES, TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { recordFault } from '../faults.ts';
import { cachedVifs } from '../network/info-cache.ts';
import type { OperationTools } from '../operation-tools.ts';
import { transition } from '../transition.ts';
import type { ComputeServices, InstanceMoment } from '../types.ts';
import { dropShelvedImage } from './shelved-image.ts';
import { finishTask } from './finish-task.ts';
import { told } from './told.ts';

type Instance = NovaObject<'Instance'>;
export type RebootType = 'SOFT' | 'HARD';

const OFF_STATES: ReadonlySet<number> = new Set([POWER_STATES.nostate, POWER_STATES.shutdown, POWER_STATES.crashed]);
const CHECK_LIMIT_MS = 60_000;

/** The states that a reboot of each type goes through; the first is what the API set. */
const REBOOT_TASKS = {
  SOFT: {
    pending: TASK_STATES.rebootPending,
    started: TASK_STATES.rebootStarted,
    expected: [TASK_STATES.rebooting, TASK_STATES.rebootPending, TASK_STATES.rebootStarted],
  },
  HARD: {
    pending: TASK_STATES.rebootPendingHard,
    started: TASK_STATES.rebootStartedHard,
    expected: [TASK_STATES.rebootingHard, TASK_STATES.rebootPendingHard, TASK_STATES.rebootStartedHard],
  },
} as const;

export class PowerOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;

  constructor(services: ComputeServices, tools: OperationTools) {
    this.#services = services;
    this.#tools = tools;
  }

  async stop(context: RequestContext, instance: Instance, isClean: boolean, signal: AbortSignal): Promise<void> {
    const { virt, conductor } = this.#services;
    const uuid = instance.get('uuid');
    const before = await virt.powerState(uuid, signal);
    // A guest that is off already may be on its way through another operation that cleared the task.
    const expectedTaskState = OFF_STATES.has(before) ? [TASK_STATES.poweringOff, null] : [TASK_STATES.poweringOff];
    await this.#told(context, instance, 'power_off', async () => {
      await this.powerOff(instance, isClean, signal);
      const fields = {
        power_state: await virt.powerState(uuid, signal),
        vm_state: VM_STATES.stopped,
        task_state: null,
      };
      await transition({ conductor, context }, instance, fields, { expectedTaskState });
    });
  }

  /** A guest that is not there is off. */
  async powerOff(instance: Instance, isClean: boolean, signal: AbortSignal): Promise<void> {
    const graceSeconds = isClean ? this.#graceSeconds(instance) : 0;
    try {
      await this.#services.virt.powerOff(instance.get('uuid'), { graceSeconds }, signal);
    } catch (error) {
      if (kindOf(error) === 'not_found') return;
      throw novaException('InstancePowerOffFailure', { reason: messageOf(error) }, { cause: error });
    }
  }

  /** The image's wish, or else shutdown_timeout. */
  #graceSeconds(instance: Instance): number {
    const wish = Number(instance.find('system_metadata')?.['image_os_shutdown_timeout'] ?? Number.NaN);
    return Number.isFinite(wish) && wish >= 0 ? wish : this.#services.config.power.shutdownTimeoutMs / 1000;
  }

  async start(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#told(context, instance, 'power_on', async () => {
      const vifs = await this.#tools.networks.refresh(context, instance, { signal });
      await this.powerOn(context, instance, vifs, signal);
      await dropShelvedImage(this.#services, context, instance, signal);
      await finishTask(
        this.#services,
        context,
        { instance, vmState: VM_STATES.active, expectedTaskState: TASK_STATES.poweringOn },
        signal,
      );
    });
  }

  async powerOn(context: RequestContext, instance: Instance, vifs: readonly Vif[], signal: AbortSignal): Promise<void> {
    const { virt } = this.#services;
    const nics = await this.#equip(context, instance, vifs, signal);
    await orNotFound(instance, virt.powerOn(instance.get('uuid'), nics, signal));
  }

  /** With the memory that a suspension kept. */
  async resumeFromDisk(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt } = this.#services;
    const vifs = await this.#tools.networks.refresh(context, instance, { signal });
    const nics = await this.#equip(context, instance, vifs, signal);
    await orNotFound(instance, virt.resumeFromDisk(instance.get('uuid'), nics, signal));
  }

  /** What a guest has around it when it starts. */
  async #equip(context: RequestContext, instance: Instance, vifs: readonly Vif[], signal: AbortSignal) {
    await this.#leaveRescue(instance, signal);
    await this.#setVolumes(context, instance, signal);
    return await this.#tools.plugger.plug(instance, vifs, signal);
  }

  /** They may have lost their devices with a boot of the host, or have changed while the guest was elsewhere. */
  async #setVolumes(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { virt } = this.#services;
    const uuid = instance.get('uuid');
    if ((await virt.powerState(uuid, signal)) === POWER_STATES.running) return;
    const present = await this.#tools.volumes.present(context, instance, signal);
    await virt.setVolumes(uuid, present, signal).catch((error: unknown) => {
      // an engine elsewhere has none
      if (present.length > 0 || kindOf(error) !== 'unsupported') throw asNotFound(error, instance);
    });
  }

  /** What is not rescued, as far as Nova knows, runs from its own disk: the way out of a rescue that failed, or was reset. */
  async #leaveRescue(instance: Instance, signal: AbortSignal): Promise<void> {
    if (instance.get('vm_state') === VM_STATES.rescued) return;
    await this.#services.virt.unrescue(instance.get('uuid'), signal);
  }

  async reboot(context: RequestContext, instance: Instance, type: RebootType, signal: AbortSignal): Promise<void> {
    const { virt, conductor, notifications } = this.#services;
    const tasks = REBOOT_TASKS[type];
    const elevated = context.elevated();
    const uuid = instance.get('uuid');
    const [vifs, powerState] = await Promise.all([
      this.#tools.networks.refresh(elevated, instance, { signal }),
      virt.powerState(uuid, signal),
    ]);
    notifications.moment(elevated, instance, { name: 'reboot', phase: 'start' });
    const pending = { power_state: powerState, task_state: tasks.pending };
    await transition({ conductor, context: elevated }, instance, pending, { expectedTaskState: tasks.expected });
    const vmState = instance.get('vm_state') === VM_STATES.rescued ? VM_STATES.rescued : VM_STATES.active;
    try {
      const started = { task_state: tasks.started };
      await transition({ conductor, context: elevated }, instance, started, { expectedTaskState: tasks.pending });
      await this.#restart(elevated, instance, { type, vifs, isRunning: powerState === POWER_STATES.running }, signal);
    } catch (error) {
      await this.#judgeFailedReboot(elevated, instance, error);
    }
    await this.#saveRebooted(elevated, instance, vmState, signal);
    notifications.moment(elevated, instance, { name: 'reboot', phase: 'end' });
  }

  /** A soft reboot that is not possible becomes a hard one; a hard one works from any state. */
  async #restart(
    context: RequestContext,
    instance: Instance,
    {
      type,
      vifs,
      isRunning,
    }: { readonly type: RebootType; readonly vifs: readonly Vif[]; readonly isRunning: boolean },
    signal: AbortSignal,
  ): Promise<void> {
    if (type === 'SOFT' && isRunning && (await this.#softReboot(instance, signal))) return;
    await this.powerOff(instance, false, signal);
    await this.#leaveRescue(instance, signal);
    await this.#tools.plugger.unplug(vifs);
    await this.#setVolumes(context, instance, signal);
    await this.#hardStart(context, instance, vifs, signal);
  }

  async #softReboot(instance: Instance, signal: AbortSignal): Promise<boolean> {
    const { virt, log } = this.#services;
    try {
      await virt.softReboot(instance.get('uuid'), signal);
      return true;
    } catch (error) {
      if (kindOf(error) !== 'unsupported' && kindOf(error) !== 'conflict') throw error;
      log.info('soft reboot is not possible, rebooting hard', {
        instance: instance.get('uuid'),
        reason: messageOf(error),
      });
      return false;
    }
  }

  /** [workarounds] wait_for_vif_plugged_event_during_hard_reboot names the vnic types whose event is waited for. */
  async #hardStart(
    context: RequestContext,
    instance: Instance,
    vifs: readonly Vif[],
    signal: AbortSignal,
  ): Promise<void> {
    const { virt, config } = this.#services;
    const uuid = instance.get('uuid');
    const waitFor = new Set(config.build.waitForVifPluggedEventDuringHardReboot);
    const awaited = vifs.map((vif) => ({ ...vif, active: !waitFor.has(vif.vnicType) }));
    using watch = this.#tools.inbox.watch(uuid);
    const { vifPluggingTimeoutMs: timeoutMs, vifPluggingIsFatal: isFatal } = config.build;
    const nics = await this.#tools.plugger.plugAndWait(instance, awaited, { watch, timeoutMs, isFatal }, signal);
    await virt.powerOn(uuid, nics, signal).catch((error: unknown) => {
      throw asNotFound(error, instance);
    });
    this.#services.log.debug('instance started anew', { instance: uuid, request: context.requestId });
  }

  /** When the guest runs all the same, the failure is told but the instance is fine; else it is in error. */
  async #judgeFailedReboot(context: RequestContext, instance: Instance, error: unknown): Promise<void> {
    const { virt, conductor, notifications, log } = this.#services;
    const uuid = instance.get('uuid');
    const state = await virt.powerState(uuid, limited(CHECK_LIMIT_MS)).catch(() => POWER_STATES.nostate);
    if (state === POWER_STATES.running && !isNova(error, 'UnexpectedTaskStateError', 'InstanceNotFound')) {
      log.warn('reboot failed but the instance is running', { instance: uuid, error });
      await recordFault(this.#services, { context, instanceUuid: uuid, error });
      notifications.moment(context, instance, { name: 'reboot', phase: 'error', error });
      return;
    }
    instance.set('vm_state', VM_STATES.error);
    await conductor.save(context, instance).catch((cause: unknown) => {
      log.warn('cannot put an instance into error', { instance: uuid, error: cause });
    });
    throw error;
  }

  async #saveRebooted(
    context: RequestContext,
    instance: Instance,
    vmState: string,
    signal: AbortSignal,
  ): Promise<void> {
    const { virt, conductor, log } = this.#services;
    const powerState = await virt.powerState(instance.get('uuid'), signal);
    instance.set('power_state', powerState).set('vm_state', vmState).set('task_state', null);
    try {
      await conductor.save(context, instance);
    } catch (error) {
      if (!isNova(error, 'InstanceNotFound')) throw error;
      log.info('instance disappeared during its reboot', { instance: instance.get('uuid') });
    }
  }

  /** Powers off at once and marks as soft-deleted; restore() is the way back. */
  async softDelete(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#told(context, instance, 'soft_delete', async () => {
      await this.powerOff(instance, false, signal);
      await finishTask(
        this.#services,
        context,
        { instance, vmState: VM_STATES.softDelete, expectedTaskState: [TASK_STATES.softDeleting] },
        signal,
      );
    });
  }

  async restore(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.#told(context, instance, 'restore', async () => {
      const vifs = await this.#tools.networks.refresh(context, instance, { signal });
      await this.powerOn(context, instance, vifs, signal);
      await finishTask(
        this.#services,
        context,
        { instance, vmState: VM_STATES.active, expectedTaskState: TASK_STATES.restoring },
        signal,
      );
    });
  }

  /** As it was before the host went down: interfaces of the cache, no state of the instance touched. */
  async resume(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    await this.powerOn(context, instance, cachedVifs(instance), signal);
  }

  async #told(
    context: RequestContext,
    instance: Instance,
    name: InstanceMoment,
    work: () => Promise<void>,
  ): Promise<void> {
    await told(this.#services.notifications, context, { instance, name }, work);
  }
}

export function asNotFound(error: unknown, instance: Instance): unknown {
  if (kindOf(error) !== 'not_found') return error;
  return novaException('InstanceNotFound', { instance_id: instance.get('uuid') }, { cause: error });
}

export async function orNotFound(instance: Instance, work: Promise<void>): Promise<void> {
  await work.catch((error: unknown) => {
    throw asNotFound(error, instance);
  });
}
