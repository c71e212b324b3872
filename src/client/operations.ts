// Background operations of the engine: their end is told by the event stream, or by a blocking request when that is not open.
import { AppError, kindOf } from '#src/lib/errors.ts';
import { engineError } from './errors.ts';
import type { EventStream } from './events.ts';
import type { Method, RequestOptions, Transport } from './transport.ts';
import { type ApiEvent, type Operation, STATUS } from './wire.ts';

type OnProgress = (operation: Operation) => void;

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called with every change of the operation while it runs. */
  readonly onProgress?: OnProgress | undefined;
}

/** An operation that the engine accepted. It goes on whether or not anybody waits. */
export interface PendingOperation {
  readonly id: string;
  /** As it was when it was accepted. */
  readonly operation: Operation;
  /** Resolves with the ended operation, rejects with its error. Aborting the signal ends the wait, not the operation. */
  wait(signal?: AbortSignal): Promise<Operation>;
}

interface Tracked {
  readonly end: PromiseWithResolvers<Operation | undefined>;
  readonly onProgress: OnProgress | undefined;
}

/** How many ends are remembered of operations whose 202 has not arrived: the event may overtake it. */
const EARLY_ENDS = 256;

export class Operations {
  readonly #transport: Transport;
  readonly #events: EventStream;
  readonly #tracked = new Map<string, Tracked>();
  readonly #early = new Map<string, Operation>();

  constructor(transport: Transport, events: EventStream) {
    this.#transport = transport;
    this.#events = events;
    events.listen({ event: (event) => this.#take(event), lost: () => this.#lose() });
  }

  async list(signal?: AbortSignal): Promise<readonly Operation[]> {
    const { envelope } = await this.#transport.request('GET', '/1.0/operations', { query: { recursion: 1 }, signal });
    return Object.values((envelope.metadata ?? {}) as Record<string, readonly Operation[]>).flat();
  }

  async cancel(id: string, signal?: AbortSignal): Promise<void> {
    await this.#transport.request('DELETE', `/1.0/operations/${encodeURIComponent(id)}`, { signal });
  }

  /** Sends a request that the engine answers with an operation. */
  async start(method: Method, path: string, options: RequestOptions & CallOptions): Promise<PendingOperation> {
    const { onProgress, ...request } = options;
    const context = `${method} ${path}`;
    const generation = await this.#listen();
    const { envelope } = await this.#transport.request(method, path, request);
    if (envelope.type !== 'async') throw new AppError('internal', `${context}: the engine answered no operation`);
    const operation = envelope.metadata as Operation;
    // Only a stream that stayed open all the time cannot have missed the end.
    const isWatched = generation !== undefined && this.#events.generation === generation;
    const end = isWatched ? this.#track(operation.id, onProgress) : undefined;
    return {
      id: operation.id,
      operation,
      wait: async (signal) => {
        const reported = end && (await untilAborted(end, signal));
        return succeeded(reported ?? (await this.#blockingWait(operation.id, signal)), context);
      },
    };
  }

  /** Waits for an operation that somebody else started. */
  async wait(id: string, signal?: AbortSignal): Promise<Operation> {
    return succeeded(await this.#blockingWait(id, signal), `operation ${id}`);
  }

  /** Opens the stream before the request, so that no end is missed. Undefined when it cannot be opened now. */
  async #listen(): Promise<number | undefined> {
    try {
      await this.#events.open();
      return this.#events.generation;
    } catch (error) {
      if (kindOf(error) !== 'unavailable') throw error;
      return undefined;
    }
  }

  #track(id: string, onProgress: OnProgress | undefined): Promise<Operation | undefined> {
    const end = Promise.withResolvers<Operation | undefined>();
    const early = this.#early.get(id);
    this.#early.delete(id);
    if (early) end.resolve(early);
    else this.#tracked.set(id, { end, onProgress });
    return end.promise;
  }

  #take(event: ApiEvent): void {
    if (event.type !== 'operation') return;
    const operation = event.metadata as Operation;
    const tracked = this.#tracked.get(operation.id);
    if (!isEnded(operation)) return tracked?.onProgress?.(operation);
    if (tracked) {
      this.#tracked.delete(operation.id);
      return tracked.end.resolve(operation);
    }
    this.#early.set(operation.id, operation);
    const oldest = this.#early.keys().next();
    if (this.#early.size > EARLY_ENDS && oldest.done !== true) this.#early.delete(oldest.value);
  }

  #lose(): void {
    for (const { end } of this.#tracked.values()) end.resolve(undefined);
    this.#tracked.clear();
    this.#early.clear();
  }

  async #blockingWait(id: string, signal: AbortSignal | undefined): Promise<Operation> {
    const path = `/1.0/operations/${encodeURIComponent(id)}/wait`;
    try {
      const { envelope } = await this.#transport.request('GET', path, { signal, idleTimeoutMs: 0 });
      return envelope.metadata as Operation;
    } catch (error) {
      // Records live for five seconds after the end; one that is gone tells nothing about how it ended.
      if (kindOf(error) !== 'not_found') throw error;
      throw new AppError('unavailable', `the outcome of operation ${id} was missed`, { cause: error });
    }
  }
}

export function isEnded(operation: Operation): boolean {
  return operation.status_code >= STATUS.success;
}

async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function succeeded(operation: Operation, context: string): Operation {
  if (operation.status_code === STATUS.success) return operation;
  // A failed operation always says 400, whatever went wrong: only its text tells more.
  throw engineError(500, operation.err || `the operation ended as ${operation.status}`, context);
}
