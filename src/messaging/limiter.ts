// At most so many pieces of work at the same time, the rest waiting in order (executor_thread_pool_size).

export class Limiter {
  readonly #limit: number;
  readonly #waiting: (() => Promise<void>)[] = [];
  #running = 0;
  #onIdle: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Running and waiting. */
  get size(): number {
    return this.#running + this.#waiting.length;
  }

  /** `work` must not reject. */
  run(work: () => Promise<void>): void {
    this.#waiting.push(work);
    this.#next();
  }

  /** Resolves when nothing runs or waits. */
  idle(): Promise<void> {
    if (this.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  #next(): void {
    while (this.#running < this.#limit) {
      const work = this.#waiting.shift();
      if (!work) break;
      this.#running += 1;
      void work().finally(() => {
        this.#running -= 1;
        this.#next();
      });
    }
    if (this.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
  }
}
