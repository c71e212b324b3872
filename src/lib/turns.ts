// Work that waits its turn: a few at a time, in the order of arrival.

export class Turns {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #active = 0;

  /** 0: no limit. */
  constructor(limit: number) {
    this.#limit = limit > 0 ? limit : Number.POSITIVE_INFINITY;
  }

  /** Runs `work` when fewer than the limit run. Rejects, without having run it, when the signal aborts before its turn. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#active >= this.#limit) await this.#turn(signal);
    else this.#active += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#active -= 1;
      else next();
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      this.#waiting.splice(this.#waiting.indexOf(enter), 1);
      reject(signal?.reason as Error);
    };
    const enter = (): void => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    };
    this.#waiting.push(enter);
    signal?.addEventListener('abort', onAbort, { once: true });
    return promise;
  }
}
