// 2,000 malformed messages to the queue of a compute: none is executed, none ends it, and whoever waits for an answer gets one.
import { describe, expect, it } from 'vitest';
import { createRpcTransport } from '#src/messaging/transport.ts';
import { serializeNovaFailure } from '#src/nova/exceptions.ts';
import { poll } from '#src/lib/wait.ts';
import { ComputeHarness, HOST, instanceOf } from '#test/fakes/compute-harness.ts';
import { FakeBroker } from '#test/fakes/fake-broker.ts';
import { bomb, malformed, originals, randomNumbers, withOneWrongValue } from './malformed.ts';

const REPLIES = 'reply_of_the_test';
const QUEUE = `compute.${HOST}`;
const COUNT = 2000;
const DEEP_COUNT = 400;
const PING = { method: 'ping', namespace: 'baseapi', version: '1.0', _reply_q: REPLIES };

/** A compute with one guest that serves its queue, and what is answered. */
class Served implements AsyncDisposable {
  readonly harness = new ComputeHarness();
  readonly broker = new FakeBroker();
  readonly #transport;
  readonly #server;

  constructor() {
    this.broker.queues.set(REPLIES, { durable: false, autoDelete: true, arguments: {}, messages: [] });
    const options = { transportUrl: '', log: this.harness.log, programName: 'nova-compute' };
    this.#transport = createRpcTransport(options, () => this.broker.dial);
    this.#server = this.#transport.server({
      topic: 'compute',
      server: HOST,
      endpoints: this.harness.endpoints,
      serializeFailure: serializeNovaFailure,
      concurrency: 64,
    });
  }

  async start(): Promise<void> {
    await this.harness.build(instanceOf({ vm_state: 'active' }));
    await this.#server.start(AbortSignal.timeout(5000));
  }

  seen(): unknown {
    const { plane, neutron, placement, glance, moments, virt } = this.harness;
    return {
      plane: plane.sent.length,
      neutron: neutron.requests.length,
      placement: placement.requests.length,
      glance: glance.requests.length,
      // a method that is not served refuses whatever it is given, and tells of it
      moments: moments.filter((moment) => !moment.startsWith('failure ')).length,
      guests: [...virt.instances].map(([uuid, { powerState }]) => [uuid, powerState]),
    };
  }

  get replies() {
    return this.broker.payloads(REPLIES).filter(({ ending }) => ending === true);
  }

  async waitForReplies(count: number): Promise<void> {
    await poll(() => this.replies.length >= count || undefined, 20, AbortSignal.timeout(10_000));
  }

  async expectAlive(): Promise<void> {
    this.broker.send('nova', QUEUE, { ...PING, args: { arg: 'there?' }, _unique_id: 'u', _msg_id: 'last' });
    const isLast = () => this.replies.find(({ _msg_id: id }) => id === 'last');
    const last = await poll(isLast, 10, AbortSignal.timeout(2000));
    expect(last['result']).toEqual({ service: 'compute', arg: 'there?' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(AbortSignal.timeout(1000));
    await this.#transport.close();
    await this.harness[Symbol.asyncDispose]();
  }
}

describe('malformed messages', () => {
  it('are refused without a trace, and the compute goes on', async () => {
    await using served = new Served();
    await served.start();
    const before = served.seen();
    const random = randomNumbers(42);
    let answered = 0;

    expect(originals.length).toBeGreaterThan(20);
    for (let index = 0; index < COUNT; index += 1) {
      const made = malformed(index, random, { replies: REPLIES, run: 'a' });
      if (made.isAnswered) answered += 1;
      served.broker.send('nova', QUEUE, made.content, made.options);
    }
    const { content, options } = bomb();
    served.broker.send('nova', QUEUE, content, options);
    await served.waitForReplies(answered);

    expect(served.replies).toHaveLength(answered);
    expect(served.replies.filter(({ failure }) => failure === null)).toEqual([]);
    expect(served.seen()).toEqual(before);
    await served.expectAlive();
  });

  it('that come twice are worked on once', async () => {
    await using served = new Served();
    await served.start();
    const instance = instanceOf(served.harness.plane.instances.values().next().value);
    const message = { method: 'pause_instance', version: '6.0', args: { instance }, _reply_q: REPLIES };

    for (let times = 0; times < 3; times += 1) {
      served.broker.send('nova', QUEUE, { ...message, _unique_id: 'same', _msg_id: `msg-${times}` });
    }
    await served.waitForReplies(1);
    await served.expectAlive();

    expect(served.replies.map(({ _msg_id: id }) => String(id)).toSorted()).toEqual(['last', 'msg-0']);
    expect(served.harness.moments.filter((moment) => moment === 'pause.start')).toHaveLength(1);
  });

  it('with one wrong value somewhere deep are answered, whatever comes of them, and change no guest', async () => {
    await using served = new Served();
    await served.start();
    const { virt } = served.harness;
    const [known] = virt.instances.keys();
    const random = randomNumbers(7);

    for (let index = 0; index < DEEP_COUNT; index += 1) {
      const original = originals[random(originals.length)] ?? {};
      const ids = { _unique_id: `deep-${index}`, _msg_id: `msg-${index}`, _reply_q: REPLIES, _timeout: null };
      served.broker.send('nova', QUEUE, { ...withOneWrongValue(original, random), ...ids });
      // in turns: builds wait for nothing here, and a heap of them would be another test
      if (index % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await served.waitForReplies(DEEP_COUNT);

    expect(served.replies).toHaveLength(DEEP_COUNT);
    expect(known === undefined ? undefined : virt.instances.get(known)?.powerState).toBe(1);
    expect(served.harness.log.lines.filter(({ message }) => message.startsWith('cannot send'))).toEqual([]);
    await served.expectAlive();
  });
});
