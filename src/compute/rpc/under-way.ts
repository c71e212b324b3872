// Which instances requests are about that have not ended yet: what is written of them is still theirs to change.

export class UnderWay {
  readonly #counts = new Map<string, number>();
  /** Instances whose request could not write how it ended. */
  readonly left = new Set<string>();
  #onLeft: () => void = () => {};

  has(uuid: string): boolean {
    return this.#counts.has(uuid);
  }

  async during<T>(uuid: string, work: () => Promise<T>): Promise<T> {
    this.#counts.set(uuid, (this.#counts.get(uuid) ?? 0) + 1);
    try {
      return await work();
    } finally {
      const left = (this.#counts.get(uuid) ?? 1) - 1;
      if (left === 0) this.#counts.delete(uuid);
      else this.#counts.set(uuid, left);
    }
  }

  /** To be called by a request that ends and could not end its instance's task. */
  leaveTask(uuid: string): void {
    this.left.add(uuid);
    this.#onLeft();
  }

  whenTaskIsLeft(listener: () => void): void {
    this.#onLeft = listener;
  }
}
