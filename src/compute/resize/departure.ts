// A guest leaves this host: off, copied, unplugged, and the instance the other host's; or all of it taken back.
import { asError, messageOf } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import { POWER_STATES } from '#src/nova/states.ts';
import { cachedVifs } from '../network/info-cache.ts';
import type { OperationTools } from '../operation-tools.ts';
import type { PowerOperations } from '../power/power-operations.ts';
import { findInstance } from '../records.ts';
import type { ComputeServices } from '../types.ts';
import { takeBackMove } from './abandon-move.ts';
import { isBetweenHosts, type Move, Refusal, setStatus, wasStopped } from './failing.ts';
import { GuestSender } from './guest-sender.ts';
import { discardAtDestination } from './peer.ts';
import { bootsFromVolume, refuseEphemerals } from './volume-move.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

export interface Departure extends Move {
  readonly cleanShutdown: boolean;
  /** Tells Nova that the instance is the destination's. */
  readonly place: () => Promise<void>;
}

export class GuestDeparture {
  readonly #services: ComputeServices;
  readonly #tools: OperationTools;
  readonly #power: PowerOperations;
  readonly #sender: GuestSender;

  constructor(services: ComputeServices, tools: OperationTools, power: PowerOperations) {
    this.#services = services;
    this.#tools = tools;
    this.#power = power;
    this.#sender = new GuestSender(services);
  }

  interrupt(uuid: string): void {
    this.#sender.interrupt(uuid);
  }

  /** What the preparation gave the instance goes; a failure of that is only logged. */
  async takeBack(context: RequestContext, instance: Move['instance']): Promise<void> {
    await takeBackMove(this.#services, context, instance, limited(UNDO_LIMIT_MS)).catch((error: unknown) => {
      this.#services.log.error('cannot take a move back', { instance: instance.get('uuid'), error });
    });
  }

  /** Before anything is touched. */
  async refuseUnreachable(context: RequestContext, { instance }: Move): Promise<void> {
    const { virt } = this.#services;
    try {
      if (await bootsFromVolume(this.#services, context, instance)) refuseEphemerals(instance);
      else virt.moves.assertOffers();
    } catch (cause) {
      await this.takeBack(context, instance);
      throw new Refusal(novaException('MigrationPreCheckError', { reason: messageOf(cause) }, { cause }));
    }
  }

  /** The guest stays on this host, off, until the move is confirmed. A Refusal: it runs here again as before. */
  async depart(context: RequestContext, departure: Departure, signal: AbortSignal): Promise<void> {
    const { instance, cleanShutdown, place } = departure;
    const isOnVolume = await bootsFromVolume(this.#services, context, instance);
    const sizeBytes = isOnVolume ? null : await this.#size(departure, signal);
    await this.#power.powerOff(instance, cleanShutdown, signal);
    try {
      if (!isOnVolume) await this.#sender.send(context, departure, sizeBytes, signal);
      await this.#tools.plugger.unplug(cachedVifs(instance));
      await this.#tools.volumes.reserveAnew(context, instance, signal);
      instance.set('progress', 0);
      await place();
    } catch (error) {
      if (!(await this.#isBack(context, departure))) throw error;
      throw new Refusal(asError(error));
    }
  }

  /** Of what is on the disk; only for the progress, and only a running guest tells. */
  async #size({ instance }: Departure, signal: AbortSignal): Promise<number | null> {
    const { virt, log } = this.#services;
    const uuid = instance.get('uuid');
    try {
      if ((await virt.powerState(uuid, signal)) !== POWER_STATES.running) return null;
      return (await virt.usage(uuid, signal)).diskBytes;
    } catch (error) {
      log.debug('size of a guest not known', { instance: uuid, error });
      return null;
    }
  }

  /** Whether the guest is here as it was before the move. Not when Nova has taken it for the other host's, or deletes it. */
  async #isBack(context: RequestContext, { instance, migration }: Departure): Promise<boolean> {
    const { conductor, config, log } = this.#services;
    const uuid = instance.get('uuid');
    const signal = limited(UNDO_LIMIT_MS);
    try {
      const stored = await findInstance({ conductor, context: context.elevated() }, uuid, []);
      if (stored?.get('host') !== config.host || stored.get('task_state') === 'deleting') return false;
      const wasOff = wasStopped(instance);
      await takeBackMove(this.#services, context, instance, signal);
      await setStatus(this.#services, context, migration, 'error');
      await discardAtDestination(this.#services, context, { instance, migration });
      if (wasOff) await this.#tools.volumes.present(context, instance, signal);
      else await this.#power.powerOn(context, instance, cachedVifs(instance), signal);
      return true;
    } catch (error) {
      if (!isNova(error, 'InstanceNotFound')) log.error('cannot take a move back', { instance: uuid, error });
      return false;
    }
  }

  /** What this host keeps for the way back. */
  async countRoom(context: RequestContext, move: Move): Promise<void> {
    if (!isBetweenHosts(move)) return;
    const { tracker } = this.#services;
    await tracker.updateUsage(context, move.instance);
    await tracker.keepRoom(move.instance, move.instance.get('old_flavor'));
  }
}
