// Names and flags of exchanges and queues, from the options: the table of section 1.3 as functions.
import type { RabbitOptions } from './options.ts';

export interface ExchangeSpec {
  readonly name: string;
  readonly type: 'topic' | 'fanout';
  readonly durable: boolean;
  readonly autoDelete: boolean;
}

export interface QueueSpec {
  readonly name: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly arguments: Readonly<Record<string, string | number>>;
  /** Absent: reached through the default exchange. */
  readonly binding?: { readonly exchange: ExchangeSpec; readonly routingKey: string };
  readonly consumerArguments: Readonly<Record<string, boolean>>;
  /** A stream is shared by all its readers and is read from an offset. */
  readonly isStream: boolean;
  /** Ours alone and under a name that nobody will use again. */
  readonly deleteOnStop: boolean;
}

export class Topology {
  readonly #options: RabbitOptions;

  constructor(options: RabbitOptions) {
    this.#options = options;
  }

  topicExchange(name: string): ExchangeSpec {
    return { name, type: 'topic', durable: this.#durable, autoDelete: this.#options.amqp_auto_delete };
  }

  fanoutExchange(topic: string): ExchangeSpec {
    return { name: `${topic}_fanout`, type: 'fanout', durable: this.#transientDurable, autoDelete: true };
  }

  /** Shared topic, `<topic>.<host>` and notification queues. */
  topicQueue(exchange: string, name: string): QueueSpec {
    return {
      name,
      durable: this.#durable,
      autoDelete: this.#options.amqp_auto_delete,
      arguments: this.#arguments(this.#options.rabbit_quorum_queue),
      binding: { exchange: this.topicExchange(exchange), routingKey: name },
      consumerArguments: this.#consumerArguments,
      isStream: false,
      deleteOnStop: false,
    };
  }

  fanoutQueue(topic: string, suffix: string): QueueSpec {
    const isStream = this.#options.rabbit_stream_fanout;
    return {
      name: isStream ? `${topic}_fanout` : `${topic}_fanout_${suffix}`,
      durable: this.#transientDurable,
      autoDelete: false,
      arguments: isStream ? this.#streamArguments : this.#transientArguments,
      binding: { exchange: this.fanoutExchange(topic), routingKey: topic },
      consumerArguments: this.#consumerArguments,
      isStream,
      deleteOnStop: !isStream && !this.#options.use_queue_manager,
    };
  }

  replyQueue(suffix: string): QueueSpec {
    return {
      name: `reply_${suffix}`,
      durable: this.#options.rabbit_transient_quorum_queue,
      autoDelete: false,
      arguments: this.#transientArguments,
      consumerArguments: this.#consumerArguments,
      isStream: false,
      // a late reply to a dead queue makes its sender wait 60 s: x-expires removes it, as with oslo
      deleteOnStop: false,
    };
  }

  get #durable(): boolean {
    return this.#options.amqp_durable_queues || this.#options.rabbit_quorum_queue;
  }

  get #transientDurable(): boolean {
    return this.#options.rabbit_transient_quorum_queue || this.#options.rabbit_stream_fanout;
  }

  get #consumerArguments(): Readonly<Record<string, boolean>> {
    return this.#options.enable_cancel_on_failover ? { 'x-cancel-on-ha-failover': true } : {};
  }

  #arguments(quorum: boolean): Record<string, string | number> {
    const options = this.#options;
    const limits = {
      'x-delivery-limit': options.rabbit_quorum_delivery_limit,
      'x-max-in-memory-length': options.rabbit_quorum_max_memory_length,
      'x-max-in-memory-bytes': options.rabbit_quorum_max_memory_bytes,
    };
    return {
      ...(options.rabbit_ha_queues ? { 'x-ha-policy': 'all' } : {}),
      ...(quorum ? { 'x-queue-type': 'quorum', ...positive(limits) } : {}),
    };
  }

  get #transientArguments(): Record<string, string | number> {
    const expires = { 'x-expires': this.#options.rabbit_transient_queues_ttl * 1000 };
    return { ...this.#arguments(this.#options.rabbit_transient_quorum_queue), ...positive(expires) };
  }

  get #streamArguments(): Record<string, string | number> {
    const ttl = this.#options.rabbit_transient_queues_ttl;
    return { 'x-queue-type': 'stream', ...(ttl > 0 ? { 'x-max-age': `${ttl}s` } : {}) };
  }
}

function positive(values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value > 0));
}
