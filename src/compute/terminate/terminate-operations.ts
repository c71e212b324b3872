// The end of an instance (section 5.3): guest, interfaces, ports, record. Idempotent; the callers hold the instance's lock.
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { POWER_STATES, VM_STATES } from '#src/nova/states.ts';
import { cachedVifs } from '../network/info-cache.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { ComputeServices } from '../types.ts';
import { type BlockDevice, volumesAmong } from '../volumes/block-devices.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;

const DESTROY_LIMIT_MS = 300_000;

export class TerminateOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;

  constructor(services: ComputeServices, tools: OperationTools) {
    this.#services = services;
    this.#tools = tools;
  }

  /** An instance that is gone meanwhile is success; whatever else fails puts it into error. */
  async terminate(context: RequestContext, instance: Instance, devices?: readonly BlockDevice[]): Promise<void> {
    const { conductor, log } = this.#services;
    const uuid = instance.get('uuid');
    try {
      await this.#delete(context, instance, devices);
    } catch (error) {
      if (isNova(error, 'InstanceNotFound')) {
        log.info('instance disappeared during its deletion', { instance: uuid });
        return;
      }
      instance.set('vm_state', VM_STATES.error);
      await conductor.save(context, instance).catch((cause: unknown) => {
        log.warn('cannot put an instance into error', { instance: uuid, error: cause });
      });
      throw error;
    }
  }

  async #delete(context: RequestContext, instance: Instance, devices?: readonly BlockDevice[]): Promise<void> {
    const { conductor, notifications } = this.#services;
    notifications.moment(context, instance, { name: 'delete', phase: 'start' });
    await this.#shutDown(context, instance, devices);
    instance
      .set('vm_state', VM_STATES.deleted)
      .set('task_state', null)
      .set('power_state', POWER_STATES.nostate)
      .set('terminated_at', new Date());
    await conductor.save(context, instance);
    await this.completeDeletion(context, instance);
    notifications.moment(context, instance, { name: 'delete', phase: 'end' });
  }

  async #shutDown(context: RequestContext, instance: Instance, devices?: readonly BlockDevice[]): Promise<void> {
    const { notifications } = this.#services;
    const elevated = context.elevated();
    notifications.moment(elevated, instance, { name: 'shutdown', phase: 'start' });
    await this.removeGuest(instance);
    await this.#giveBackVolumes(context, instance, devices);
    const unplug = (vifs: readonly Vif[]) => this.#tools.plugger.unplug(vifs);
    await this.#tools.networks.deallocate(elevated, instance, { unplug, signal: limited(UNDO_LIMIT_MS) });
    notifications.moment(elevated, instance, { name: 'shutdown', phase: 'end' });
  }

  /** What the message has may be older than a build that was interrupted. */
  async #giveBackVolumes(context: RequestContext, instance: Instance, known?: readonly BlockDevice[]): Promise<void> {
    if (known && volumesAmong(known).length === 0) return;
    const { volumes } = this.#tools;
    const devices = await volumes.of(context, instance);
    await volumes.giveBack(context, devices, { deletes: true }, limited(UNDO_LIMIT_MS));
  }

  /** The container with its disks, and its interfaces and volumes on this host. A guest that is not there is success. */
  async removeGuest(instance: Instance, signal?: AbortSignal): Promise<void> {
    await this.#tools.consoles.forget(instance.get('uuid'));
    await this.#services.virt.destroy(instance.get('uuid'), limited(DESTROY_LIMIT_MS, signal));
    await this.#services.volumes.disconnectInstance(instance.get('uuid'), limited(UNDO_LIMIT_MS, signal));
    await this.#tools.plugger.unplug(cachedVifs(instance));
  }

  /** What is left when only the record is: usage, allocation, console tokens, scheduler, and the record itself. */
  async completeDeletion(context: RequestContext, instance: Instance): Promise<void> {
    const { conductor, tracker } = this.#services;
    await tracker.updateUsage(context, instance);
    await Promise.all([
      this.#deleteAllocation(instance),
      this.#cleanConsoles(context, instance),
      this.#tools.renounce(context, instance),
    ]);
    await conductor.objectMethod(context, instance, { method: 'destroy' });
  }

  /** Forced, unless deletions may be delayed here: then an allocation that changed meanwhile is not ours to delete. */
  async #deleteAllocation(instance: Instance): Promise<void> {
    const { placement, config } = this.#services;
    const uuid = instance.get('uuid');
    if (config.periodic.reclaimInstanceIntervalMs > 0) await placement.removeAllocations(uuid, limited(UNDO_LIMIT_MS));
    else await placement.deleteAllocations(uuid, limited(UNDO_LIMIT_MS));
  }

  async #cleanConsoles(context: RequestContext, instance: Instance): Promise<void> {
    const { conductor, config } = this.#services;
    if (!config.console.serial.enabled) return;
    await conductor.classMethod(context, {
      object: 'ConsoleAuthToken',
      method: 'clean_console_auths_for_instance',
      args: [instance.get('uuid')],
    });
  }
}
