// Sends: one connection, confirms awaited side by side, sent again on the next connection when one was lost.
import { AppError, asError, messageOf } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import { replyCode, type AmqpConfirmChannel, type AmqpConnection } from './amqp.ts';
import { declareExchange, declareQueue, pauseAfter } from './declare.ts';
import type { WireBody } from './envelope.ts';
import { UndeliverableError } from './errors.ts';
import { BrokerLink, type BrokerContext, type ReadyOptions } from './link.ts';
import type { ExchangeSpec, QueueSpec } from './topology.ts';

export interface Outgoing {
  /** Absent: the default exchange. Declared once per connection. */
  readonly exchange?: ExchangeSpec;
  readonly routingKey: string;
  readonly body: WireBody;
  readonly expirationMs?: number;
  /** Rejects with UndeliverableError when no queue takes the message. */
  readonly mandatory?: boolean;
  /** Declared and bound once per connection, so that nothing is lost before anybody listens. */
  readonly queue?: QueueSpec;
}

const RETRY_MS = 250;

export class Publisher {
  readonly #link: BrokerLink<SendSession>;

  constructor(context: BrokerContext) {
    this.#link = new BrokerLink({
      ...context,
      purpose: 'send',
      setUp: async (connection, previous) => {
        await pauseAfter(previous);
        return new SendSession(connection, context.log);
      },
    });
  }

  /** Resolves when the broker has confirmed the message. */
  async publish(message: Outgoing, options: ReadyOptions = {}): Promise<void> {
    for (;;) {
      const session = await this.#link.ready(options);
      try {
        await session.send(message);
        return;
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof AppError) throw error;
        // the channel or connection is gone, or the broker refused to confirm: send again, as oslo does
        await sleep(RETRY_MS, options.signal);
      }
    }
  }

  async close(): Promise<void> {
    await this.#link.close();
  }
}

class SendSession {
  readonly #connection: AmqpConnection;
  readonly #log: BrokerContext['log'];
  readonly #declared = new Map<string, Promise<void>>();
  readonly #main: ConfirmLane;
  /** An auto-deleted fanout exchange may vanish between declaration and use; that closes this channel alone. */
  readonly #fanout: ConfirmLane;

  constructor(connection: AmqpConnection, log: BrokerContext['log']) {
    this.#connection = connection;
    this.#log = log;
    this.#main = new ConfirmLane(connection);
    this.#fanout = new ConfirmLane(connection);
  }

  async send(message: Outgoing): Promise<void> {
    const { exchange, queue } = message;
    const log = this.#log;
    if (exchange) await this.#once(exchange.name, () => declareExchange(this.#connection, exchange, log));
    if (queue) await this.#once(`queue ${queue.name}`, () => declareQueue(this.#connection, queue, { log }));
    try {
      await (exchange?.type === 'fanout' ? this.#fanout : this.#main).publish(message);
    } catch (error) {
      if (exchange) this.#declared.delete(exchange.name);
      if (!isRefusal(error)) throw error;
      await this.#sendAlone(message);
    }
  }

  /** A refused message takes the channel of all others down: only alone it is certain which one is meant. */
  async #sendAlone(message: Outgoing): Promise<void> {
    const lane = new ConfirmLane(this.#connection);
    try {
      await lane.publish(message);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      const target = message.exchange?.name ?? message.routingKey;
      const kind = replyCode(error) === ACCESS_REFUSED ? 'forbidden' : 'invalid';
      throw new AppError(kind, `publishing to '${target}': ${messageOf(error)}`, { cause: error });
    } finally {
      await lane.close();
    }
  }

  async #once(key: string, declare: () => Promise<void>): Promise<void> {
    let done = this.#declared.get(key);
    if (!done) {
      done = declare();
      this.#declared.set(key, done);
      done.catch(() => this.#declared.delete(key));
    }
    await done;
  }
}

interface Mandatory {
  readonly content: Buffer;
  isReturned: boolean;
}

/** A confirm channel, opened at the first message and again after the broker closed it. */
class ConfirmLane {
  readonly #connection: AmqpConnection;
  /** Mandatory messages under way, by routing key. */
  readonly #mandatory = new Map<string, Set<Mandatory>>();
  #channel: Promise<AmqpConfirmChannel> | undefined;
  #error: Error | undefined;

  constructor(connection: AmqpConnection) {
    this.#connection = connection;
  }

  async publish(message: Outgoing): Promise<void> {
    this.#channel ??= this.#open();
    const channel = await this.#channel;
    if (!message.mandatory) return await this.#confirmed(channel, message);
    const entry: Mandatory = { content: message.body.content, isReturned: false };
    const entries = this.#mandatory.get(message.routingKey) ?? new Set();
    this.#mandatory.set(message.routingKey, entries.add(entry));
    try {
      await this.#confirmed(channel, message);
    } finally {
      entries.delete(entry);
      if (entries.size === 0) this.#mandatory.delete(message.routingKey);
    }
    if (entry.isReturned) throw new UndeliverableError(message.routingKey);
  }

  async close(): Promise<void> {
    const channel = await this.#channel?.catch(() => undefined);
    await channel?.close().catch(() => {});
  }

  #confirmed(channel: AmqpConfirmChannel, { exchange, routingKey, body, expirationMs, mandatory }: Outgoing) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const options = {
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      deliveryMode: 2,
      priority: 0,
      headers: body.headers,
      mandatory: mandatory ?? false,
      ...(expirationMs === undefined ? {} : { expiration: String(Math.ceil(expirationMs)) }),
    };
    channel.publish(exchange?.name ?? '', routingKey, body.content, options, (error: unknown) => {
      if (error) reject(this.#error ?? asError(error));
      else resolve();
    });
    return promise;
  }

  async #open(): Promise<AmqpConfirmChannel> {
    this.#error = undefined;
    try {
      const channel = await this.#connection.createConfirmChannel();
      channel.on('error', (error) => {
        this.#error = error;
      });
      channel.on('close', () => {
        this.#channel = undefined;
      });
      // a return comes before the confirm of its message
      channel.on('return', ({ fields, content }) => {
        for (const entry of this.#mandatory.get(fields.routingKey) ?? []) {
          if (entry.content.equals(content)) entry.isReturned = true;
        }
      });
      return channel;
    } catch (error) {
      this.#channel = undefined;
      throw error;
    }
  }
}

const ACCESS_REFUSED = 403;
const PRECONDITION_FAILED = 406;

/** What the broker will not take however often it is sent. */
function isRefusal(error: unknown): boolean {
  const code = replyCode(error);
  return code === ACCESS_REFUSED || code === PRECONDITION_FAILED;
}
