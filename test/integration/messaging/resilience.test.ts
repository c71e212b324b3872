// What happens when the broker restarts, dies, falls silent or loses a queue, with stock oslo.messaging at the other end.
import amqplib from 'amqplib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { silentLog, type Log, type LogFields } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { parseRabbitOptions } from '#src/messaging/options.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import type { RpcHandler, RpcTransport } from '#src/messaging/types.ts';
import { Rabbit } from '../rabbitmq.ts';
import { describeWith } from '../support.ts';
import { PythonPeer } from './python-peer.ts';

const needs = { commands: ['python3', 'epmd', 'rabbitmqctl'] };
const compute = { topic: 'compute', server: 'h1', version: '6.0' };
const sleepMs = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describeWith(needs, 'RPC while the broker fails', () => {
  let rabbit: Rabbit;
  let logged: string[] = [];
  const opened: AsyncDisposable[] = [];
  const log: Log = {
    ...silentLog,
    warn: (message: string, fields?: LogFields) => void logged.push(`${message} ${JSON.stringify(fields)}`),
  };

  beforeAll(async () => {
    rabbit = await Rabbit.start();
    await rabbit.addVirtualHosts('durable');
  });
  afterEach(async () => {
    for (const each of opened.splice(0).reverse()) await each[Symbol.asyncDispose]();
    logged = [];
  });
  afterAll(async () => {
    await rabbit[Symbol.asyncDispose]();
  });

  function connect(raw: Record<string, string> = {}, url = rabbit.url()): RpcTransport {
    const rabbitOptions = parseRabbitOptions({ kombu_reconnect_delay: '0.1', ...raw });
    const transport = createRpcTransport({
      transportUrl: url,
      rabbit: rabbitOptions,
      log,
      programName: 'nova-compute',
    });
    opened.push({ [Symbol.asyncDispose]: () => transport.close() });
    return transport;
  }

  async function serve(
    transport: RpcTransport,
    methods: Record<string, RpcHandler>,
    topic = 'compute',
  ): Promise<Service> {
    const server = transport.server({ topic, server: 'h1', endpoints: [{ version: '6.0', methods }] });
    opened.push({ [Symbol.asyncDispose]: () => server.stop(AbortSignal.timeout(5000)) });
    await server.start(AbortSignal.timeout(20_000));
    return server;
  }

  async function peer(script: string, args: readonly string[] = [], url = rabbit.url()): Promise<PythonPeer> {
    const started = await PythonPeer.start(script, url, ...args);
    opened.push(started);
    return started;
  }

  async function admin(work: (channel: amqplib.ConfirmChannel) => Promise<unknown>): Promise<void> {
    const connection = await amqplib.connect(`amqp://guest:guest@127.0.0.1:${rabbit.port}`);
    const channel = await connection.createConfirmChannel();
    await work(channel);
    await channel.waitForConfirms();
    await connection.close();
  }

  describe('a restart in the middle', () => {
    const durable = (): string => rabbit.url('durable', '?amqp_durable_queues=true');

    it('loses no cast, answers calls that were under way, and both ends are as before', async () => {
      // the queues of requests are durable; those of replies and fanouts are not, and vanish
      const seen: number[] = [];
      await serve(connect({}, durable()), {
        note: (_context, { n }) => Promise.resolve(void seen.push(Number(n))),
        slow: async () => {
          await sleepMs(4000);
          return 'slept';
        },
      });
      const client = connect({}, durable()).client();
      await peer('rpc_server.py', ['conductor', 'vm'], durable());
      const python = await peer('rpc_client.py', [], durable());
      const note = (n: number) => client.cast({ target: compute, method: 'note', args: { n }, context: {} });
      const toPython = (method: string, args: object = {}) =>
        client.call(
          { target: { topic: 'conductor', version: '3.0' }, method, args: { ...args }, context: {} },
          { timeoutMs: 50_000 },
        );
      await Promise.all([note(0), toPython('none')]);
      await expect.poll(() => seen).toEqual([0]);

      // handlers on both sides outlive the broker: every reply queue is gone when they answer
      const fromPython = python.ask({ op: 'call', ...compute, method: 'slow', timeout: 60 });
      const intoPython = toPython('slow', { seconds: 4 });
      await sleepMs(500);
      const casting = (async () => {
        for (let n = 1; n <= 100; n += 1) {
          await note(n);
          await sleepMs(10);
        }
      })();
      await sleepMs(300);
      await rabbit.stop();
      await sleepMs(500);
      const during = note(101);
      await rabbit.start();

      await Promise.all([casting, during]);
      expect(await intoPython).toBe('done');
      expect(await fromPython).toMatchObject({ result: 'slept' });
      expect(await toPython('echo', { a: 1 })).toMatchObject({ args: { a: 1 } });
      expect(await python.ask({ op: 'call', ...compute, method: 'note', args: { n: 102 } })).toMatchObject({
        result: null,
      });
      await expect.poll(() => new Set(seen).size, { timeout: 10_000 }).toBe(103);
      // sent again without need: only what was on its way, unconfirmed or unacknowledged, in that moment
      expect(seen.length - new Set(seen).size).toBeLessThanOrEqual(1);
    });

    it('keeps casts in durable queues through a power cut', async () => {
      const first = await serve(connect({}, durable()), {}, 'kept');
      await first.stop(AbortSignal.timeout(5000));
      const client = connect({}, durable()).client();
      const target = { topic: 'kept', server: 'h1', version: '6.0' };
      const numbers = Array.from({ length: 50 }, (_, n) => n);
      await Promise.all(numbers.map((n) => client.cast({ target, method: 'note', args: { n }, context: {} })));
      await rabbit.stop('SIGKILL');
      await rabbit.start();
      const seen: number[] = [];
      await serve(
        connect({}, durable()),
        { note: (_context, { n }) => Promise.resolve(void seen.push(Number(n))) },
        'kept',
      );
      await expect.poll(() => seen.toSorted((a, b) => a - b), { timeout: 10_000 }).toEqual(numbers);
    });
  });

  it('a broker that falls silent is left after the heartbeat threshold, and found again', async () => {
    const raw = { heartbeat_timeout_threshold: '2', heartbeat_rate: '4' };
    const transport = connect(raw);
    await serve(transport, { ok: () => Promise.resolve('ok') });
    const call = () =>
      transport.client().call({ target: compute, method: 'ok', args: {}, context: {} }, { timeoutMs: 30_000 });
    expect(await call()).toBe('ok');
    await sleepMs(3500); // heartbeats of both sides keep idle connections
    expect(logged).toEqual([]);
    rabbit.pause();
    try {
      await expect
        .poll(() => logged.filter((line) => line.includes('silent for 2 s')).length, { timeout: 8000 })
        .toBe(3);
    } finally {
      rabbit.resume();
    }
    expect(await call()).toBe('ok');
  });

  it('a reply whose queue is gone for good is dropped after the patience, and the server goes on', async () => {
    await serve(connect({ kombu_missing_consumer_retry_timeout: '1' }), { ok: () => Promise.resolve('ok') });
    const payload = {
      method: 'ok',
      args: {},
      version: '6.0',
      _msg_id: 'm1',
      _reply_q: 'reply_nowhere',
      _unique_id: 'u1',
    };
    const body = Buffer.from(JSON.stringify({ 'oslo.version': '2.0', 'oslo.message': JSON.stringify(payload) }));
    await admin((channel) => {
      channel.publish('nova', 'compute.h1', body, { contentType: 'application/json', contentEncoding: 'utf-8' });
      return Promise.resolve();
    });
    await expect.poll(() => logged.join(), { timeout: 5000 }).toMatch(/reply dropped.*reply_nowhere/);
    const python = await peer('rpc_client.py');
    expect(await python.ask({ op: 'call', ...compute, method: 'ok' })).toMatchObject({ result: 'ok' });
  });

  it('a queue that is deleted under its consumer is declared and consumed again', async () => {
    const transport = connect();
    await serve(transport, { ok: () => Promise.resolve('ok') });
    const call = () =>
      transport.client().call({ target: compute, method: 'ok', args: {}, context: {} }, { timeoutMs: 10_000 });
    expect(await call()).toBe('ok');
    await admin((channel) => channel.deleteQueue('compute.h1'));
    await expect.poll(() => logged.join(), { timeout: 5000 }).toContain("cancelled the consumer of 'compute.h1'");
    await sleepMs(500);
    expect(await call()).toBe('ok');
  });

  it('a fanout exchange that is deleted with its last queue is declared again', async () => {
    const client = connect().client();
    const cast = (n: number) =>
      client.cast({
        target: { topic: 'scheduler', version: '4.2', fanout: true },
        method: 'note',
        args: { n },
        context: {},
      });
    await cast(1);
    await admin(async (channel) => {
      const { queue } = await channel.assertQueue('', { exclusive: true });
      await channel.bindQueue(queue, 'scheduler_fanout', '');
    });
    await expect
      .poll(async () => await rabbit.ctl('list_exchanges', 'name'), { timeout: 10_000 })
      .not.toContain('scheduler_fanout');
    await Promise.all([cast(2), cast(3)]);
  });

  it('messages that nobody can read are thrown away, and the next one is served', async () => {
    await serve(connect(), { ok: () => Promise.resolve('ok') });
    await admin((channel) => {
      for (let index = 0; index < 100; index += 1) {
        const pickle = Buffer.from('gAJ9Lg==');
        channel.publish('nova', 'compute.h1', pickle, { contentType: 'application/x-python-serialize' });
        channel.publish('nova', 'compute.h1', Buffer.from('{"oslo.version": "2.0", "oslo.message": "{"}'));
        channel.publish('nova', 'compute.h1', Buffer.from([index, 255, 0]));
      }
      return Promise.resolve();
    });
    const python = await peer('rpc_client.py');
    expect(await python.ask({ op: 'call', ...compute, method: 'ok' })).toMatchObject({ result: 'ok' });
    expect(logged.filter((line) => line.includes('malformed message rejected'))).toHaveLength(300);
  });
});
