// Who uses an image while nobody may delete it.

/** Users of one image now, and whoever waits for them to be gone. */
export class Usage {
  #count = 0;
  #idle = Promise.withResolvers<void>();

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#count++;
    try {
      return await work();
    } finally {
      if (--this.#count === 0) {
        this.#idle.resolve();
        this.#idle = Promise.withResolvers();
      }
    }
  }

  async idle(): Promise<void> {
    if (this.#count > 0) await this.#idle.promise;
  }
}
