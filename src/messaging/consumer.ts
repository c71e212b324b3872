// Consumes queues over one connection of their own; after each reconnect everything is declared and consumed again.
import { aborted } from '#src/lib/wait.ts';
import type { AmqpChannel, AmqpConnection, ConsumeMessage } from './amqp.ts';
import { declareQueue, deleteQueue, pauseAfter } from './declare.ts';
import { BrokerLink, type BrokerContext } from './link.ts';
import type { QueueSpec } from './topology.ts';

export interface Delivery {
  readonly message: ConsumeMessage;
  /** False when the channel is gone: the broker will deliver the message again, so it must not be worked on now. */
  ack(): boolean;
  /** Throws the message away. */
  reject(): void;
}

export interface ConsumerOptions extends BrokerContext {
  readonly purpose: string;
  readonly queues: readonly QueueSpec[];
  /** Must not throw. */
  readonly onDelivery: (delivery: Delivery) => void;
}

interface ConsumeSession {
  readonly connection: AmqpConnection;
  readonly channel: AmqpChannel;
  readonly tags: readonly string[];
}

export class Consumer {
  readonly #options: ConsumerOptions;
  readonly #link: BrokerLink<ConsumeSession>;
  /** Where to read a stream on: by queue. */
  readonly #offsets = new Map<string, number>();
  #isStopped = false;

  constructor(options: ConsumerOptions) {
    this.#options = options;
    this.#link = new BrokerLink({ ...options, setUp: (connection, previous) => this.#setUp(connection, previous) });
  }

  /** Resolves when all queues are consumed. */
  async start(signal?: AbortSignal): Promise<void> {
    await this.#link.ready({ signal });
  }

  /** Consumes nothing any more; what was delivered can still be acknowledged. */
  async cancel(): Promise<void> {
    this.#isStopped = true;
    const session = this.#link.session;
    if (!session) return;
    // a connection that breaks now has cancelled them as well
    await Promise.allSettled(session.tags.map((tag) => session.channel.cancel(tag)));
  }

  /** Deletes the queues that are ours alone, unless that takes until `signal` aborts, and hangs up. */
  async close(signal?: AbortSignal): Promise<void> {
    const deleted = this.#deleteQueues();
    await (signal ? Promise.race([deleted, aborted(signal)]) : deleted);
    await this.#link.close();
  }

  async #deleteQueues(): Promise<void> {
    const session = this.#link.session;
    const { queues, log } = this.#options;
    for (const { name, deleteOnStop } of queues) {
      if (!session || !deleteOnStop) continue;
      await deleteQueue(session.connection, name).catch((error: unknown) => {
        log.warn('cannot delete the queue; the broker will when it expires', { queue: name, error });
      });
    }
  }

  async #setUp(connection: AmqpConnection, previous: Error | undefined): Promise<ConsumeSession> {
    const { queues, log, rabbit } = this.#options;
    await pauseAfter(previous);
    if (!this.#isStopped) await Promise.all(queues.map((queue) => declareQueue(connection, queue, { log, previous })));
    const channel = await connection.createChannel();
    channel.on('error', (error) => this.#link.fail(error));
    channel.on('close', () => this.#link.fail(new Error('the broker closed the channel')));
    if (rabbit.rabbit_qos_prefetch_count > 0) await channel.prefetch(rabbit.rabbit_qos_prefetch_count);
    const tags = this.#isStopped ? [] : await Promise.all(queues.map((queue) => this.#consume(channel, queue)));
    return { connection, channel, tags };
  }

  async #consume(channel: AmqpChannel, queue: QueueSpec): Promise<string> {
    const onMessage = (message: ConsumeMessage | null): void => {
      if (message === null) this.#link.fail(new Error(`the broker cancelled the consumer of '${queue.name}'`));
      else this.#deliver(channel, queue, message);
    };
    const { consumerTag } = await channel.consume(queue.name, onMessage, { arguments: this.#argumentsFor(queue) });
    return consumerTag;
  }

  #argumentsFor({ name, isStream, consumerArguments }: QueueSpec): Record<string, unknown> {
    if (!isStream) return consumerArguments;
    const seen = this.#offsets.get(name);
    return { ...consumerArguments, 'x-stream-offset': seen === undefined ? 'last' : seen + 1 };
  }

  #deliver(channel: AmqpChannel, queue: QueueSpec, message: ConsumeMessage): void {
    const offset: unknown = message.properties.headers?.['x-stream-offset'];
    if (queue.isStream && typeof offset === 'number') this.#offsets.set(queue.name, offset);
    this.#options.onDelivery({
      message,
      ack: () => attempt(() => channel.ack(message)),
      reject: () => void attempt(() => channel.reject(message, false)),
    });
  }
}

/** amqplib throws on a channel that is closed or closing. */
function attempt(action: () => void): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}
