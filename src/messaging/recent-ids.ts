// Remembers a few ids: messages seen (section 1.8) and reply queues that are gone (section 1.6).

/** The last `size` ids, for duplicate detection. */
export class RecentIds {
  readonly #ids = new Set<string>();
  readonly #size: number;

  constructor(size: number) {
    this.#size = size;
  }

  /** True when the id is new. */
  add(id: string): boolean {
    if (this.#ids.has(id)) return false;
    this.#ids.add(id);
    const [oldest] = this.#ids;
    if (this.#ids.size > this.#size && oldest !== undefined) this.#ids.delete(oldest);
    return true;
  }
}

/** Ids that are forgotten after a time, or earlier when there are too many. */
export class ExpiringIds {
  readonly #expiry = new Map<string, number>();
  readonly #size: number;
  readonly #ttlMs: number;

  constructor(size: number, ttlMs: number) {
    this.#size = size;
    this.#ttlMs = ttlMs;
  }

  add(id: string): void {
    this.#expiry.delete(id);
    this.#expiry.set(id, performance.now() + this.#ttlMs);
    const [oldest] = this.#expiry.keys();
    if (this.#expiry.size > this.#size && oldest !== undefined) this.#expiry.delete(oldest);
  }

  has(id: string): boolean {
    const expiry = this.#expiry.get(id);
    if (expiry === undefined) return false;
    if (expiry > performance.now()) return true;
    this.#expiry.delete(id);
    return false;
  }
}
