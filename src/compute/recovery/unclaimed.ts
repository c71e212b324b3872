// What was placed here and never claimed, looked at once: when the messages that waited for this host have been taken.
import type { Service } from '#src/lib/service.ts';
import { aborted, sleep } from '#src/lib/wait.ts';
import { type ArrivalParts, giveUpArrivals } from './interrupted-arrivals.ts';
import { failInterruptedBuilds } from './interrupted-builds.ts';

/** How long after the queues are consumed all that waited in them has been taken. */
const TAKEN_AFTER_MS = 5000;

export class Unclaimed implements Service {
  readonly name = 'interrupted builds and arrivals';
  readonly #parts: ArrivalParts;
  readonly #uuids: readonly string[];
  readonly #ending = new AbortController();
  #work: Promise<void> = Promise.resolve();

  constructor(parts: ArrivalParts, uuids: readonly string[]) {
    this.#parts = parts;
    this.#uuids = uuids;
  }

  async start(): Promise<void> {
    this.#work = this.#look();
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#ending.abort();
    await Promise.race([this.#work, aborted(signal)]);
  }

  async #look(): Promise<void> {
    try {
      await sleep(TAKEN_AFTER_MS, this.#ending.signal);
      await giveUpUnclaimed(this.#parts, this.#uuids);
    } catch (error) {
      if (this.#ending.signal.aborted) return;
      this.#parts.log.error('interrupted builds and arrivals not looked after', { error });
    }
  }
}

/** `uuids`: of all that has resources here and may be nobody's. */
export async function giveUpUnclaimed(parts: ArrivalParts, uuids: readonly string[]): Promise<void> {
  await failInterruptedBuilds(parts, uuids);
  await giveUpArrivals(parts, uuids);
}
