// The client's side of calls: one reply queue per process, and who waits for which answer (section 1.6).
import type { RemoteError } from './errors.ts';
import { Consumer, type Delivery } from './consumer.ts';
import { decode, type Payload } from './envelope.ts';
import { decodeFailure } from './failure.ts';
import type { BrokerContext } from './link.ts';
import type { QueueSpec } from './topology.ts';

export interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
  /** The server is still at work (section 1.7). */
  onSignOfLife(): void;
}

interface Entry extends Waiting {
  result: unknown;
  failure?: RemoteError;
}

export class ReplyWaiter {
  readonly #makeQueue: () => QueueSpec;
  #opened: { readonly name: string; readonly consumer: Consumer } | undefined;
  readonly #context: BrokerContext;
  readonly #waiting = new Map<string, Entry>();
  #closed: Error | undefined;

  /** `makeQueue` is asked once, at the first call. */
  constructor(context: BrokerContext, makeQueue: () => QueueSpec) {
    this.#context = context;
    this.#makeQueue = makeQueue;
  }

  /** The name for `_reply_q`, once the queue is there and consumed: an answer must not come before. */
  async open(signal: AbortSignal): Promise<string> {
    if (this.#closed) throw this.#closed;
    this.#opened ??= this.#make();
    await this.#opened.consumer.start(signal);
    return this.#opened.name;
  }

  #make(): { name: string; consumer: Consumer } {
    const queue = this.#makeQueue();
    const onDelivery = (delivery: Delivery): void => this.#receive(delivery);
    const consumer = new Consumer({ ...this.#context, purpose: 'replies', queues: [queue], onDelivery });
    return { name: queue.name, consumer };
  }

  add(msgId: string, waiting: Waiting): void {
    this.#waiting.set(msgId, { ...waiting, result: null });
  }

  remove(msgId: string): void {
    this.#waiting.delete(msgId);
  }

  async close(error: Error): Promise<void> {
    this.#closed = error;
    for (const entry of this.#waiting.values()) entry.reject(error);
    this.#waiting.clear();
    await this.#opened?.consumer.close();
  }

  #receive(delivery: Delivery): void {
    let payload: Payload;
    try {
      payload = decode(delivery.message);
    } catch (error) {
      this.#context.log.warn('malformed reply rejected', { error });
      delivery.reject();
      return;
    }
    delivery.ack();
    const msgId = payload['_msg_id'];
    const entry = typeof msgId === 'string' ? this.#waiting.get(msgId) : undefined;
    // too late, or one of the endless heartbeats that a Python server sends after NoSuchMethod
    if (!entry) this.#context.log.debug('reply that nobody waits for', { msgId });
    else this.#take(entry, payload);
  }

  /** Payload and `ending` may come in two messages. */
  #take(entry: Entry, { result, failure, ending }: Payload): void {
    if (failure) entry.failure = decodeFailure(failure);
    else if (result !== undefined && result !== null) entry.result = result;
    else if (ending !== true) entry.onSignOfLife();
    if (ending !== true) return;
    if (entry.failure) entry.reject(entry.failure);
    else entry.resolve(entry.result);
  }
}
