// RabbitMQ in memory, behind the interface that src/messaging has of amqplib: exchanges, queues, confirms, returns, refusals.
import { EventEmitter } from 'node:events';
import type { AmqpChannel, AmqpConfirmChannel, AmqpConnection, ConsumeMessage, Dial } from '#src/messaging/amqp.ts';
import type { BrokerAddress } from '#src/messaging/transport-url.ts';

export interface Published {
  readonly exchange: string;
  readonly routingKey: string;
  readonly content: Buffer;
  readonly options: Record<string, unknown>;
}

interface Exchange {
  readonly type: string;
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly bindings: { readonly queue: string; readonly key: string }[];
}

interface Queue {
  readonly durable: boolean;
  readonly autoDelete: boolean;
  readonly arguments: Record<string, unknown>;
  readonly messages: Published[];
  consumer?: { readonly channel: FakeChannel; readonly tag: string; readonly arguments: Record<string, unknown> };
}

/** An error with the reply code that amqplib puts on it. */
export function amqpError(code: number, message: string): Error {
  return Object.assign(new Error(message), { code });
}

export class FakeBroker {
  readonly exchanges = new Map<string, Exchange>();
  readonly queues = new Map<string, Queue>();
  readonly published: Published[] = [];
  readonly dials: BrokerAddress[] = [];
  readonly connections = new Set<FakeConnection>();
  /** What was asked of the broker, such as 'declare queue compute'. */
  readonly calls: string[] = [];
  /** Called before each dial; what it throws refuses the connection. */
  onDial: (broker: BrokerAddress) => void = () => {};
  /** Called before each declaration; what it throws closes the channel (541: the connection). */
  onDeclare: (what: string) => void = () => {};
  /** Called for each message; what it throws closes the channel that it came on. */
  onPublish: (message: Published) => void = () => {};
  /** false: confirms are held back. */
  confirms = true;

  readonly dial: Dial = (broker) => {
    this.dials.push(broker);
    try {
      this.onDial(broker);
    } catch (error) {
      return Promise.reject(error);
    }
    const connection = new FakeConnection(this);
    this.connections.add(connection);
    return Promise.resolve(connection as unknown as AmqpConnection);
  };

  /** Ends every connection as a broker does that goes away. */
  drop(error: Error = new Error('connection lost')): void {
    for (const connection of this.connections) connection.end(error);
  }

  /** The payloads sent to a routing key, unwrapped. */
  payloads(routingKey: string): Record<string, unknown>[] {
    return this.published
      .filter((message) => message.routingKey === routingKey)
      .map((message) => unwrap(message.content));
  }

  /** Puts a message into the broker, as somebody else would. */
  send(exchange: string, routingKey: string, content: Buffer | object, options: Record<string, unknown> = {}): boolean {
    const body = Buffer.isBuffer(content) ? content : wrap(content);
    return this.route({
      exchange,
      routingKey,
      content: body,
      options: { contentType: 'application/json', contentEncoding: 'utf-8', headers: {}, ...options },
    });
  }

  route(message: Published): boolean {
    const names =
      message.exchange === ''
        ? [message.routingKey]
        : (this.exchanges.get(message.exchange)?.bindings ?? [])
            .filter(({ key }) => this.exchanges.get(message.exchange)?.type === 'fanout' || key === message.routingKey)
            .map(({ queue }) => queue);
    const queues = names.map((name) => this.queues.get(name)).filter((queue) => queue !== undefined);
    for (const queue of queues) {
      queue.messages.push(message);
      this.deliver(queue);
    }
    return queues.length > 0;
  }

  deliver(queue: Queue): void {
    const consumer = queue.consumer;
    if (!consumer) return;
    for (const message of queue.messages.splice(0)) consumer.channel.receive(consumer.tag, message);
  }

  /** Takes a queue away under its consumer, who is told. */
  loseQueue(name: string): void {
    const queue = this.queues.get(name);
    this.queues.delete(name);
    queue?.consumer?.channel.receive(queue.consumer.tag, null);
  }
}

export function wrap(payload: object): Buffer {
  return Buffer.from(JSON.stringify({ 'oslo.version': '2.0', 'oslo.message': JSON.stringify(payload) }));
}

export function unwrap(content: Buffer): Record<string, unknown> {
  const outer = JSON.parse(content.toString()) as Record<string, unknown>;
  const inner = outer['oslo.message'];
  return typeof inner === 'string' ? (JSON.parse(inner) as Record<string, unknown>) : outer;
}

type PublishArguments = [
  exchange: string,
  routingKey: string,
  content: Buffer,
  options: Record<string, unknown>,
  confirm: (error: Error | null) => void,
];

class FakeConnection extends EventEmitter {
  readonly broker: FakeBroker;
  readonly channels = new Set<FakeChannel>();
  bytesReceived = 0;
  isOpen = true;

  constructor(broker: FakeBroker) {
    super();
    this.broker = broker;
  }

  createChannel(): Promise<AmqpChannel> {
    if (!this.isOpen) return Promise.reject(new Error('connection closed'));
    const channel = new FakeChannel(this);
    this.channels.add(channel);
    return Promise.resolve(channel as unknown as AmqpChannel);
  }

  async createConfirmChannel(): Promise<AmqpConfirmChannel> {
    return (await this.createChannel()) as AmqpConfirmChannel;
  }

  end(error?: Error): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.broker.connections.delete(this);
    for (const channel of this.channels) channel.end();
    this.emit('close', error);
  }

  close(): Promise<void> {
    this.end();
    return Promise.resolve();
  }

  destroy(): void {
    this.end();
  }
}

class FakeChannel extends EventEmitter {
  readonly connection: FakeConnection;
  readonly consumers = new Map<string, (message: ConsumeMessage | null) => void>();
  readonly #unconfirmed = new Set<(error: Error | null) => void>();
  readonly #unacknowledged = new Map<number, Published>();
  #isOpen = true;
  #deliveryTag = 0;

  constructor(connection: FakeConnection) {
    super();
    this.connection = connection;
  }

  get #broker(): FakeBroker {
    return this.connection.broker;
  }

  async assertExchange(name: string, type: string, options: { durable: boolean; autoDelete: boolean }): Promise<void> {
    this.#declare(`exchange ${name}${options.durable ? ' durable' : ''}`);
    const existing = this.#broker.exchanges.get(name);
    if (existing && existing.durable !== options.durable) {
      throw this.#refuse(406, `PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '${name}'`);
    }
    if (existing && existing.autoDelete !== options.autoDelete) {
      throw this.#refuse(406, `PRECONDITION_FAILED - inequivalent arg 'auto_delete' for exchange '${name}'`);
    }
    if (!existing) this.#broker.exchanges.set(name, { type, ...options, bindings: [] });
    await Promise.resolve();
  }

  async assertQueue(
    name: string,
    options: { durable: boolean; autoDelete: boolean; arguments: Record<string, unknown> },
  ): Promise<void> {
    this.#declare(`queue ${name}`);
    const existing = this.#broker.queues.get(name);
    if (existing && existing.durable !== options.durable) {
      throw this.#refuse(406, `PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${name}'`);
    }
    if (!existing) this.#broker.queues.set(name, { ...options, messages: [] });
    await Promise.resolve();
  }

  async bindQueue(queue: string, exchange: string, key: string): Promise<void> {
    const bindings = this.#broker.exchanges.get(exchange)?.bindings;
    if (!bindings) throw this.#refuse(404, `NOT_FOUND - no exchange '${exchange}'`);
    if (!bindings.some((binding) => binding.queue === queue && binding.key === key)) bindings.push({ queue, key });
    await Promise.resolve();
  }

  async deleteQueue(name: string): Promise<void> {
    this.#check();
    this.#broker.calls.push(`delete queue ${name}`);
    this.#broker.queues.delete(name);
    for (const [exchange, { bindings, autoDelete }] of this.#broker.exchanges) {
      const before = bindings.length;
      bindings.splice(0, before, ...bindings.filter(({ queue }) => queue !== name));
      if (autoDelete && before > 0 && bindings.length === 0) this.#broker.exchanges.delete(exchange);
    }
    await Promise.resolve();
  }

  async consume(
    name: string,
    onMessage: (message: ConsumeMessage | null) => void,
    options: { arguments: Record<string, unknown> },
  ): Promise<{ consumerTag: string }> {
    this.#check();
    const queue = this.#broker.queues.get(name);
    if (!queue) throw this.#refuse(404, `NOT_FOUND - no queue '${name}'`);
    const tag = `tag-${name}`;
    this.#broker.calls.push(`consume ${name}`);
    this.consumers.set(tag, onMessage);
    queue.consumer = { channel: this, tag, arguments: options.arguments };
    queueMicrotask(() => this.#broker.deliver(queue));
    return await Promise.resolve({ consumerTag: tag });
  }

  async cancel(tag: string): Promise<void> {
    this.#check();
    this.#broker.calls.push(`cancel ${tag}`);
    this.#forget(tag);
    await Promise.resolve();
  }

  async prefetch(count: number): Promise<void> {
    this.#broker.calls.push(`prefetch ${count}`);
    await Promise.resolve();
  }

  ack(message: ConsumeMessage): void {
    this.#check();
    this.#unacknowledged.delete(message.fields.deliveryTag);
  }

  reject(message: ConsumeMessage, requeue: boolean): void {
    this.#check();
    this.#broker.calls.push(`reject ${message.fields.routingKey} requeue=${requeue}`);
    this.#unacknowledged.delete(message.fields.deliveryTag);
  }

  /** The arguments are amqplib's. */
  publish(...[exchange, routingKey, content, options, confirm]: PublishArguments): boolean {
    this.#check();
    const message = { exchange, routingKey, content, options };
    this.#broker.published.push(message);
    this.#unconfirmed.add(confirm);
    queueMicrotask(() => this.#accept(message, confirm));
    return true;
  }

  receive(tag: string, message: Published | null): void {
    if (message === null) {
      this.consumers.get(tag)?.(null);
      this.consumers.delete(tag);
      return;
    }
    this.#deliveryTag += 1;
    this.#unacknowledged.set(this.#deliveryTag, message);
    this.consumers.get(tag)?.({
      content: message.content,
      fields: {
        consumerTag: tag,
        deliveryTag: this.#deliveryTag,
        redelivered: false,
        exchange: message.exchange,
        routingKey: message.routingKey,
      },
      properties: message.options,
    } as unknown as ConsumeMessage);
  }

  close(): Promise<void> {
    this.end();
    return Promise.resolve();
  }

  /** Unacknowledged messages go back to their queues, as in a real broker. */
  end(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const tag of this.consumers.keys()) this.#forget(tag);
    for (const message of this.#unacknowledged.values()) this.#broker.route(message);
    for (const confirm of this.#unconfirmed) confirm(new Error('channel closed'));
    this.#unconfirmed.clear();
    this.emit('close');
  }

  #accept(message: Published, confirm: (error: Error | null) => void): void {
    if (!this.#isOpen) return;
    try {
      this.#broker.onPublish(message);
    } catch (error) {
      this.#refuse((error as { code?: number }).code ?? 0, (error as Error).message);
      return;
    }
    if (message.exchange !== '' && !this.#broker.exchanges.has(message.exchange)) {
      this.#refuse(404, `NOT_FOUND - no exchange '${message.exchange}'`);
      return;
    }
    const isRouted = this.#broker.route(message);
    if (!isRouted && message.options['mandatory'] === true) {
      this.emit('return', { fields: { routingKey: message.routingKey }, content: message.content });
    }
    if (!this.#broker.confirms) return;
    this.#unconfirmed.delete(confirm);
    confirm(null);
  }

  #declare(what: string): void {
    this.#check();
    this.#broker.calls.push(`declare ${what}`);
    try {
      this.#broker.onDeclare(what);
    } catch (error) {
      const { code } = error as { code?: number };
      if (code === 541) this.connection.end(error as Error);
      else this.#refuse(code ?? 0, (error as Error).message);
      throw error;
    }
  }

  #refuse(code: number, message: string): Error {
    const error = amqpError(code, message);
    if (this.listenerCount('error') > 0) this.emit('error', error);
    this.end();
    return error;
  }

  #forget(tag: string): void {
    this.consumers.delete(tag);
    for (const queue of this.#broker.queues.values()) {
      if (queue.consumer?.channel === this && queue.consumer.tag === tag) delete queue.consumer;
    }
  }

  #check(): void {
    if (!this.#isOpen) throw new Error('Channel closed');
  }
}
