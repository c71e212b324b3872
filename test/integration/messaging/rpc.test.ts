// Against a real RabbitMQ and stock oslo.messaging, in both roles.
import amqplib from 'amqplib';
import { readFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import type { Log, LogFields } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import { parseRabbitOptions } from '#src/messaging/options.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import type { RpcEndpoint, RpcHandler, RpcServerOptions, RpcTransport, WireFailure } from '#src/messaging/types.ts';
import { Rabbit } from '../rabbitmq.ts';
import { describeWith } from '../support.ts';
import { PythonPeer } from './python-peer.ts';

const needs = {
  commands: ['/usr/bin/python3', 'epmd', 'openssl', 'rabbitmqctl'].map((name) => name.replace('/usr/bin/', '')),
};
const context = { request_id: 'req-1', user_id: 'ü', roles: ['admin'], nothing: null };

const sideBySide: readonly (readonly [string, Record<string, string>])[] = [
  ['the defaults', {}],
  ['durable, auto-deleted', { amqp_durable_queues: 'true', amqp_auto_delete: 'true' }],
  [
    'quorum with limits',
    { rabbit_quorum_queue: 'true', rabbit_quorum_delivery_limit: '3', rabbit_quroum_max_memory_length: '1000' },
  ],
  ['mirrored, short-lived', { rabbit_ha_queues: 'true', rabbit_transient_queues_ttl: '60' }],
  ['compressed', { kombu_compression: 'gzip', rabbit_qos_prefetch_count: '5' }],
];
const virtualHostOf = (name: string): string => `v ${name}/%`;

describeWith(needs, 'RPC over RabbitMQ', () => {
  let rabbit: Rabbit;
  const opened: AsyncDisposable[] = [];
  const logged: string[] = [];
  const keep = (message: string, fields?: LogFields): void => {
    logged.push(`${message} ${JSON.stringify(fields)}`);
  };
  const log: Log = { debug: keep, info: keep, warn: keep, error: keep };

  beforeAll(async () => {
    rabbit = await Rabbit.start({ tls: true });
    await rabbit.addVirtualHosts(...sideBySide.map(([name]) => virtualHostOf(name)));
  });
  afterEach(async () => {
    for (const each of opened.splice(0).reverse()) await each[Symbol.asyncDispose]();
  });
  afterAll(async () => {
    await rabbit[Symbol.asyncDispose]();
    expect(logged.join('\n')).not.toMatch(/hunter2|guest:guest|"secret"/);
  });

  function connect(raw: Record<string, string> = {}, url = rabbit.url()): RpcTransport {
    const transport = createRpcTransport({
      transportUrl: url,
      rabbit: parseRabbitOptions(raw),
      log,
      programName: 'nova-compute',
    });
    opened.push({ [Symbol.asyncDispose]: () => transport.close() });
    return transport;
  }

  async function serve(
    transport: RpcTransport,
    methods: Record<string, RpcHandler>,
    options: Partial<RpcServerOptions> = {},
  ): Promise<Service> {
    const endpoints: RpcEndpoint[] = [{ version: '6.2', methods }];
    const server = transport.server({ topic: 'compute', server: 'h1', endpoints, ...options });
    opened.push({ [Symbol.asyncDispose]: () => server.stop(AbortSignal.timeout(5000)) });
    await server.start(AbortSignal.timeout(20_000));
    return server;
  }

  async function peer(script: string, ...args: string[]): Promise<PythonPeer> {
    const started = await PythonPeer.start(script, ...args);
    opened.push(started);
    return started;
  }

  /** Options as URL query, which both ends understand. */
  const query = (raw: Record<string, string>): string => `?${new URLSearchParams(raw).toString()}`;

  describe('with oslo.messaging as the server', () => {
    it('calls, casts, fans out and hears of exceptions', async () => {
      const python = await peer('rpc_server.py', rabbit.url(), 'conductor', 'vm');
      const client = connect().client({ timeoutMs: 10_000 });
      const call = (method: string, args: object = {}, target: object = {}) =>
        client.call({ target: { topic: 'conductor', version: '3.0', ...target }, method, args: { ...args }, context });

      const args = { text: 'ü "x" \u2028', list: [1, 2.5, null, { deep: true }], big: 2 ** 53 - 1 };
      expect(await call('echo', args)).toEqual({ args, context: { ...context, client_timeout: null } });
      expect(await call('none')).toBeNull();
      expect(await call('where', {}, { namespace: 'other', version: '1.0', server: 'vm' })).toBe('other');

      await expect(call('fail', { instance_id: 'X' })).rejects.toMatchObject({
        remoteClass: 'InstanceNotFound',
        remoteModule: 'interop_exceptions',
        remoteMessage: 'Instance X could not be found.',
        kwargs: { instance_id: 'X', code: 404 },
      });
      const builtin = call('fail_builtin');
      await expect(builtin).rejects.toThrow(RemoteError);
      await expect(builtin).rejects.toMatchObject({
        remoteClass: 'ValueError',
        remoteModule: 'builtins',
        args: ['no such value', 7],
      });
      await expect(call('missing')).rejects.toMatchObject({ remoteClass: 'NoSuchMethod' });
      await expect(call('echo', {}, { version: '4.0' })).rejects.toMatchObject({ remoteClass: 'UnsupportedVersion' });

      const cast = (n: string, target: object) =>
        client.cast({
          target: { topic: 'conductor', version: '3.0', ...target },
          method: 'note',
          args: { n },
          context,
        });
      await cast('topic', {});
      await cast('host', { server: 'vm' });
      await cast('fanout', { fanout: true });
      for (const n of ['topic', 'host', 'fanout']) {
        const line = await python.line((each) => (each['args'] as { n?: string } | undefined)?.n === n);
        expect(line).toMatchObject({ event: 'note', request_id: 'req-1' });
      }
    });

    it('keeps a long call alive by its signs of life, and times out without', async () => {
      await peer('rpc_server.py', rabbit.url(), 'conductor', 'vm');
      const client = connect().client();
      const slow = (seconds: number, options: object) =>
        client.call(
          { target: { topic: 'conductor', version: '3.0' }, method: 'slow', args: { seconds }, context },
          options,
        );
      const [long] = await Promise.all([
        slow(3.2, { timeoutMs: 30_000, monitorMs: 2000 }),
        expect(slow(3, { timeoutMs: 1000 })).rejects.toThrow('within 1 s'),
      ]);
      expect(long).toBe('done');
    });

    it('pipelines calls', async () => {
      await peer('rpc_server.py', rabbit.url(), 'conductor', 'vm');
      const client = connect().client();
      const echo = (n: number) =>
        client.call({ target: { topic: 'conductor', version: '3.0' }, method: 'echo', args: { n }, context: {} });
      const answers = await Promise.all(Array.from({ length: 300 }, (_, n) => echo(n)));
      expect(answers.map((answer) => (answer as { args: { n: number } }).args.n)).toEqual(
        Array.from({ length: 300 }, (_, n) => n),
      );
    });
  });

  describe('with oslo.messaging as the client', () => {
    const failure: WireFailure = {
      class: 'InstanceNotFound',
      module: 'interop_exceptions',
      message: 'Instance Y could not be found.',
      tb: ['Traceback (ours)\n'],
      args: ['Instance Y could not be found.'],
      kwargs: { code: 404, extra: 'x' },
    };

    it('serves calls on host, topic and base API, and raises its exceptions there', async () => {
      const methods: Record<string, RpcHandler> = {
        echo: (ctxt, args) => Promise.resolve({ ctxt, args }),
        fail: () => Promise.reject(new Error('translated')),
        _hidden: () => Promise.resolve('seen'),
      };
      await serve(connect(), methods, { serializeFailure: () => failure, pingEnabled: true });
      const python = await peer('rpc_client.py', rabbit.url());
      const call = (command: object) =>
        python.ask({ op: 'call', topic: 'compute', version: '6.0', context, ...command });

      const args = { text: 'ü', list: [1, null], n: 1.5 };
      expect(await call({ server: 'h1', method: 'echo', args })).toMatchObject({ result: { ctxt: context, args } });
      expect(await call({ method: 'echo' })).toMatchObject({ result: { args: {} } });
      expect(await call({ namespace: 'baseapi', version: '1.0', method: 'ping', args: { arg: '1.21' } })).toMatchObject(
        {
          result: { service: 'compute', arg: '1.21' },
        },
      );
      expect(await call({ namespace: 'baseapi', version: '1.1', method: 'get_backdoor_port' })).toMatchObject({
        result: null,
      });
      expect(await call({ version: '1.0', method: 'oslo_rpc_server_ping' })).toMatchObject({ result: 'pong' });

      // rebuilt as the class itself: what nova-api gets
      expect(await call({ method: 'fail' })).toMatchObject({
        error: 'InstanceNotFound_Remote',
        module: 'interop_exceptions_Remote',
        message: 'Instance Y could not be found.\nTraceback (ours)\n',
        kwargs: { code: 404, extra: 'x' },
      });
      expect(await call({ method: 'nothing' })).toMatchObject({ error: 'RemoteError', exc_type: 'NoSuchMethod' });
      expect(await call({ method: '_hidden' })).toMatchObject({ exc_type: 'NoSuchMethod' });
      expect(await call({ method: 'echo', version: '6.3' })).toMatchObject({ exc_type: 'UnsupportedVersion' });
    });

    it('raises NotImplementedError there for what is unsupported', async () => {
      await serve(connect(), { no: () => Promise.reject(new AppError('unsupported', 'not here')) });
      const python = await peer('rpc_client.py', rabbit.url());
      const answer = await python.ask({ op: 'call', topic: 'compute', version: '6.0', method: 'no' });
      expect(answer).toMatchObject({ error: 'NotImplementedError' });
      expect(String(answer['message'])).toContain('not here');
    });

    it('takes casts and fanouts, gives long calls signs of life, and finishes them when it stops', async () => {
      const seen: string[] = [];
      const server = await serve(connect(), {
        note: (_ctxt, { n }) => Promise.resolve(void seen.push(String(n))),
        slow: async (_ctxt, { ms }) => {
          await new Promise((resolve) => setTimeout(resolve, Number(ms)));
          return 'slept';
        },
      });
      const python = await peer('rpc_client.py', rabbit.url());
      const compute = { topic: 'compute', version: '6.0' };
      await python.ask({ op: 'cast', ...compute, server: 'h1', method: 'note', args: { n: 'host' } });
      await python.ask({ op: 'cast', ...compute, method: 'note', args: { n: 'topic' } });
      await python.ask({ op: 'cast', ...compute, fanout: true, method: 'note', args: { n: 'fanout' } });
      await expect.poll(() => seen.toSorted(), { timeout: 5000 }).toEqual(['fanout', 'host', 'topic']);

      const long = python.ask({ op: 'call', ...compute, method: 'slow', args: { ms: 3300 }, timeout: 30, monitor: 2 });
      await new Promise((resolve) => setTimeout(resolve, 2500));
      await server.stop(AbortSignal.timeout(10_000));
      expect(await long).toMatchObject({ result: 'slept' });
    });
  });

  describe('side by side with oslo.messaging on the same queues', () => {
    it.each(sideBySide)('%s: neither end refuses what the other declared', async (name, raw) => {
      const url = rabbit.url(virtualHostOf(name), query(raw));
      await peer('rpc_server.py', url, 'compute', 'h1');
      const transport = connect({}, url);
      await serve(transport, { note: () => Promise.resolve() }, { server: 'h2' });
      const echo = {
        target: { topic: 'compute', server: 'h1', version: '3.0' },
        method: 'echo',
        args: { a: 1 },
        context: {},
      };
      expect(await transport.client().call(echo)).toMatchObject({ args: { a: 1 } });
      const python = await peer('rpc_client.py', url);
      expect(
        await python.ask({ op: 'call', topic: 'compute', server: 'h2', version: '6.0', method: 'note' }),
      ).toMatchObject({ result: null });
    });

    it('transient quorum queues, and a stream for fanouts', async () => {
      const stream = {
        rabbit_stream_fanout: 'true',
        rabbit_transient_quorum_queue: 'true',
        rabbit_qos_prefetch_count: '10',
      };
      for (const raw of [{ rabbit_transient_quorum_queue: 'true' }, stream]) {
        const topic = 'rabbit_stream_fanout' in raw ? 'streamed' : 'quorate';
        const seen: unknown[] = [];
        const transport = connect({ ...raw, rabbit_quorum_queue: 'true' }, rabbit.url());
        const exchange = { controlExchange: `nova_${topic}` };
        const own = createRpcTransport({
          transportUrl: rabbit.url(),
          rabbit: parseRabbitOptions({ ...raw, rabbit_quorum_queue: 'true' }),
          log,
          programName: 'nova-compute',
          ...exchange,
        });
        opened.push({ [Symbol.asyncDispose]: () => own.close() });
        await serve(own, { note: (_ctxt, { n }) => Promise.resolve(void seen.push(n)) }, { topic });
        const client = own.client();
        await client.cast({ target: { topic, version: '6.0', fanout: true }, method: 'note', args: { n: 1 }, context });
        await expect.poll(() => seen, { timeout: 5000 }).toEqual([1]);
        const ping = {
          target: { topic, server: 'h1', version: '1.0', namespace: 'baseapi' },
          method: 'ping',
          args: {},
          context,
        };
        expect(await client.call(ping)).toMatchObject({ arg: null });
        await transport.close();
      }
      const queues = await rabbit.ctl('list_queues', 'name', 'type', 'durable', 'arguments');
      expect(queues).toMatch(/^streamed_fanout\tstream\ttrue\t.*1800s/m);
      expect(queues).toMatch(/^quorate_fanout_[0-9a-f]{32}\tquorum\ttrue\t/m);
      expect(queues).toMatch(/^reply_[0-9a-f]{32}\tquorum\ttrue\t/m);
      expect(queues).toMatch(/^streamed\.h1\tquorum\ttrue\t/m);
    });

    it('stops at a queue that exists with other flags, and takes a transient exchange as it is', async () => {
      const connection = await amqplib.connect(`amqp://guest:guest@127.0.0.1:${rabbit.port}`);
      const channel = await connection.createChannel();
      await channel.assertExchange('mixed', 'topic', { durable: false });
      await channel.assertQueue('odd.h1', { durable: false });
      const options = { transportUrl: rabbit.url(), log, programName: 'nova-compute', controlExchange: 'mixed' };
      const transport = createRpcTransport({ ...options, rabbit: parseRabbitOptions({ amqp_durable_queues: 'true' }) });
      opened.push({ [Symbol.asyncDispose]: () => transport.close() });
      const start = serve(transport, {}, { topic: 'odd' });
      await expect(start).rejects.toThrow(/queue 'odd\.h1' exists with other properties.*inequivalent arg 'durable'/);
      await serve(transport, {}, { topic: 'even' });
      const ping = {
        target: { topic: 'even', version: '1.0', namespace: 'baseapi' },
        method: 'ping',
        args: {},
        context,
      };
      expect(await transport.client().call(ping)).toEqual({ service: 'even', arg: null });
      await channel.deleteQueue('odd.h1');
      await connection.close();
    });
  });

  describe('notifications', () => {
    it('wait in the queue of their priority until oslo.messaging listens', async () => {
      const transport = connect();
      const options = { topics: ['versioned_notifications'], publisherId: 'nova-compute:h1' };
      const secret = { ...context, auth_token: 'secret' };
      for (const driver of ['messaging', 'messagingv2']) {
        const notifier = transport.notifier({ ...options, drivers: [driver] });
        const payload = { 'nova_object.name': 'InstanceActionPayload', driver };
        notifier.notify({ context: secret, eventType: 'instance.power_on.end', priority: 'INFO', payload });
        await notifier.flush(AbortSignal.timeout(5000));
      }
      const python = await peer('notification_listener.py', rabbit.url(), 'versioned_notifications');
      for (const driver of ['messaging', 'messagingv2']) {
        const line = await python.line(
          (each) => (each['payload'] as { driver?: string } | undefined)?.driver === driver,
        );
        expect(line).toMatchObject({ publisher_id: 'nova-compute:h1', event_type: 'instance.power_on.end' });
        expect(line['context']).toMatchObject({ request_id: 'req-1', user_id: 'ü', roles: ['admin'] });
        expect(JSON.stringify(line)).not.toContain('secret');
      }
    });
  });

  describe('the connection', () => {
    const ping = {
      target: { topic: 'compute', server: 'h1', version: '1.0', namespace: 'baseapi' },
      method: 'ping',
      args: {},
      context,
    };

    it('names itself, and sends on another connection than it consumes on', async () => {
      const transport = connect();
      await serve(transport, {});
      await transport.client().call(ping);
      const lines = (await rabbit.ctl('list_connections', 'client_properties', 'channels', 'timeout', 'auth_mechanism'))
        .split('\n')
        .filter((line) => line.includes(`nova-compute:${process.pid}:`));
      expect(lines).toHaveLength(3);
      for (const line of lines) {
        expect(line).toMatch(/"authentication_failure_close",true/);
        expect(line).toMatch(/"connection.blocked",true/);
        expect(line).toMatch(/"consumer_cancel_notify",true/);
        expect(line).toMatch(/\t1\t60\tAMQPLAIN/);
      }
    });

    it('goes on to the next broker when one is down', async () => {
      const transport = connect({}, `rabbit://guest:guest@127.0.0.1:1,guest:guest@127.0.0.1:${rabbit.port}/`);
      await serve(transport, {});
      expect(await transport.client().call(ping)).toEqual({ service: 'compute', arg: null });
    });

    it('logs in with PLAIN, and says that a password is wrong without showing it', async () => {
      const transport = connect({ rabbit_login_method: 'PLAIN' });
      await serve(transport, {});
      expect(await transport.client().call(ping)).toBeTruthy();
      const wrong = connect({}, `rabbit://guest:hunter2@127.0.0.1:${rabbit.port}/`);
      const refused = wrong.notifier({ drivers: ['messagingv2'], topics: ['x'], publisherId: 'x', retry: 0 });
      refused.notify({ context, eventType: 'x', priority: 'INFO', payload: {} });
      await refused.flush(AbortSignal.timeout(5000));
      const call = wrong.client({ timeoutMs: 500 }).call(ping);
      await expect(call).rejects.toThrow(/^(?!.*hunter2).*$/s);
    });

    it('verifies the broker by the CA, the name only when told to, and can log in by certificate', async () => {
      const { ca, cert, key } = rabbit.tls;
      const url = `rabbit://guest:guest@localhost:${rabbit.tlsPort}/`;
      const check = async (raw: Record<string, string>, transportUrl = url): Promise<unknown> => {
        const transport = connect({ ssl: 'true', ...raw }, transportUrl);
        const server = transport.server({ topic: 'tls', server: 'h1', endpoints: [] });
        try {
          await server.start(AbortSignal.timeout(3000));
          return 'connected';
        } catch (error) {
          return error;
        } finally {
          await server.stop(AbortSignal.timeout(1000));
        }
      };
      expect(await check({ ssl_ca_file: ca })).toBe('connected');
      expect(await check({})).toBe('connected');
      expect(await check({ ssl_ca_file: cert })).toBeInstanceOf(Error);
      expect(await check({ ssl_ca_file: ca, ssl_enforce_hostname_verification: 'true' })).toBeInstanceOf(Error);
      expect(await check({ ssl_ca_file: '/nowhere/ca.pem' })).toMatchObject({ kind: 'invalid' });
      const external = { ssl_ca_file: ca, ssl_cert_file: cert, ssl_key_file: key, rabbit_login_method: 'EXTERNAL' };
      expect(await check(external, `rabbit://localhost:${rabbit.tlsPort}/?ssl_version=TLSv1_2`)).toBe('connected');
      expect((await readFile(ca, 'utf8')).length).toBeGreaterThan(100);
    });
  });
});
