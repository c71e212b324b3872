// One connection to the broker that is always being kept: connect, set up, watch, and again when it is lost.
import { AppError, asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { aborted, sleep } from '#src/lib/wait.ts';
import type { AmqpConnection, Dial } from './amqp.ts';
import { BrokerList, reconnectDelayMs, retryDelayMs } from './brokers.ts';
import { Heartbeat } from './heartbeat.ts';
import type { RabbitOptions } from './options.ts';
import type { BrokerAddress } from './transport-url.ts';

export interface BrokerContext {
  readonly brokers: readonly [BrokerAddress, ...BrokerAddress[]];
  readonly rabbit: RabbitOptions;
  readonly dial: Dial;
  readonly log: Log;
}

export interface LinkOptions<Session> extends BrokerContext {
  /** For the log: 'send', 'replies', 'server compute'. */
  readonly purpose: string;
  /**
   * Makes all that lives on a fresh connection: channels, declarations, consumers. `previous` is why the last one ended.
   * An AppError is final for those who wait now (start-up fails); the link itself goes on trying.
   */
  readonly setUp: (connection: AmqpConnection, previous: Error | undefined) => Promise<Session>;
}

export interface ReadyOptions {
  readonly signal?: AbortSignal | undefined;
  /** Failed attempts to connect that the caller endures; absent or negative: all. */
  readonly maxRetries?: number | undefined;
}

interface Waiter<Session> {
  resolve(session: Session): void;
  reject(error: Error): void;
  retriesLeft: number;
}

export class BrokerLink<Session> {
  readonly #options: LinkOptions<Session>;
  readonly #brokers: BrokerList;
  readonly #closing = new AbortController();
  readonly #waiters = new Set<Waiter<Session>>();
  #session: Session | undefined;
  #connection: AmqpConnection | undefined;
  #running: Promise<void> | undefined;
  #failCurrent: (error: Error) => void = () => {};

  constructor(options: LinkOptions<Session>) {
    this.#options = options;
    this.#brokers = new BrokerList(options.brokers, options.rabbit.kombu_failover_strategy);
  }

  /** Undefined while there is no connection. */
  get session(): Session | undefined {
    return this.#session;
  }

  /** Starts keeping the connection, if that has not been done, and resolves as soon as it is usable. */
  ready({ signal, maxRetries = -1 }: ReadyOptions = {}): Promise<Session> {
    if (this.#closing.signal.aborted) return Promise.reject(this.#closedError());
    if (this.#session !== undefined) return Promise.resolve(this.#session);
    signal?.throwIfAborted();
    this.#running ??= this.#run();
    const { promise, resolve, reject } = Promise.withResolvers<Session>();
    const waiter: Waiter<Session> = { resolve, reject, retriesLeft: maxRetries < 0 ? Infinity : maxRetries };
    const onAbort = (): void => reject(asError(signal?.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#waiters.add(waiter);
    return promise.finally(() => {
      this.#waiters.delete(waiter);
      signal?.removeEventListener('abort', onAbort);
    });
  }

  /** The session is of no use any more although the connection lives: connect and set up again. */
  fail(error: Error): void {
    this.#failCurrent(error);
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(this.#closedError());
    for (const waiter of this.#waiters) waiter.reject(this.#closedError());
    const connection = this.#connection;
    if (connection) await hangUp(connection);
    await this.#running;
  }

  async #run(): Promise<void> {
    let failures = 0;
    let previous: Error | undefined;
    while (!this.#closing.signal.aborted) {
      try {
        previous = await this.#oneConnection(previous);
        failures = 0;
        await this.#pause(reconnectDelayMs(this.#options.rabbit));
      } catch (error) {
        previous = asError(error);
        failures += 1;
        await this.#afterFailure(previous, failures);
      }
    }
  }

  async #afterFailure(error: Error, failures: number): Promise<void> {
    if (this.#closing.signal.aborted) return;
    const { host, port } = this.#brokers.current;
    const delayMs = retryDelayMs(failures, this.#brokers.length, this.#options.rabbit);
    const { purpose, log } = this.#options;
    log.error('cannot connect to the message broker', {
      purpose,
      host,
      port,
      reason: error.message,
      retryInMs: delayMs,
    });
    this.#brokers.next();
    for (const waiter of this.#waiters) {
      waiter.retriesLeft -= 1;
      if (error instanceof AppError) waiter.reject(error);
      else if (waiter.retriesLeft < 0) waiter.reject(unavailable(host, port, error));
    }
    await this.#pause(delayMs);
  }

  /** Resolves with the reason when a working connection ended; rejects when there was none. */
  async #oneConnection(previous: Error | undefined): Promise<Error> {
    const { dial, setUp, purpose, rabbit, log } = this.#options;
    const { host, port } = this.#brokers.current;
    const connection = await unlessAborted(dial(this.#brokers.current), this.#closing.signal);
    this.#connection = connection;
    const ended = this.#endOf(connection);
    const heartbeat = new Heartbeat(connection, rabbit, this.#failCurrent);
    try {
      const session = await Promise.race([setUp(connection, previous), ended.then((error) => Promise.reject(error))]);
      log.info('connected to the message broker', { purpose, host, port });
      this.#session = session;
      for (const waiter of this.#waiters) waiter.resolve(session);
      const reason = await ended;
      if (!this.#closing.signal.aborted) {
        log.warn('lost the message broker', { purpose, host, port, reason: reason.message });
      }
      return reason;
    } finally {
      heartbeat.stop();
      this.#session = undefined;
      this.#connection = undefined;
      await hangUp(connection);
    }
  }

  #endOf(connection: AmqpConnection): Promise<Error> {
    const { purpose, log } = this.#options;
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.#failCurrent = resolve;
    connection.on('error', (error) => resolve(error ?? new Error('connection failed')));
    connection.on('close', (error) => resolve(error ?? new Error('connection closed')));
    connection.on('blocked', (reason) => log.error('the message broker blocks publishers', { purpose, reason }));
    connection.on('unblocked', () => log.info('the message broker accepts messages again', { purpose }));
    return promise;
  }

  async #pause(ms: number): Promise<void> {
    // closing is the only thing that ends the pause early
    await sleep(ms, this.#closing.signal).catch(() => {});
  }

  #closedError(): AppError {
    return new AppError('unavailable', `the connection to the message broker (${this.#options.purpose}) is closed`);
  }
}

/** A connection that comes too late is hung up. */
async function unlessAborted(dialing: Promise<AmqpConnection>, signal: AbortSignal): Promise<AmqpConnection> {
  const settled = new AbortController();
  const abort = aborted(AbortSignal.any([signal, settled.signal]));
  try {
    const connection = await Promise.race([dialing, abort]);
    if (connection) return connection;
    dialing.then(hangUp, () => {});
    throw asError(signal.reason);
  } finally {
    settled.abort();
  }
}

const HANG_UP_MS = 2000;

/** Closes politely; a broker that does not answer, or a connection that is already gone, must not hold us up. */
async function hangUp(connection: AmqpConnection): Promise<void> {
  const closed = connection.close().catch(() => {});
  const limit = new AbortController();
  await Promise.race([closed, sleep(HANG_UP_MS, limit.signal).catch(() => {})]);
  limit.abort();
  connection.destroy();
}

function unavailable(host: string, port: number, cause: Error): AppError {
  return new AppError('unavailable', `message broker ${host}:${port} cannot be reached`, { cause });
}
