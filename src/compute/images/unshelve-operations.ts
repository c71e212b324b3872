// A shelved instance comes back on this host, from the image that it was put away as (section 5.10).
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { guestData } from '../guest/guest-data.ts';
import { cachedVifs } from '../network/info-cache.ts';
import type { OperationTools } from '../operation-tools.ts';
import { deleteShelvedImage, withoutShelving } from '../power/shelved-image.ts';
import { told } from '../power/told.ts';
import { transition } from '../transition.ts';
import type { Claim, ComputeServices } from '../types.ts';
import { asImageError, spawnImage } from './spawn-image.ts';
import { spawnSpec } from './spawn-spec.ts';
import { blockDevicesOf } from '../volumes/block-devices.ts';
import { rootVolumeAmong } from '../volumes/root-volume.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;
/** The image as the conductor sends it. */
type Image = Readonly<Record<string, unknown>>;

export class UnshelveOperations {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;

  constructor(services: ComputeServices, tools: OperationTools) {
    this.#services = services;
    this.#tools = tools;
  }

  /** What fails leaves the instance shelved: no guest, no claim, no allocation, and its image. */
  async unshelve(context: RequestContext, instance: Instance, image: Image, signal: AbortSignal): Promise<void> {
    const { conductor, tracker, notifications } = this.#services;
    await told(notifications, context, { instance, name: 'unshelve' }, async () => {
      let claim: Claim | undefined;
      try {
        // Stock computes do not check here, and write over a `deleting` that came meanwhile.
        const options = { expectedTaskState: TASK_STATES.unshelving };
        await transition({ conductor, context }, instance, { task_state: TASK_STATES.spawning }, options);
        claim = await tracker.instanceClaim(context, instance);
        await this.#spawn(context, instance, image, signal);
        await this.#publish(context, instance, signal);
      } catch (error) {
        await this.#takeBack(context, instance, async () => await claim?.abort(limited(UNDO_LIMIT_MS)));
        throw error;
      }
    });
  }

  /** Of one that a killed process had begun, or only been told of: it stays shelved. Whoever goes on with it meanwhile wins. */
  async undo(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { conductor, tracker, virt, log } = this.#services;
    const expectedTaskState = [TASK_STATES.unshelving, TASK_STATES.spawning];
    const fields = { host: null, node: null, compute_id: null, task_state: null };
    const isHere = instance.get('host') !== null;
    if (isHere) {
      await virt.destroy(instance.get('uuid'), signal);
      await this.#tools.plugger.unplug(cachedVifs(instance));
    }
    try {
      await transition({ conductor, context }, instance, fields, { expectedTaskState });
    } catch (error) {
      if (isHere || !isNova(error, 'UnexpectedTaskStateError')) throw error;
      log.info('unshelving goes on', { instance: instance.get('uuid') });
      return;
    }
    await this.#takeBack(context, instance, () => tracker.release(instance));
  }

  async #takeBack(context: RequestContext, instance: Instance, dropClaim: () => Promise<void>): Promise<void> {
    const { placement, log } = this.#services;
    const uuid = instance.get('uuid');
    await this.#tools.volumes.reserveAnew(context, instance, limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
      log.warn('volumes of an instance that stays shelved are still in use', { instance: uuid, error: cause });
    });
    const undo = [placement.deleteAllocations(uuid, limited(UNDO_LIMIT_MS)), dropClaim()];
    for (const result of await Promise.allSettled(undo)) {
      if (result.status === 'rejected') {
        log.warn('cannot take back what an instance had here', { instance: uuid, error: result.reason });
      }
    }
  }

  async #spawn(context: RequestContext, instance: Instance, sent: Image, signal: AbortSignal): Promise<void> {
    const { virt, glance, config, conductor } = this.#services;
    const { networks, plugger, inbox, volumes } = this.#tools;
    const { vifPluggingTimeoutMs: timeoutMs, vifPluggingIsFatal: isFatal } = config.build;
    const devices = await blockDevicesOf({ conductor, context }, instance.get('uuid'));
    const image = rootVolumeAmong(devices) ? null : await spawnImage(glance, context, sent, signal);
    // it is nowhere: what there is of it here is of an earlier try, which the engine was too far away to end
    await virt.destroy(instance.get('uuid'), signal);
    using watch = inbox.watch(instance.get('uuid'));
    const hooks = {
      network: async (limit: AbortSignal) => {
        await networks.bindHere(context, instance, limit);
        const vifs = await networks.refresh(context, instance, { signal: limit });
        return await plugger.plug(instance, vifs, limit);
      },
      volumes: (limit: AbortSignal) => volumes.present(context, instance, limit),
      rootImage: (limit: AbortSignal) => volumes.rootImage(context, devices, limit),
      guest: async (limit: AbortSignal) => {
        const asking = { services: this.#services, context, signal: limit };
        const wish = {
          image: { properties: image?.properties ?? {} },
          files: [],
          adminPassword: null,
          blockDevices: null,
        };
        return { ...(await guestData(asking, instance, wish, cachedVifs(instance))), rootKey: null };
      },
      wired: (limit: AbortSignal) =>
        plugger.waitUntilWired(instance, cachedVifs(instance), { watch, timeoutMs, isFatal }, limit),
    };
    try {
      await virt.spawn(spawnSpec(instance, image, this.#services, devices), hooks, signal);
    } catch (error) {
      await plugger.unplug(cachedVifs(instance));
      throw asImageError(error, image);
    }
  }

  /** The image goes last: until Nova knows of the guest, it is all that there is of the instance. */
  async #publish(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const { conductor, virt, log } = this.#services;
    const uuid = instance.get('uuid');
    const { imageId, metadata } = withoutShelving(instance);
    try {
      const fields = {
        power_state: await virt.powerState(uuid, signal),
        vm_state: VM_STATES.active,
        task_state: null,
        launched_at: new Date(),
        system_metadata: metadata,
      };
      await transition({ conductor, context }, instance, fields, { expectedTaskState: TASK_STATES.spawning });
    } catch (error) {
      await virt.destroy(uuid, limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
        log.error('cannot remove the guest of an instance that stays shelved', { instance: uuid, error: cause });
      });
      await this.#tools.plugger.unplug(cachedVifs(instance));
      throw error;
    }
    if (imageId !== null) await deleteShelvedImage(this.#services, context, imageId, signal);
    await this.#tools.announce(context, instance);
  }
}
