// The recorded traffic of a stock Zed cell, message by message.
import { readFileSync, readdirSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

export interface Recorded {
  /** The operation it was recorded in. */
  readonly recording: string;
  readonly from: string;
  readonly exchange: string;
  readonly routingKey: string;
  readonly message: Readonly<Record<string, unknown>>;
}

const FOLDER = new URL('../../fixtures/wire/zed/', import.meta.url);

/** Every published message, once. */
export const recordedMessages: readonly Recorded[] = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.jsonl.gz'))
  .sort()
  .flatMap((file) =>
    gunzipSync(readFileSync(new URL(file, FOLDER)))
      .toString()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
      .filter((event) => event.event === 'publish')
      .map((event) => ({
        recording: file.replace('.jsonl.gz', ''),
        from: event.from,
        exchange: event.exchange,
        routingKey: event.routing_keys[0],
        message: event.message,
      })),
  );

const replies = new Map(
  recordedMessages
    .filter(({ message }) => 'ending' in message && message['ending'] === true)
    .map(({ message }) => [message['_msg_id'], message]),
);

/** What the caller of a recorded request was answered. */
export function replyTo({ message }: Recorded): Readonly<Record<string, unknown>> | undefined {
  return replies.get(message['_msg_id']);
}

/** The context as the messaging layer hands it out: without the prefix of its keys. */
export function contextOf(message: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(message)
      .filter(([key]) => key.startsWith('_context_'))
      .map(([key, value]) => [key.slice('_context_'.length), value]),
  );
}

/** Every object in a message, nested ones too, outermost first. */
export function objectsIn(value: unknown): Record<string, any>[] {
  if (typeof value !== 'object' || value === null) return [];
  const inner = Object.values(value).flatMap(objectsIn);
  return 'nova_object.name' in value ? [value, ...inner] : inner;
}

/** The same JSON with the order of `changes`, which is that of a Python set, taken out. */
export function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      key === 'nova_object.changes' && Array.isArray(item) ? item.map(String).toSorted() : sorted(item),
    ]),
  );
}
