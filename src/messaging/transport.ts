// Entry of src/messaging: one transport per broker, giving clients, servers and notifiers.
import { setFips } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { dialer, type Dial, type DialOptions } from './amqp.ts';
import type { BrokerContext } from './link.ts';
import { WireNotifier } from './notifier.ts';
import { defaultRabbitOptions, parseRabbitOptions, rabbitOptions, type RabbitOptions } from './options.ts';
import { Publisher } from './publisher.ts';
import { queueNames, type QueueNames } from './queue-names.ts';
import { ReplyWaiter } from './reply-waiter.ts';
import { WireRpcClient } from './rpc-client.ts';
import { RpcServer } from './rpc-server.ts';
import { Topology } from './topology.ts';
import { parseTransportUrl } from './transport-url.ts';
import type {
  Notifier,
  NotifierOptions,
  RpcClient,
  RpcServerOptions,
  RpcTransport,
  RpcTransportOptions,
} from './types.ts';
import type { Wire } from './wire.ts';

const DEFAULT_EXCHANGE = 'nova';
const DEFAULT_TIMEOUT_MS = 60_000;

/** Replaceable by tests: a broker in memory. */
export type MakeDial = (options: DialOptions) => Dial;

/** Connects nothing yet. Throws AppError for a transport_url or options that cannot work. */
export function createRpcTransport(options: RpcTransportOptions, makeDial: MakeDial = dialer): RpcTransport {
  return new RabbitTransport(options, makeDial);
}

class RabbitTransport implements RpcTransport {
  readonly #options: RpcTransportOptions;
  readonly #makeDial: MakeDial;
  readonly #wire: Wire;
  readonly #names: QueueNames;
  readonly #replies: ReplyWaiter;
  /** Of notifiers with a transport_url of their own. */
  readonly #others: Publisher[] = [];

  constructor(options: RpcTransportOptions, makeDial: MakeDial) {
    this.#options = options;
    this.#makeDial = makeDial;
    const context = this.#contextFor(options.transportUrl);
    this.#wire = this.#wireFor(context);
    this.#names = queueNames({ rabbit: context.rabbit, programName: options.programName });
    this.#replies = new ReplyWaiter(context, () => this.#wire.topology.replyQueue(this.#names.next()));
  }

  client({ timeoutMs }: { readonly timeoutMs?: number } = {}): RpcClient {
    const limitMs = timeoutMs ?? this.#options.responseTimeoutMs ?? DEFAULT_TIMEOUT_MS;
    return new WireRpcClient(this.#wire, this.#replies, limitMs);
  }

  server(options: RpcServerOptions): Service {
    return new RpcServer(this.#wire, options, this.#names.next());
  }

  notifier(options: NotifierOptions): Notifier {
    if (!options.transportUrl) return new WireNotifier(this.#wire, options);
    const wire = this.#wireFor(this.#contextFor(options.transportUrl));
    this.#others.push(wire.publisher);
    return new WireNotifier(wire, options);
  }

  async close(): Promise<void> {
    const closed = new AppError('unavailable', 'the RPC transport is closed');
    const publishers = [this.#wire.publisher, ...this.#others];
    await Promise.all([this.#replies.close(closed), ...publishers.map((publisher) => publisher.close())]);
  }

  #wireFor(context: BrokerContext): Wire {
    const { controlExchange = DEFAULT_EXCHANGE, log } = this.#options;
    const topology = new Topology(context.rabbit);
    return { context, publisher: new Publisher(context), topology, exchange: controlExchange, log };
  }

  #contextFor(transportUrl: string): BrokerContext {
    const { log, programName } = this.#options;
    const { brokers, virtualHost, overrides, mixedCredentials } = parseTransportUrl(transportUrl);
    if (mixedCredentials) log.warn('transport_url: some hosts have credentials and some have not');
    const rabbit = parseRabbitOptions(overrides, this.#options.rabbit ?? defaultRabbitOptions);
    applyProcessWide(rabbit, log);
    return { brokers, rabbit, log, dial: this.#makeDial({ rabbit, virtualHost, programName }) };
  }
}

function applyProcessWide(rabbit: RabbitOptions, log: Log): void {
  for (const { name, default: usual, noEffect } of rabbitOptions) {
    if (noEffect !== undefined && rabbit[name] !== usual)
      log.info('option has no effect here', { name, why: noEffect });
  }
  if (rabbit.ssl && rabbit.ssl_ca_file === '')
    log.warn('TLS to the message broker without ssl_ca_file is not verified');
  if (!rabbit.ssl || !rabbit.ssl_enforce_fips_mode) return;
  try {
    setFips(true);
  } catch (error) {
    const message = '[oslo_messaging_rabbit] ssl_enforce_fips_mode: this OpenSSL has no FIPS mode';
    throw new AppError('unsupported', message, { cause: error });
  }
}
