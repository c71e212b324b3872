// Serves the queues of one topic: acknowledge, dispatch, reply (sections 1.3, 1.5 to 1.9).
import { asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { aborted, sleep } from '#src/lib/wait.ts';
import { Consumer, type Delivery } from './consumer.ts';
import { baseEndpoint, findHandler, pingEndpoint } from './dispatcher.ts';
import { decode, type Payload } from './envelope.ts';
import { DispatchError, encodeFailure, plainFailure } from './failure.ts';
import { Limiter } from './limiter.ts';
import { RecentIds } from './recent-ids.ts';
import { parseRequest, type IncomingRequest } from './request.ts';
import { Responder, type Outcome } from './responder.ts';
import type { FailureSerializer, RpcEndpoint, RpcServerOptions } from './types.ts';
import type { Wire } from './wire.ts';

const DUPLICATES_REMEMBERED = 16;
const DEFAULT_CONCURRENCY = 64;
/** For handlers to end after their signal aborted. */
const AFTER_ABORT_MS = 1000;

export class RpcServer implements Service {
  readonly name: string;
  readonly #log: Log;
  readonly #endpoints: readonly RpcEndpoint[];
  readonly #serialize: FailureSerializer;
  readonly #consumer: Consumer;
  readonly #responder: Responder;
  readonly #work: Limiter;
  readonly #seen = new RecentIds(DUPLICATES_REMEMBERED);
  readonly #graceOver = new AbortController();

  /** `fanoutSuffix` makes the fanout queue ours. */
  constructor(wire: Wire, options: RpcServerOptions, fanoutSuffix: string) {
    const { topic, server, endpoints, service = topic, pingEnabled = false } = options;
    this.name = `rpc server ${topic}.${server}`;
    this.#log = wire.log;
    this.#endpoints = [...endpoints, baseEndpoint(service), ...(pingEnabled ? [pingEndpoint] : [])];
    this.#serialize = options.serializeFailure ?? plainFailure;
    this.#responder = new Responder(wire);
    this.#work = new Limiter(options.concurrency ?? DEFAULT_CONCURRENCY);
    this.#consumer = new Consumer({
      ...wire.context,
      purpose: this.name,
      queues: [
        wire.topology.topicQueue(wire.exchange, topic),
        wire.topology.topicQueue(wire.exchange, `${topic}.${server}`),
        wire.topology.fanoutQueue(topic, fanoutSuffix),
      ],
      onDelivery: (delivery) => this.#receive(delivery),
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#consumer.start(signal);
  }

  async stop(signal: AbortSignal): Promise<void> {
    await Promise.race([this.#consumer.cancel(), aborted(signal)]);
    await Promise.race([this.#work.idle(), aborted(signal)]);
    if (this.#work.size > 0) {
      this.#log.warn('ending requests that outlast the grace time', { server: this.name, requests: this.#work.size });
      this.#graceOver.abort(new Error(`${this.name} stops`));
      await Promise.race([this.#work.idle(), sleep(AFTER_ABORT_MS)]);
    }
    await this.#consumer.close(signal);
  }

  /** Acknowledged before it runs: a request is executed at most once (section 1.8). */
  #receive(delivery: Delivery): void {
    let payload: Payload;
    try {
      payload = decode(delivery.message);
    } catch (error) {
      this.#log.warn('malformed message rejected', { server: this.name, error });
      delivery.reject();
      return;
    }
    if (!delivery.ack()) {
      this.#log.warn('request discarded: it cannot be acknowledged and will come again', { server: this.name });
      return;
    }
    const request = parseRequest(payload);
    if (request.uniqueId !== undefined && !this.#seen.add(request.uniqueId)) {
      this.#log.warn('duplicate request ignored', { server: this.name, ...describe(request) });
      return;
    }
    this.#work.run(() => this.#serve(request));
  }

  async #serve(request: IncomingRequest): Promise<void> {
    this.#log.debug('request', { server: this.name, ...describe(request) });
    const outcome = await this.#execute(request);
    if (!request.call) return;
    try {
      await this.#responder.reply(request.call, outcome, this.#graceOver.signal);
    } catch (error) {
      if (outcome.failure === null && !this.#graceOver.signal.aborted) await this.#replyUnsendable(request, error);
      else this.#log.error('cannot send a reply', { server: this.name, ...describe(request), error });
    }
  }

  /** The result is no JSON (a cycle, a bigint) or the broker refuses it: the caller must hear of it, not time out. */
  async #replyUnsendable({ call, ...request }: IncomingRequest, error: unknown): Promise<void> {
    this.#log.error('cannot send a result', { server: this.name, ...describe({ ...request, call }), error });
    if (!call) return;
    const outcome = { result: null, failure: this.#failureText(error) };
    await this.#responder.reply(call, outcome, this.#graceOver.signal).catch((second: unknown) => {
      this.#log.error('cannot send a reply', { server: this.name, msgId: call.msgId, error: second });
    });
  }

  async #execute(request: IncomingRequest): Promise<Outcome> {
    const { call, context, args } = request;
    const signal = this.#graceOver.signal;
    using _watch = call ? this.#responder.watch(call, call.monitor, signal) : undefined;
    try {
      const handler = findHandler(this.#endpoints, request);
      return { result: await handler(context, args, signal), failure: null };
    } catch (error) {
      this.#log.warn('request failed', { server: this.name, ...describe(request), error: asError(error) });
      return { result: null, failure: this.#failureText(error) };
    }
  }

  #failureText(error: unknown): string {
    if (error instanceof DispatchError) return encodeFailure(error.failure);
    try {
      return encodeFailure(this.#serialize(error));
    } catch (second) {
      this.#log.error('cannot serialise a failure', { server: this.name, error: second });
      return encodeFailure(plainFailure(error));
    }
  }
}

/** For the log: never arguments, and of the context the request id alone. */
function describe({ method, version, context, call }: IncomingRequest): Record<string, unknown> {
  return { method, version, requestId: context['request_id'], msgId: call?.msgId };
}
