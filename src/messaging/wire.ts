// What clients, servers and notifiers of one transport share: where messages go and how they are written.
import type { Log } from '#src/lib/log.ts';
import { encode, type Payload } from './envelope.ts';
import type { BrokerContext, ReadyOptions } from './link.ts';
import type { Publisher } from './publisher.ts';
import type { Topology } from './topology.ts';
import type { RpcTarget } from './types.ts';

export interface Wire {
  readonly context: BrokerContext;
  readonly publisher: Publisher;
  readonly topology: Topology;
  /** control_exchange. */
  readonly exchange: string;
  readonly log: Log;
}

export interface SendOptions extends ReadyOptions {
  readonly expirationMs?: number;
}

export async function sendRequest(wire: Wire, target: RpcTarget, payload: Payload, options: SendOptions = {}) {
  const { topic, server, fanout = false } = target;
  const { expirationMs, ...ready } = options;
  const message = {
    exchange: fanout ? wire.topology.fanoutExchange(topic) : wire.topology.topicExchange(wire.exchange),
    routingKey: routingKey(topic, server, fanout),
    body: encode(payload, { compression: wire.context.rabbit.kombu_compression }),
    ...(expirationMs === undefined ? {} : { expirationMs }),
  };
  await wire.publisher.publish(message, ready);
}

function routingKey(topic: string, server: string | undefined, fanout: boolean): string {
  if (fanout) return '';
  return server === undefined ? topic : `${topic}.${server}`;
}

/** To the default exchange, mandatory: rejects with UndeliverableError when the caller's queue is gone. */
export async function sendReply(wire: Wire, replyQueue: string, payload: Payload, signal?: AbortSignal): Promise<void> {
  const body = encode(payload, { compression: wire.context.rabbit.kombu_compression });
  await wire.publisher.publish({ routingKey: replyQueue, body, mandatory: true }, { signal });
}
