// Notifications: published without envelope or with, never in the way of work (section 1.12).
import { randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import { encode, type Payload } from './envelope.ts';
import { contextKeys, hexId } from './request.ts';
import type { Notification, NotificationDriver, Notifier, NotifierOptions, WireContext } from './types.ts';
import type { Wire } from './wire.ts';

const DEFAULT_QUEUE_LIMIT = 1000;
/** Confirms awaited side by side. */
const IN_FLIGHT_LIMIT = 32;
const WARN_EVERY = 100;

/** What oslo.messaging keeps of a context: no token, no service catalog, no address. */
const SAFE_CONTEXT_KEYS: ReadonlySet<string> = new Set([
  'user_id',
  'project_id',
  'domain_id',
  'user_domain_id',
  'project_domain_id',
  'is_admin',
  'request_id',
  'roles',
  'user_name',
  'project_name',
  'domain_name',
  'user_domain_name',
  'project_domain_name',
  'service_user_id',
  'service_user_domain_id',
  'service_user_domain_name',
  'service_project_id',
  'service_project_name',
  'service_project_domain_id',
  'service_project_domain_name',
  'service_roles',
  'global_request_id',
  'system_scope',
  'user',
  'domain',
  'user_domain',
  'project_domain',
]);

interface Job {
  readonly topic: string;
  readonly priority: string;
  readonly payload: Payload;
  readonly enveloped: boolean;
}

export class WireNotifier implements Notifier {
  readonly #wire: Wire;
  readonly #options: NotifierOptions;
  readonly #drivers: readonly NotificationDriver[];
  readonly #queue: Job[] = [];
  #inFlight = 0;
  #dropped = 0;

  constructor(wire: Wire, options: NotifierOptions) {
    this.#wire = wire;
    this.#options = options;
    this.#drivers = options.drivers.map(knownDriver);
  }

  notify(notification: Notification): void {
    const { topics, publisherId } = this.#options;
    const message = notificationMessage(notification, publisherId);
    for (const driver of new Set(this.#drivers)) {
      if (driver === 'log') logNotification(this.#wire.log, message);
      if (driver !== 'messaging' && driver !== 'messagingv2') continue;
      for (const topic of topics) this.#enqueue({ topic, message, notification, enveloped: driver === 'messagingv2' });
    }
  }

  async flush(signal: AbortSignal): Promise<void> {
    while (this.#queue.length + this.#inFlight > 0 && !signal.aborted) {
      await sleep(20, signal).catch(() => {}); // the loop's condition sees the abort
    }
  }

  #enqueue({ topic, message, notification, enveloped }: Enqueued): void {
    const { context, priority } = notification;
    const payload = { ...message, _unique_id: hexId(), ...contextKeys(strippedContext(context)) };
    this.#queue.push({ topic, priority: priority.toLowerCase(), payload, enveloped });
    if (this.#queue.length > (this.#options.queueLimit ?? DEFAULT_QUEUE_LIMIT)) {
      this.#queue.shift();
      this.#countDropped(new Error('too many notifications wait for the broker'));
    }
    this.#pump();
  }

  #pump(): void {
    while (this.#inFlight < IN_FLIGHT_LIMIT) {
      const job = this.#queue.shift();
      if (!job) return;
      this.#inFlight += 1;
      this.#publish(job)
        .catch((error: unknown) => this.#countDropped(error))
        .finally(() => {
          this.#inFlight -= 1;
          this.#pump();
        });
    }
  }

  async #publish({ topic, priority, payload, enveloped }: Job): Promise<void> {
    const { topology, exchange, publisher, context } = this.#wire;
    const routingKey = `${topic}.${priority}`;
    await publisher.publish(
      {
        exchange: topology.topicExchange(exchange),
        routingKey,
        queue: topology.topicQueue(exchange, routingKey),
        body: encode(payload, { compression: context.rabbit.kombu_compression, enveloped }),
      },
      { maxRetries: this.#options.retry },
    );
  }

  #countDropped(error: unknown): void {
    if (this.#dropped % WARN_EVERY === 0) {
      this.#wire.log.warn('notification dropped', { publisherId: this.#options.publisherId, error });
    }
    this.#dropped += 1;
  }
}

interface Enqueued {
  readonly topic: string;
  readonly message: Payload;
  readonly notification: Notification;
  readonly enveloped: boolean;
}

function knownDriver(name: string): NotificationDriver {
  switch (name) {
    case 'messaging':
    case 'messagingv2':
    case 'log':
    case 'noop':
    case 'test':
      return name;
    default:
      throw new AppError('unsupported', `[oslo_messaging_notifications] driver: '${name}' is not supported`);
  }
}

function notificationMessage({ eventType, priority, payload }: Notification, publisherId: string): Payload {
  return {
    message_id: randomUUID(),
    publisher_id: publisherId,
    event_type: eventType,
    priority,
    payload,
    timestamp: pythonTimestamp(new Date()),
  };
}

/** str(datetime.utcnow()): microseconds, no zone. */
function pythonTimestamp(date: Date): string {
  return `${date.toISOString().slice(0, -1).replace('T', ' ')}000`;
}

export function strippedContext(context: WireContext): WireContext {
  return Object.fromEntries(Object.entries(context).filter(([key]) => SAFE_CONTEXT_KEYS.has(key)));
}

const SECRET_KEY = /pass|auth_token|secret|token/i;

function logNotification(log: Log, message: Payload): void {
  const text = JSON.stringify(message, (key, value: unknown) => (SECRET_KEY.test(key) ? '***' : value));
  log.info('notification', { eventType: message['event_type'], message: text });
}
