// Declares exchanges and queues with the fallbacks that oslo.messaging has (section 1.3).
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import { replyCode, type AmqpChannel, type AmqpConnection } from './amqp.ts';
import type { ExchangeSpec, QueueSpec } from './topology.ts';

const NOT_FOUND = 404;
const ACCESS_REFUSED = 403;
const PRECONDITION_FAILED = 406;
const INTERNAL_ERROR = 541;
const INTERNAL_ERROR_DELAY_MS = 2000;

/**
 * An exchange that exists with the other durability is taken as it is found (non-durable): that alone is what oslo falls
 * back on. Every other difference is a configuration error, which is said with the broker's words.
 */
export async function declareExchange(connection: AmqpConnection, exchange: ExchangeSpec, log: Log): Promise<void> {
  try {
    await assertExchange(connection, exchange);
  } catch (error) {
    const isDurability =
      replyCode(error) === PRECONDITION_FAILED && /inequivalent arg 'durable'/.test(messageOf(error));
    if (!isDurability || !exchange.durable) throw translated(`exchange '${exchange.name}'`, error);
    log.warn('exchange exists and is not durable: using it so', { exchange: exchange.name });
    await assertExchange(connection, { ...exchange, durable: false }).catch((second: unknown) => {
      throw translated(`exchange '${exchange.name}'`, second);
    });
  }
}

/**
 * Declares and binds. A queue whose home node is dead (404) is deleted and declared anew; so is a quorum queue after an
 * internal error (541), which ended the connection before this one: `previous`.
 */
export async function declareQueue(
  connection: AmqpConnection,
  queue: QueueSpec,
  { log, previous }: { readonly log: Log; readonly previous?: Error | undefined },
): Promise<void> {
  if (replyCode(previous) === INTERNAL_ERROR && queue.arguments['x-queue-type'] === 'quorum') {
    log.warn('deleting a quorum queue after an internal error of the broker', { queue: queue.name });
    await deleteQueue(connection, queue.name);
  }
  if (queue.binding) await declareExchange(connection, queue.binding.exchange, log);
  try {
    await assertQueue(connection, queue);
  } catch (error) {
    if (replyCode(error) !== NOT_FOUND) throw translated(`queue '${queue.name}'`, error);
    log.warn('queue is lost with its node: declaring it anew', { queue: queue.name });
    await deleteQueue(connection, queue.name);
    await assertQueue(connection, queue);
  }
}

/** After an internal error the broker needs a moment. */
export async function pauseAfter(previous: Error | undefined): Promise<void> {
  if (replyCode(previous) === INTERNAL_ERROR) await sleep(INTERNAL_ERROR_DELAY_MS);
}

export async function deleteQueue(connection: AmqpConnection, name: string): Promise<void> {
  await onChannel(connection, (channel) => channel.deleteQueue(name));
}

async function assertExchange(connection: AmqpConnection, { name, type, durable, autoDelete }: ExchangeSpec) {
  await onChannel(connection, (channel) => channel.assertExchange(name, type, { durable, autoDelete }));
}

async function assertQueue(connection: AmqpConnection, queue: QueueSpec): Promise<void> {
  const { name, durable, autoDelete, binding } = queue;
  await onChannel(connection, async (channel) => {
    await channel.assertQueue(name, { durable, autoDelete, arguments: queue.arguments });
    if (binding) await channel.bindQueue(name, binding.exchange.name, binding.routingKey);
  });
}

/** A refused declaration closes its channel: each gets one of its own. */
async function onChannel<T>(connection: AmqpConnection, work: (channel: AmqpChannel) => Promise<T>): Promise<T> {
  const channel = await connection.createChannel();
  let closed = false;
  channel.on('error', () => {}); // the pending request rejects with it
  channel.on('close', () => {
    closed = true;
  });
  try {
    return await work(channel);
  } finally {
    if (!closed) await channel.close().catch(() => {});
  }
}

/** What no retry mends is an AppError: start-up ends with it. */
function translated(what: string, error: unknown): unknown {
  const code = replyCode(error);
  if (code === PRECONDITION_FAILED) {
    const advice = 'make [oslo_messaging_rabbit] the same on all services';
    return new AppError('conflict', `${what} exists with other properties (${messageOf(error)}): ${advice}`, {
      cause: error,
    });
  }
  if (code === ACCESS_REFUSED) {
    return new AppError('forbidden', `${what}: ${messageOf(error)}`, { cause: error });
  }
  return error;
}
