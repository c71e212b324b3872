// Every recorded message of a stock cell, read and written again by our code: nothing may get lost or look different.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { silentLog } from '#src/lib/log.ts';
import { decode, encode } from '#src/messaging/envelope.ts';
import { decodeFailure, encodeFailure, plainFailure } from '#src/messaging/failure.ts';
import { defaultRabbitOptions } from '#src/messaging/options.ts';
import { parseRequest, requestPayload } from '#src/messaging/request.ts';
import { Topology } from '#src/messaging/topology.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import { FakeBroker, unwrap } from '#test/fakes/fake-broker.ts';

const FOLDER = join(import.meta.dirname, '../../fixtures/wire/zed');

interface Recorded {
  readonly scene: string;
  readonly exchange: string;
  readonly routing_keys: readonly [string];
  readonly from: string;
  readonly properties: Readonly<Record<string, unknown>>;
  readonly oslo_version: string;
  readonly envelope_keys: readonly string[];
  readonly message: Readonly<Record<string, unknown>>;
}

function recorded(): Recorded[] {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.jsonl.gz'));
  return files.flatMap((file) =>
    gunzipSync(readFileSync(join(FOLDER, file)))
      .toString()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => ({ scene: file, ...(JSON.parse(line) as object) }) as Recorded & { event: string })
      .filter(({ event }) => event === 'publish'),
  );
}

const messages = recorded();
const requests = messages.filter(({ message }) => 'method' in message);
const replies = messages.filter(({ message }) => 'failure' in message);
const properties = { contentType: 'application/json', contentEncoding: 'utf-8', headers: {} };
const topology = new Topology(defaultRabbitOptions);

describe('the recorded wire', () => {
  it('holds requests, replies and notifications by the thousand', () => {
    expect(messages.length).toBeGreaterThan(2500);
    expect(requests.length).toBeGreaterThan(1000);
    expect(replies.length).toBeGreaterThan(1000);
  });

  it('goes through our envelope unchanged, key order included', () => {
    for (const { message, envelope_keys, oslo_version } of messages) {
      const { content } = encode(message, { compression: '' });
      const outer = JSON.parse(content.toString()) as Record<string, unknown>;
      expect(Object.keys(outer).sort()).toEqual([...envelope_keys].sort());
      expect(outer['oslo.version']).toBe(oslo_version);
      expect(JSON.stringify(decode({ content, properties }))).toBe(JSON.stringify(message));
    }
  });

  it('has requests that we would write the same way', () => {
    for (const { message, routing_keys, exchange } of requests) {
      const { call, method, args, context, namespace, version, uniqueId } = parseRequest(message);
      const target = { topic: 'x', version, ...(namespace === undefined ? {} : { namespace }) };
      const { msgId = '', replyQueue = '', monitor } = call ?? {};
      const fields = call && { msgId, replyQueue, monitorSeconds: monitor as number | null };
      const ours = requestPayload({ target, method, args, context }, fields);
      const where = `${method} to ${exchange}/${routing_keys[0]}`;
      expect(Object.keys(ours), where).toEqual(Object.keys(message));
      expect({ ...ours, _unique_id: uniqueId }, where).toEqual(message);
    }
  });

  it('has replies of the keys that we send', () => {
    for (const { message, exchange, properties: sent } of replies) {
      expect(Object.keys(message)).toEqual(['result', 'failure', 'ending', '_msg_id', '_unique_id']);
      expect(exchange).toBe('');
      expect(sent).not.toHaveProperty('expiration');
    }
  });

  it('has failures that we read, and write the same way', () => {
    const failures = replies.map(({ message }) => message['failure']).filter((failure) => failure !== null);
    expect(failures.length).toBeGreaterThan(10);
    for (const failure of failures) {
      const again = encodeFailure(plainFailure(decodeFailure(failure)));
      expect(JSON.parse(again)).toEqual(JSON.parse(failure as string));
      expect(Object.keys(JSON.parse(again) as object)).toEqual(Object.keys(JSON.parse(failure as string) as object));
    }
  });

  it('is addressed by our topology', () => {
    for (const { exchange, routing_keys, message } of requests) {
      const [key] = routing_keys;
      if (!exchange.endsWith('_fanout')) {
        expect(topology.topicQueue('nova', key).binding?.exchange.name).toBe(exchange);
        continue;
      }
      expect(topology.fanoutExchange(exchange.slice(0, -'_fanout'.length)).name).toBe(exchange);
      expect(key).toBe('');
      expect(message).not.toHaveProperty('_msg_id');
    }
  });
});

describe('our client', () => {
  /** The properties as the recorder names them. */
  function asRecorded(options: Record<string, unknown>): Record<string, unknown> {
    return {
      ...(options['expiration'] === undefined ? {} : { expiration: options['expiration'] }),
      priority: options['priority'],
      delivery_mode: options['deliveryMode'],
      headers: options['headers'],
      content_encoding: options['contentEncoding'],
      content_type: options['contentType'],
    };
  }

  it('sends each kind of recorded request with the recorded properties', async () => {
    const broker = new FakeBroker();
    const options = { transportUrl: '', log: silentLog, programName: 'nova-compute' };
    const transport = createRpcTransport(options, () => broker.dial);
    const client = transport.client();
    const kinds = new Map(
      requests.map((request) => [`${request.exchange} ${String(request.message['method'])}`, request]),
    );
    expect(kinds.size).toBeGreaterThan(40);
    for (const { message, exchange, routing_keys, properties: wanted } of kinds.values()) {
      const { call, method, args, context, namespace, version } = parseRequest(message);
      const fanout = exchange.endsWith('_fanout');
      const [topic = '', ...server] = fanout ? [exchange.slice(0, -'_fanout'.length)] : routing_keys[0].split('.');
      const target = {
        topic,
        version,
        fanout,
        ...(server.length > 0 ? { server: server.join('.') } : {}),
        ...(namespace === undefined ? {} : { namespace }),
      };
      const request = { target, method, args, context };
      const before = broker.published.length;
      if (call) {
        const monitorMs = typeof call.monitor === 'number' ? call.monitor * 1000 : undefined;
        const timeoutMs = Number(wanted['expiration']);
        const pending = client.call(request, { timeoutMs, ...(monitorMs === undefined ? {} : { monitorMs }) });
        await expect.poll(() => broker.published.length).toBe(before + 1);
        const sent = unwrap(broker.published.at(-1)?.content ?? Buffer.of());
        const answer = { result: null, failure: null, ending: true, _msg_id: sent['_msg_id'] };
        broker.send('', String(sent['_reply_q']), answer);
        await pending;
      } else {
        await client.cast(request);
      }
      const sent = broker.published.at(-1);
      expect(sent).toMatchObject({ exchange, routingKey: routing_keys[0] });
      expect(asRecorded(sent?.options ?? {})).toEqual(wanted);
      const payload = unwrap(sent?.content ?? Buffer.of());
      const ids = {
        _unique_id: message['_unique_id'],
        ...(call ? { _msg_id: call.msgId, _reply_q: call.replyQueue } : {}),
      };
      expect({ ...payload, ...ids }).toEqual(message);
    }
    await transport.close();
  });
});
