// The engine's event stream: one websocket, shared by everybody in the process, reopened when it breaks.
import { type RawData, WebSocket } from 'ws';
import { AppError, asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import type { Endpoint } from './transport.ts';
import { openWebSocket } from './web-socket.ts';
import type { ApiEvent, EventType } from './wire.ts';

export interface EventStreamOptions {
  readonly endpoint: Endpoint;
  readonly project?: string | undefined;
  readonly types: readonly EventType[];
  readonly log: Log;
}

export interface EventListener {
  event?(event: ApiEvent): void;
  /** The stream is (again) open: events may have been missed before this moment. */
  opened?(): void;
  /** The stream broke, or was closed: nothing will be reported until `opened`. */
  lost?(): void;
}

const PING_EVERY_MS = 20_000;
const FIRST_RETRY_MS = 200;
const LAST_RETRY_MS = 5_000;

/** Opens on first use and stays open until closed. */
export class EventStream {
  readonly #options: EventStreamOptions;
  readonly #listeners = new Set<EventListener>();
  #socket: WebSocket | undefined;
  #opening: Promise<void> | undefined;
  #closed: AbortController | undefined;
  #generation = 0;

  constructor(options: EventStreamOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Counts the openings: an unchanged number means that nothing was missed in between. */
  get generation(): number | undefined {
    return this.isOpen ? this.#generation : undefined;
  }

  listen(listener: EventListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** Resolves when the stream is open; rejects with AppError 'unavailable' when this attempt failed. Retries go on. */
  async open(): Promise<void> {
    if (this.isOpen) return;
    this.#closed ??= new AbortController();
    this.#opening ??= this.#openFirst(this.#closed.signal);
    await this.#opening;
  }

  close(): void {
    this.#closed?.abort();
    this.#closed = undefined;
    this.#opening = undefined;
    this.#socket?.terminate();
    this.#socket = undefined;
  }

  async #openFirst(closed: AbortSignal): Promise<void> {
    try {
      await this.#connect(closed);
    } catch (error) {
      void this.#reconnect(closed);
      throw error;
    }
  }

  #connect(closed: AbortSignal): Promise<void> {
    const socket = newSocket(this.#options);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let failure: Error | undefined;
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('open', () => {
      this.#socket = socket;
      this.#generation += 1;
      resolve();
      for (const listener of this.#listeners) listener.opened?.();
    });
    socket.on('message', (data) => this.#deliver(data));
    socket.on('close', () => {
      const wasOpen = this.#socket === socket;
      reject(new AppError('unavailable', 'cannot open the event stream of the engine', { cause: failure }));
      if (wasOpen) this.#lost(closed);
    });
    keepAlive(socket);
    closed.addEventListener('abort', () => socket.terminate(), { once: true });
    return promise;
  }

  #lost(closed: AbortSignal): void {
    this.#socket = undefined;
    for (const listener of this.#listeners) listener.lost?.();
    if (closed.aborted) return;
    this.#options.log.warn('the event stream of the engine broke; reconnecting');
    void this.#reconnect(closed);
  }

  /** Tries until it is open; each caller of open() meanwhile waits for the attempt under way. */
  async #reconnect(closed: AbortSignal): Promise<void> {
    for (let wait = FIRST_RETRY_MS; !closed.aborted; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      try {
        await sleep(wait, closed);
        this.#opening = this.#connect(closed);
        await this.#opening;
        return;
      } catch (error) {
        if (!closed.aborted) this.#options.log.debug('event stream: next attempt failed', { error: asError(error) });
      }
    }
  }

  #deliver(data: RawData): void {
    let event: ApiEvent;
    try {
      event = JSON.parse(textOf(data)) as ApiEvent;
    } catch (error) {
      this.#options.log.warn('the engine sent an event that is not JSON', { error: asError(error) });
      return;
    }
    for (const listener of this.#listeners) listener.event?.(event);
  }
}

function textOf(data: RawData): string {
  if (Array.isArray(data)) return Buffer.concat(data).toString('utf8');
  return Buffer.from(data as Buffer).toString('utf8');
}

function newSocket({ endpoint, project, types }: EventStreamOptions): WebSocket {
  const query = new URLSearchParams({ type: types.join(',') });
  if (project !== undefined) query.set('project', project);
  return openWebSocket(endpoint, `/1.0/events?${query.toString()}`);
}

/** A peer that vanished without a word is found by an unanswered ping. */
function keepAlive(socket: WebSocket): void {
  let answered = true;
  const timer = setInterval(() => {
    if (!answered) return socket.terminate();
    answered = false;
    socket.ping();
  }, PING_EVERY_MS);
  timer.unref();
  socket.on('open', () => {
    answered = true;
  });
  socket.on('pong', () => {
    answered = true;
  });
  socket.on('close', () => clearInterval(timer));
}
