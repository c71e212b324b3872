// The brokers of a transport_url: which one to try next and how long to wait before (section 1.2).
import type { RabbitOptions } from './options.ts';
import type { BrokerAddress } from './transport-url.ts';

/** Shuffled once, so that computes spread over a cluster; then round robin or, if asked for, at random. */
export class BrokerList {
  readonly #brokers: readonly [BrokerAddress, ...BrokerAddress[]];
  readonly #strategy: string;
  readonly #random: () => number;
  #index = 0;

  constructor(
    brokers: readonly [BrokerAddress, ...BrokerAddress[]],
    strategy: string,
    random: () => number = Math.random,
  ) {
    this.#random = random;
    this.#strategy = strategy;
    this.#brokers = shuffled(brokers, random);
  }

  get length(): number {
    return this.#brokers.length;
  }

  get current(): BrokerAddress {
    return this.#brokers[this.#index] ?? this.#brokers[0];
  }

  /** The current one failed. */
  next(): void {
    const step = this.#strategy === 'shuffle' ? Math.floor(this.#random() * this.length) : 1;
    this.#index = (this.#index + step) % this.length;
  }
}

function shuffled<T extends readonly [BrokerAddress, ...BrokerAddress[]]>(list: T, random: () => number): T {
  const copy: BrokerAddress[] = [...list];
  for (let last = copy.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    const [a, b] = [copy[last], copy[other]];
    if (a && b) [copy[last], copy[other]] = [b, a];
  }
  return copy as unknown as T;
}

/**
 * Milliseconds before attempt number `failures` + 1 to connect. All brokers are tried before the first wait; then it
 * grows from rabbit_retry_interval by rabbit_retry_backoff to rabbit_interval_max.
 */
export function retryDelayMs(failures: number, brokers: number, options: RabbitOptions): number {
  if (failures % brokers !== 0) return 0;
  const round = failures / brokers - 1;
  const seconds = (options.rabbit_retry_interval || 1) + round * options.rabbit_retry_backoff;
  return Math.min(seconds, options.rabbit_interval_max) * 1000;
}

/** Milliseconds before the first attempt after a connection was lost. */
export function reconnectDelayMs(options: RabbitOptions, random: () => number = Math.random): number {
  return (options.kombu_reconnect_delay + random() * options.kombu_reconnect_splay) * 1000;
}
