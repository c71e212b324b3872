// Brings Nova's idea of an instance's power into line with the engine (contract section 4.10).
import type { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import { ACTIONS, type PowerState, POWER_STATES, TASK_STATES } from '#src/nova/states.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { LifecycleEvent, VirtDriver } from '#drivers/virt/driver.ts';
import { inParallel } from '../in-parallel.ts';
import { findInstance, type Instance, instancesOfHost } from '../records.ts';
import type { InstanceOperations } from '../types.ts';
import { type PowerAction, powerAction } from './power-table.ts';

export interface PowerSyncParts {
  readonly host: string;
  readonly poolSize: number;
  readonly conductor: Conductor;
  readonly virt: VirtDriver;
  readonly operations: InstanceOperations;
  readonly locks: KeyedLock;
  readonly log: Log;
  /** Between an event and its being looked at; engines report in bursts. */
  readonly eventDelayMs?: number;
}

/** Operations need these of an instance. */
const ATTRIBUTES = ['flavor', 'info_cache', 'metadata', 'system_metadata'] as const;

const STATE_OF_EVENT: Readonly<Record<LifecycleEvent['event'], PowerState>> = {
  started: POWER_STATES.running,
  resumed: POWER_STATES.running,
  stopped: POWER_STATES.shutdown,
  paused: POWER_STATES.paused,
};

export class PowerSync {
  readonly #parts: PowerSyncParts;
  readonly #waiting = new Set<string>();

  constructor(parts: PowerSyncParts) {
    this.#parts = parts;
  }

  /** All instances of the host. */
  async syncAll(signal: AbortSignal): Promise<void> {
    const { conductor, host, virt, poolSize, log } = this.#parts;
    const context = RequestContext.admin();
    const [instances, guests] = await Promise.all([
      instancesOfHost({ conductor, context }, host, []),
      virt.listInstances(signal),
    ]);
    const states = new Map(guests.map(({ uuid, powerState }) => [uuid, powerState]));
    const differing = instances.filter((instance) => {
      const power = states.get(instance.get('uuid')) ?? POWER_STATES.nostate;
      return (
        this.#isFree(instance) && (instance.get('power_state') !== power || this.#action(instance, power) !== 'none')
      );
    });
    await inParallel(differing, poolSize, async (instance) => {
      signal.throwIfAborted();
      await this.#syncOne(instance.get('uuid'), signal).catch((error: unknown) => {
        log.warn('power state not synchronised', { instance: instance.get('uuid'), error });
      });
    });
  }

  /**
   * Follows what the engine reports. An event of an instance that is being worked on is the work's own doing; a burst is
   * looked at once. Ends with the signal.
   */
  follow(signal: AbortSignal): void {
    const subscription = this.#parts.virt.onLifecycle((event) => {
      const { uuid } = event;
      if (this.#parts.locks.isBusy(uuid) || this.#waiting.has(uuid)) return;
      this.#waiting.add(uuid);
      void this.#handle(event, signal);
    });
    signal.addEventListener('abort', () => subscription[Symbol.dispose](), { once: true });
  }

  async #handle({ uuid, event }: LifecycleEvent, signal: AbortSignal): Promise<void> {
    const { virt, log, locks, eventDelayMs = 1000 } = this.#parts;
    try {
      await sleep(eventDelayMs, signal);
      this.#waiting.delete(uuid);
      if (locks.isBusy(uuid)) return;
      const power = await virt.powerState(uuid, signal);
      if (power !== STATE_OF_EVENT[event] && power !== POWER_STATES.nostate) return;
      await this.#syncOne(uuid, signal);
    } catch (error) {
      if (!signal.aborted) log.warn('engine event not followed', { instance: uuid, event, error });
    } finally {
      this.#waiting.delete(uuid);
    }
  }

  /** Nova's record and the engine are asked anew: much may have happened since the list was made. */
  async #syncOne(uuid: string, signal: AbortSignal): Promise<void> {
    const { conductor, virt, host } = this.#parts;
    const context = RequestContext.admin();
    const instance = await findInstance({ conductor, context }, uuid, ATTRIBUTES);
    if (instance?.get('host') !== host || !this.#isFree(instance)) return;
    const power = await virt.powerState(uuid, signal);
    instance.set('power_state', power);
    try {
      await conductor.save(context, instance, { expectedTaskState: null });
      await this.#act(context, instance, power);
    } catch (error) {
      // somebody has begun something meanwhile, and will see to it
      if (!isNova(error, 'UnexpectedTaskStateError', 'InstanceNotFound')) throw error;
    }
  }

  async #act(context: RequestContext, instance: Instance, power: PowerState): Promise<void> {
    const { operations, log } = this.#parts;
    const action = this.#action(instance, power);
    if (action === 'none') return;
    const about = { instance: instance.get('uuid'), vmState: instance.get('vm_state'), power };
    log.warn('instance is not in the power state that Nova wants', { ...about, action });
    if (action === 'stop') {
      await this.#begin(context, instance, { task: TASK_STATES.poweringOff, action: ACTIONS.stop });
      await operations.stop(context, instance, true);
    } else if (action === 'delete') {
      await this.#begin(context, instance, { task: TASK_STATES.deleting, action: ACTIONS.delete });
      await operations.terminate(context, instance);
    }
  }

  /** What nova-api does before it casts: claims the instance for the task, and records who did it. */
  async #begin(
    context: RequestContext,
    instance: Instance,
    { task, action }: { readonly task: string; readonly action: string },
  ): Promise<void> {
    const { conductor } = this.#parts;
    instance.set('task_state', task).set('progress', 0);
    await conductor.save(context, instance, { expectedTaskState: null });
    await conductor.classMethod(context, {
      object: 'InstanceAction',
      method: 'action_start',
      args: [instance.get('uuid'), action],
      kwargs: { want_result: false },
    });
  }

  #action(instance: Instance, power: PowerState): PowerAction {
    const deletesOnShutdown = instance.find('shutdown_terminate') === true;
    return powerAction({ vmState: instance.get('vm_state'), power, deletesOnShutdown });
  }

  #isFree(instance: Instance): boolean {
    return instance.get('task_state') === null && !this.#parts.locks.isBusy(instance.get('uuid'));
  }
}
