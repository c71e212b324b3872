// Moves between engines in memory: a ticket names an offer of another one in this process.
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import { type GuestMoves, type GuestOffer, type GuestSpec, POWER_STATE } from '../driver.ts';
import type { FakeInstance } from './instance.ts';

interface Offer {
  readonly guest: FakeInstance;
  readonly end: PromiseWithResolvers<void>;
}

const offers = new Map<string, Offer>();

export class FakeMoves implements GuestMoves {
  /** Why no guest can leave; tests set it. */
  refusal: Error | undefined;
  readonly #instances: Map<string, FakeInstance>;
  readonly #failOnDemand: (method: string) => void;

  constructor(instances: Map<string, FakeInstance>, failOnDemand: (method: string) => void) {
    this.#instances = instances;
    this.#failOnDemand = failOnDemand;
  }

  assertOffers(): void {
    if (this.refusal) throw this.refusal;
  }

  async offer(uuid: string, signal: AbortSignal, onProgress?: (bytes: number) => void): Promise<GuestOffer> {
    signal.throwIfAborted();
    this.assertOffers();
    const guest = this.#existing(uuid);
    this.#failOnDemand('offer');
    if (guest.powerState !== POWER_STATE.shutdown) throw new AppError('conflict', `instance ${uuid} runs`);
    const id = randomUUID();
    const end = Promise.withResolvers<void>();
    end.promise.catch(() => undefined);
    offers.set(id, { guest, end });
    const giveUp = (): void => {
      if (offers.delete(id)) end.reject(new AppError('unavailable', 'the offer was withdrawn'));
    };
    return {
      ticket: { offer: id },
      fetched: async (limit) => {
        limit.addEventListener('abort', () => end.reject(limit.reason), { once: true });
        await end.promise;
        onProgress?.(1 << 20);
      },
      [Symbol.asyncDispose]: async () => giveUp(),
    };
  }

  async receive(spec: GuestSpec, ticket: unknown, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const id = typeof ticket === 'object' && ticket !== null && 'offer' in ticket ? ticket.offer : undefined;
    if (typeof id !== 'string') throw new AppError('invalid', 'not a ticket of this driver');
    const present = this.#instances.get(spec.uuid);
    if (present && !present.isArriving) throw new AppError('conflict', `instance ${spec.uuid} exists`);
    const offer = offers.get(id);
    if (!offer) throw new AppError('unavailable', 'nothing is on offer');
    try {
      this.#failOnDemand('receive');
    } catch (error) {
      offer.end.reject(error);
      throw error;
    }
    offers.delete(id);
    const { imageId, ...rest } = spec;
    const image = offer.guest.spec.image && { ...offer.guest.spec.image, id: imageId };
    const arrived = {
      spec: { ...rest, image },
      nics: [],
      volumes: [],
      guest: offer.guest.guest,
      powerState: POWER_STATE.shutdown,
      console: '',
      isArriving: true,
    };
    this.#instances.set(spec.uuid, arrived);
    offer.end.resolve();
  }

  async adopt(uuid: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const guest = this.#existing(uuid);
    this.#failOnDemand('adopt');
    guest.isArriving = false;
  }

  async withdraw(uuid: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#failOnDemand('withdraw');
    const guest = this.#instances.get(uuid);
    for (const [id, offer] of offers) {
      if (offer.guest !== guest) continue;
      offers.delete(id);
      offer.end.reject(new AppError('unavailable', 'the offer was withdrawn'));
    }
  }

  #existing(uuid: string): FakeInstance {
    const instance = this.#instances.get(uuid);
    if (!instance) throw new AppError('not_found', `no instance ${uuid}`);
    return instance;
  }
}
