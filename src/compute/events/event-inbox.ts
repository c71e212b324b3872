// Waiting for what Neutron reports through nova-api: network-vif-plugged and the like (section 5.14).
import { AppError } from '#src/lib/errors.ts';
import { ownValue } from '#src/lib/own-value.ts';

export interface ExternalEvent {
  readonly name: string;
  readonly tag: string | null;
  readonly status: string;
}

/**
 * Everything reported about one instance since the watch was opened. Open it before the action that causes the event: an
 * event may come before anybody waits for it, and several times.
 */
export interface EventWatch extends Disposable {
  /** Resolves with the event, also with one seen before; rejects when the signal aborts or the wait is cancelled. */
  wait(name: string, tag: string, signal: AbortSignal): Promise<ExternalEvent>;
}

/** The names whose arrival makes an earlier event of another name untrue. */
const CANCELLED_BY: Readonly<Record<string, string>> = { 'network-vif-unplugged': 'network-vif-plugged' };

interface Waiter {
  readonly key: string;
  readonly resolve: (event: ExternalEvent) => void;
  readonly reject: (reason: unknown) => void;
}

class Watch implements EventWatch {
  readonly #seen = new Map<string, ExternalEvent>();
  readonly #waiters = new Set<Waiter>();
  readonly #close: (watch: Watch) => void;

  constructor(close: (watch: Watch) => void) {
    this.#close = close;
  }

  /** True when somebody waited for it. */
  deliver(event: ExternalEvent): boolean {
    this.#seen.set(keyOf(event.name, event.tag), event);
    const outdated = ownValue(CANCELLED_BY, event.name);
    if (outdated !== undefined) this.#seen.delete(keyOf(outdated, event.tag));
    const waiters = [...this.#waiters].filter(({ key }) => key === keyOf(event.name, event.tag));
    for (const waiter of waiters) waiter.resolve(event);
    return waiters.length > 0;
  }

  async wait(name: string, tag: string, signal: AbortSignal): Promise<ExternalEvent> {
    signal.throwIfAborted();
    const key = keyOf(name, tag);
    const seen = this.#seen.get(key);
    if (seen) return seen;
    const { promise, resolve, reject } = Promise.withResolvers<ExternalEvent>();
    const waiter: Waiter = { key, resolve, reject };
    const onAbort = (): void => reject(signal.reason);
    this.#waiters.add(waiter);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#waiters.delete(waiter);
    }
  }

  cancel(reason: Error): void {
    for (const waiter of this.#waiters) waiter.reject(reason);
  }

  [Symbol.dispose](): void {
    this.cancel(new AppError('internal', 'the wait for external events was given up'));
    this.#close(this);
  }
}

/** The watches of all instances on this host. */
export class EventInbox {
  readonly #watches = new Map<string, Set<Watch>>();
  readonly #idle = new Map<string, PromiseWithResolvers<void>>();

  watch(uuid: string): EventWatch {
    const watches = this.#watches.get(uuid) ?? new Set<Watch>();
    const watch = new Watch((closed) => {
      watches.delete(closed);
      if (watches.size > 0 || this.#watches.get(uuid) !== watches) return;
      this.#watches.delete(uuid);
      this.#idle.get(uuid)?.resolve();
      this.#idle.delete(uuid);
    });
    watches.add(watch);
    this.#watches.set(uuid, watches);
    return watch;
  }

  /** False when nobody waits for this event now; it is remembered all the same while a watch is open. */
  deliver(uuid: string, event: ExternalEvent): boolean {
    return [...(this.#watches.get(uuid) ?? [])].map((watch) => watch.deliver(event)).includes(true);
  }

  /** Whether events of the instance are of interest to somebody. */
  isWatched(uuid: string): boolean {
    return this.#watches.has(uuid);
  }

  /** Resolves when no watch of the instance is open: at the latest when what opened it ends. */
  async unwatched(uuid: string): Promise<void> {
    if (!this.isWatched(uuid)) return;
    const idle = this.#idle.get(uuid) ?? Promise.withResolvers<void>();
    this.#idle.set(uuid, idle);
    await idle.promise;
  }

  /** Rejects all waits for events of one instance; true when there were watches. */
  forget(uuid: string): boolean {
    const watches = this.#watches.get(uuid);
    for (const watch of watches ?? []) watch.cancel(new AppError('not_found', `instance ${uuid} is being deleted`));
    return watches !== undefined;
  }

  /** Rejects everything that waits: the process ends. */
  cancelAll(): void {
    const reason = new AppError('unavailable', 'the compute service stops');
    for (const watches of this.#watches.values()) for (const watch of watches) watch.cancel(reason);
  }
}

function keyOf(name: string, tag: string | null): string {
  return `${name}/${tag ?? ''}`;
}
