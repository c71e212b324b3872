// 2,000 malformed messages to the queue of a compute: none is executed, none ends it, and whoever waits for an answer gets one.
import { describe, expect, it } from 'vitest';
import { createRpcTransport } from '#src/messaging/transport.ts';
import { serializeNovaFailure } from '#src/nova/exceptions.ts';
import { poll } from '#src/lib/wait.ts';
import { ComputeHarness, HOST, instanceOf } from '#test/fakes/compute-harness.ts';
import { FakeBroker, wrap } from '#test/fakes/fake-broker.ts';
import { recordedMessages } from '../nova/recordings.ts';

type Json = Readonly<Record<string, any>>;

interface Malformed {
  readonly content: Buffer;
  readonly options?: Record<string, unknown>;
  /** That a caller is to be answered with a failure. */
  readonly isAnswered: boolean;
}

const REPLIES = 'reply_of_the_test';
const COUNT = 2000;

/** Mulberry32: the same messages in every run. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

const originals = recordedMessages
  .filter(({ routingKey, message }) => routingKey.startsWith('compute.') && 'method' in message)
  .map(({ message }) => message as Json)
  .filter(({ args }) => args?.instance?.['nova_object.name'] === 'Instance');

const NO_INSTANCE = [null, undefined, 7, true, 'instance', [], {}, [{}], { 'nova_object.name': 'Instance' }];
const NAMES = ['', '__proto__', 'constructor', 'toString', 'hasOwnProperty', '_build', 'build', 7, null, {}, []];
const VERSIONS = ['', '0', '7.0', '5.99', '6.99', '99999999999.0', '0x6', '-6.0', '6.', 'six', '1.0'];
const DATA = [null, 7, 'x', [], { uuid: null }, { uuid: 7 }, { uuid: '' }, { uuid: '../../../etc' }, { uuid: {} }];

/** Each takes a recorded message and makes one of it that means nothing. */
const MUTATIONS: readonly ((message: Json, random: (below: number) => number) => Malformed)[] = [
  (message, random) => {
    const whole = wrap(message);
    return { content: whole.subarray(0, random(whole.length - 1)), isAnswered: false };
  },
  (message, random) => {
    const whole = wrap(message);
    const noise = Buffer.from(Array.from({ length: 1 + random(40) }, () => random(256)));
    return { content: Buffer.concat([Buffer.from([0xff]), noise, whole]), isAnswered: false };
  },
  (message, random) => {
    const { length, [random(length)]: type } = ['text/plain', 'application/x-python-serialize', 'application/data', ''];
    return { content: wrap(message), options: { contentType: type }, isAnswered: false };
  },
  (message, random) => {
    const headers = { compression: ['application/x-gzip', 'bzip2', 'zstd', 7, '__proto__'][random(5)] };
    return { content: wrap(message), options: { headers }, isAnswered: false };
  },
  (message, random) => {
    const inner = [7, null, true, '[]', '"text"', 'null', '{', '', JSON.stringify([message])][random(9)];
    return { content: json({ 'oslo.version': '2.0', 'oslo.message': inner }), isAnswered: false };
  },
  (message, random) => {
    const version = ['1.0', '3.0', '2.99', 2, {}, 'two', ''][random(7)];
    return { content: json({ 'oslo.version': version, 'oslo.message': JSON.stringify(message) }), isAnswered: false };
  },
  (message, random) => changed(message, { method: NAMES[random(NAMES.length)] }),
  (message, random) => changed(message, { version: VERSIONS[random(VERSIONS.length)] }),
  (message, random) => changed(message, { namespace: ['', 'compute_task', '__proto__', 'baseapi'][random(4)] }),
  (message, random) => changed(message, { args: [null, undefined, 7, 'args', [], [message['args']]][random(6)] }),
  (message, random) => withInstance(message, NO_INSTANCE[random(NO_INSTANCE.length)]),
  (message, random) => {
    const name = ['InstanceList', 'Migration', 'Nothing', '__proto__', '', 7, null][random(7)];
    return withInstance(message, { ...message['args'].instance, 'nova_object.name': name });
  },
  (message, random) => {
    const version = ['1.0', '3.7', '', 'x', 7, null][random(6)];
    return withInstance(message, { ...message['args'].instance, 'nova_object.version': version });
  },
  (message, random) =>
    withInstance(message, { ...message['args'].instance, 'nova_object.data': DATA[random(DATA.length)] }),
  (message, random) => {
    const depth = 5000 + random(5000);
    const deep = `${'['.repeat(depth)}${']'.repeat(depth)}`;
    const content = json({ 'oslo.version': '2.0', 'oslo.message': `{"method":${deep},"args":{}}` });
    return { content, isAnswered: false };
  },
];

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function changed(message: Json, fields: Json): Malformed {
  return { content: wrap({ ...message, ...fields }), isAnswered: true };
}

function withInstance(message: Json, instance: unknown): Malformed {
  return changed(message, { args: { ...message['args'], instance } });
}

describe('malformed messages', () => {
  it('are refused without a trace, and the compute goes on', async () => {
    await using harness = new ComputeHarness();
    const running = instanceOf({ vm_state: 'active' });
    await harness.build(running);
    const broker = new FakeBroker();
    broker.queues.set(REPLIES, { durable: false, autoDelete: true, arguments: {}, messages: [] });
    const options = { transportUrl: '', log: harness.log, programName: 'nova-compute' };
    const transport = createRpcTransport(options, () => broker.dial);
    const { endpoints } = harness;
    const server = transport.server({
      topic: 'compute',
      server: HOST,
      endpoints,
      serializeFailure: serializeNovaFailure,
      concurrency: 64,
    });
    await server.start(AbortSignal.timeout(5000));
    const seen = () => ({
      plane: harness.plane.sent.length,
      neutron: harness.neutron.requests.length,
      placement: harness.placement.requests.length,
      glance: harness.glance.requests.length,
      // a method that is not served refuses whatever it is given, and tells of it
      moments: harness.moments.filter((moment) => !moment.startsWith('failure ')).length,
      guests: [...harness.virt.instances].map(([uuid, { powerState }]) => [uuid, powerState]),
    });
    const before = seen();
    const random = randomNumbers(42);
    let answered = 0;

    expect(originals.length).toBeGreaterThan(20);
    for (let index = 0; index < COUNT; index += 1) {
      const original = originals[random(originals.length)] ?? {};
      const ids = { _unique_id: `unique-${index}`, _msg_id: `msg-${index}`, _reply_q: REPLIES, _timeout: null };
      const mutation = MUTATIONS[index % MUTATIONS.length];
      const made = mutation?.({ ...original, ...ids }, random);
      if (!made) throw new Error('no mutation');
      if (made.isAnswered) answered += 1;
      broker.send('nova', `compute.${HOST}`, made.content, made.options);
    }
    const replies = () => broker.payloads(REPLIES).filter(({ ending }) => ending === true);
    await poll(() => replies().length >= answered || undefined, 20, AbortSignal.timeout(10_000));

    expect(replies()).toHaveLength(answered);
    expect(replies().filter(({ failure }) => failure === null)).toEqual([]);
    expect(seen()).toEqual(before);
    const ping = { method: 'ping', namespace: 'baseapi', version: '1.0', args: { arg: 'there?' } };
    broker.send('nova', `compute.${HOST}`, { ...ping, _unique_id: 'u', _msg_id: 'last', _reply_q: REPLIES });
    const last = await poll(() => replies().find(({ _msg_id: id }) => id === 'last'), 10, AbortSignal.timeout(2000));
    expect(last['result']).toEqual({ service: 'compute', arg: 'there?' });
    await server.stop(AbortSignal.timeout(1000));
    await transport.close();
  });
});
