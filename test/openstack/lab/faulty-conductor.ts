// Between a compute and the conductor: what the compute publishes to an exchange of its own is passed on to Nova's, or kept as in the
// queue of a conductor that is away, answered with a failure, or passed on late. Everybody else talks to the conductor as ever.
import amqplib, { type Channel, type ChannelModel, type ConsumeMessage } from 'amqplib';
import type { Fault } from './fault-proxy.ts';
import { PORTS } from './settings.ts';

/** `[DEFAULT] control_exchange` of the compute. Its queue stays bound to Nova's as well, where messages to it come from. */
export const FAULTY_EXCHANGE = 'nova-faulty';
const QUEUE = 'conductor-faulty';
const NOVA = { exchange: 'nova', topic: 'conductor' } as const;
const FAILURE = { class: 'DBConnectionError', module: 'oslo_db.exception', message: 'injected' };

const JSON_TEXT = { contentType: 'application/json', contentEncoding: 'utf-8' } as const;

interface Request {
  readonly _msg_id?: string;
  readonly _reply_q?: string;
}

export class FaultyConductor implements AsyncDisposable {
  readonly #connection: ChannelModel;
  readonly #channel: Channel;
  #consumer: string | undefined;
  #fault: Fault = 'none';
  /** Messages that came since the fault began. */
  requests = 0;
  slowMs = 30_000;

  private constructor(connection: ChannelModel, channel: Channel) {
    this.#connection = connection;
    this.#channel = channel;
  }

  static async start(): Promise<FaultyConductor> {
    const connection = await amqplib.connect(`amqp://guest:guest@127.0.0.1:${PORTS.rabbitmq}`);
    const channel = await connection.createChannel();
    await channel.assertExchange(FAULTY_EXCHANGE, 'topic', { durable: false, autoDelete: false });
    await channel.assertQueue(QUEUE, { durable: false, exclusive: true });
    await channel.bindQueue(QUEUE, FAULTY_EXCHANGE, NOVA.topic);
    const conductor = new FaultyConductor(connection, channel);
    await conductor.set('none');
    return conductor;
  }

  /** While it is down messages wait in the broker, and calls expire there. */
  async set(fault: Fault): Promise<void> {
    this.#fault = fault;
    this.requests = 0;
    if (fault === 'is down') {
      if (this.#consumer !== undefined) await this.#channel.cancel(this.#consumer);
      this.#consumer = undefined;
    } else {
      this.#consumer ??= (await this.#channel.consume(QUEUE, (message) => this.#take(message))).consumerTag;
    }
  }

  #take(message: ConsumeMessage | null): void {
    if (message === null) return;
    this.#channel.ack(message);
    this.requests += 1;
    if (this.#fault === 'answers 500') this.#refuse(message);
    else if (this.#fault === 'is slow') setTimeout(() => this.#passOn(message), this.slowMs);
    else this.#passOn(message);
  }

  #passOn({ content, properties }: ConsumeMessage): void {
    const expiration: unknown = properties.expiration;
    const limit = typeof expiration === 'string' ? { expiration } : {};
    this.#channel.publish(NOVA.exchange, NOVA.topic, content, { ...JSON_TEXT, ...limit });
  }

  #refuse({ content }: ConsumeMessage): void {
    const envelope = JSON.parse(content.toString()) as { readonly 'oslo.message': string };
    const { _msg_id: id, _reply_q: queue } = JSON.parse(envelope['oslo.message']) as Request;
    if (id === undefined || queue === undefined) return;
    const failure = JSON.stringify({ ...FAILURE, tb: [], args: [], kwargs: {} });
    const reply = { result: null, failure, ending: true, _msg_id: id, _unique_id: id };
    const body = { 'oslo.version': '2.0', 'oslo.message': JSON.stringify(reply) };
    this.#channel.sendToQueue(queue, Buffer.from(JSON.stringify(body)), JSON_TEXT);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel.deleteExchange(FAULTY_EXCHANGE);
    await this.#connection.close();
  }
}
