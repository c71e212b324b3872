// Work that waits its turn: a few at a time, in the order of arrival.

export class Turns {
  readonly #limit: number;
  readonly #waiting: (() => void)[] = [];
  #active = 0;

  /** 0: no limit. */
  constructor(limit: number) {
    this.#limit = limit > 0 ? limit : Number.POSITIVE_INFINITY;
  }

  /** Runs `work` when fewer than the limit run. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#active >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#active += 1;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#active -= 1;
      else next();
    }
  }
}
