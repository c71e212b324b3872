// Who asked: carried along the course of a request, so that events can say it without every function passing it on.
import { AsyncLocalStorage } from 'node:async_hooks';

export interface Requestor {
  /** Login name of the peer (unix) or fingerprint of its certificate (tls). */
  readonly username: string;
  readonly protocol: 'unix' | 'tls';
  readonly address: string;
}

const current = new AsyncLocalStorage<Requestor>();

/** Runs `work`, and all that it starts, on behalf of `requestor`. */
export function onBehalfOf<T>(requestor: Requestor, work: () => T): T {
  return current.run(requestor, work);
}

/** Runs `work`, and all that it starts, on nobody's behalf: what outlives the request that began it. */
export function onNobodysBehalf<T>(work: () => T): T {
  return current.exit(work);
}

/** Undefined outside of requests: start-up, timers. */
export function currentRequestor(): Requestor | undefined {
  return current.getStore();
}
