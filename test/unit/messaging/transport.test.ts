// Client, server, publisher and connection together, over a broker in memory.
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { silentLog, type Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import { parseRabbitOptions } from '#src/messaging/options.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import type { RpcEndpoint, RpcHandler, RpcServerOptions, RpcTransport } from '#src/messaging/types.ts';
import { amqpError, FakeBroker, wrap } from '#test/fakes/fake-broker.ts';

const HEX = /^[0-9a-f]{32}$/;
const to = { topic: 'compute', server: 'h1', version: '6.0' };
const never = new AbortController().signal;

let broker: FakeBroker;
let transport: RpcTransport;
let logged: string[];

const log: Log = {
  ...silentLog,
  warn: (message, fields) => logged.push(`${message} ${JSON.stringify(fields)}`),
  error: (message, fields) => logged.push(`${message} ${JSON.stringify(fields)}`),
};

function connect(raw: Record<string, string> = {}, transportUrl = 'rabbit://u:secret@h/'): RpcTransport {
  const rabbit = parseRabbitOptions({ kombu_reconnect_delay: '0', ...raw });
  return createRpcTransport({ transportUrl, rabbit, log, programName: 'nova-compute' }, () => broker.dial);
}

async function serve(
  methods: Record<string, RpcHandler>,
  options: Partial<RpcServerOptions> = {},
  over = transport,
): Promise<Service> {
  const endpoints: RpcEndpoint[] = [{ version: '6.5', methods }];
  const server = over.server({ topic: 'compute', server: 'h1', endpoints, ...options });
  await server.start(never);
  return server;
}

beforeEach(() => {
  broker = new FakeBroker();
  logged = [];
  transport = connect();
});

afterEach(async () => {
  await transport.close();
  vi.useRealTimers();
});

describe('calls', () => {
  it('cost one publish and one reply, and carry what the contract names', async () => {
    await serve({ echo: (context, args) => Promise.resolve({ context, args }) });
    const request = { target: to, method: 'echo', args: { a: [1, null] }, context: { request_id: 'req-1', roles: [] } };
    const answer = await transport.client().call(request);
    expect(answer).toEqual({ context: request.context, args: request.args });
    expect(broker.published).toHaveLength(2);
    const [sent, reply] = broker.published;
    expect(sent).toMatchObject({ exchange: 'nova', routingKey: 'compute.h1' });
    expect(sent?.options).toEqual({
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      deliveryMode: 2,
      priority: 0,
      headers: {},
      mandatory: false,
      expiration: '60000',
    });
    const [payload] = broker.payloads('compute.h1');
    expect(payload).toEqual({
      method: 'echo',
      args: request.args,
      version: '6.0',
      _msg_id: expect.stringMatching(HEX) as string,
      _reply_q: reply?.routingKey,
      _timeout: null,
      _unique_id: expect.stringMatching(HEX) as string,
      _context_request_id: 'req-1',
      _context_roles: [],
    });
    expect(reply).toMatchObject({ exchange: '', options: { mandatory: true } });
    expect(reply?.options).not.toHaveProperty('expiration');
    expect(broker.payloads(reply?.routingKey ?? '')).toEqual([
      {
        result: answer,
        failure: null,
        ending: true,
        _msg_id: payload?.['_msg_id'],
        _unique_id: expect.stringMatching(HEX) as string,
      },
    ]);
  });

  it('use one reply queue and never send where they consume', async () => {
    await serve({ ping: () => Promise.resolve(undefined) });
    const client = transport.client();
    const call = { target: to, method: 'ping', args: {}, context: {} };
    const answers = await Promise.all(Array.from({ length: 50 }, () => client.call(call)));
    expect(new Set(answers)).toEqual(new Set([null]));
    expect([...broker.queues.keys()].filter((name) => name.startsWith('reply_'))).toHaveLength(1);
    expect(broker.dials).toHaveLength(3); // server, replies, send
  });

  it('reject with the exception of the peer', async () => {
    const failure = {
      class: 'InstanceNotFound',
      module: 'nova.exception',
      message: 'gone',
      tb: [],
      args: ['gone'],
      kwargs: { code: 404 },
    };
    await serve({ fail: () => Promise.reject(new Error('internal')) }, { serializeFailure: () => failure });
    const rejection = transport.client().call({ target: to, method: 'fail', args: {}, context: {} });
    await expect(rejection).rejects.toThrow(RemoteError);
    await expect(rejection).rejects.toMatchObject({ remoteClass: 'InstanceNotFound', kwargs: { code: 404 } });
  });

  it('hear of a result that is no JSON, and of a serializer that fails', async () => {
    const broken = (): never => {
      throw new Error('no');
    };
    await serve(
      { big: () => Promise.resolve(1n), fail: () => Promise.reject(new Error('x')) },
      { serializeFailure: broken },
    );
    const call = (method: string) => transport.client().call({ target: to, method, args: {}, context: {} });
    await expect(call('big')).rejects.toMatchObject({ remoteClass: 'RuntimeError', remoteModule: 'builtins' });
    await expect(call('fail')).rejects.toMatchObject({ remoteClass: 'RuntimeError', remoteMessage: 'x' });
  });

  it('time out, stop by signal, and end when the transport closes', async () => {
    await serve({ hang: () => new Promise(() => {}) });
    const call = (options: object) =>
      transport.client().call({ target: to, method: 'hang', args: {}, context: {} }, options);
    await expect(call({ timeoutMs: 30 })).rejects.toThrow("no reply to hang from 'compute.h1' within 0.03 s");
    const abort = new AbortController();
    const stopped = call({ signal: abort.signal });
    abort.abort(new Error('not wanted'));
    await expect(stopped).rejects.toThrow('not wanted');
    await expect(call({ signal: abort.signal })).rejects.toThrow('not wanted');
    const closed = call({});
    await new Promise((resolve) => setTimeout(resolve, 10));
    await transport.close();
    await expect(closed).rejects.toMatchObject({ kind: 'unavailable' });
    await expect(call({})).rejects.toMatchObject({ kind: 'unavailable' });
  });

  it('time out while there is no broker', async () => {
    broker.onDial = () => {
      throw new Error('refused');
    };
    const call = transport.client({ timeoutMs: 50 }).call({ target: to, method: 'x', args: {}, context: {} });
    await expect(call).rejects.toMatchObject({ kind: 'unavailable' });
    expect(logged.join()).not.toContain('secret');
  });

  it('accept payload and ending in two messages, and ignore what nobody waits for', async () => {
    const call = transport.client().call({ target: to, method: 'x', args: {}, context: {} });
    await vi.waitFor(() => expect(broker.published).toHaveLength(1));
    const [request] = broker.payloads('compute.h1');
    const queue = String(request?.['_reply_q']);
    const msgId = request?.['_msg_id'];
    broker.send('', queue, Buffer.from('no json'));
    broker.send('', queue, { result: 1, failure: null, ending: true, _msg_id: 'other' });
    broker.send('', queue, { result: { a: 1 }, failure: null, ending: false, _msg_id: msgId });
    broker.send('', queue, { result: null, failure: null, ending: true, _msg_id: msgId });
    expect(await call).toEqual({ a: 1 });
    expect(broker.calls).toContain(`reject ${queue} requeue=false`);
  });
});

describe('call monitoring', () => {
  it('keeps a long call alive on both sides', async () => {
    vi.useFakeTimers();
    await serve({ slow: () => new Promise((resolve) => setTimeout(() => resolve('done'), 299_000)) });
    const options = { timeoutMs: 1_800_000, monitorMs: 60_000 };
    const call = transport.client().call({ target: to, method: 'slow', args: {}, context: {} }, options);
    await vi.advanceTimersByTimeAsync(300_000);
    expect(await call).toBe('done');
    const [request] = broker.payloads('compute.h1');
    expect(request?.['_timeout']).toBe(60);
    const beats = broker.payloads(String(request?.['_reply_q'])).filter((reply) => reply['ending'] === false);
    expect(beats).toHaveLength(9);
    expect(Object.keys(beats[0] ?? {})).toEqual(['result', 'failure', 'ending', '_msg_id', '_unique_id']);
    await vi.advanceTimersByTimeAsync(120_000);
    expect(broker.published).toHaveLength(11);
  });

  it('gives up on a server that is silent', async () => {
    vi.useFakeTimers();
    broker.queues.set('compute.h1', { durable: false, autoDelete: false, arguments: {}, messages: [] });
    const options = { timeoutMs: 1_800_000, monitorMs: 60_000 };
    const call = transport.client().call({ target: to, method: 'x', args: {}, context: {} }, options);
    const rejection = expect(call).rejects.toThrow('within 60 s');
    await vi.advanceTimersByTimeAsync(61_000);
    await rejection;
  });

  it('is not sent when the caller does not ask with a whole number', async () => {
    vi.useFakeTimers();
    await serve({ slow: () => new Promise((resolve) => setTimeout(resolve, 100_000)) });
    broker.queues.set('reply_x', { durable: false, autoDelete: false, arguments: {}, messages: [] });
    for (const _timeout of [null, 0, 1, 'soon', -4]) {
      broker.send('nova', 'compute.h1', {
        method: 'slow',
        args: {},
        version: '6.0',
        _msg_id: 'm',
        _reply_q: 'reply_x',
        _timeout,
      });
    }
    await vi.advanceTimersByTimeAsync(99_000);
    expect(broker.payloads('reply_x')).toEqual([]);
    await vi.advanceTimersByTimeAsync(2000);
    expect(broker.payloads('reply_x')).toHaveLength(5);
  });
});

describe('a server', () => {
  const cast = (method: string, more: object = {}): object => ({ method, args: {}, version: '6.0', ...more });

  it('listens on topic, host and fanout', async () => {
    const seen: unknown[] = [];
    await serve({ note: (_context, args) => Promise.resolve(void seen.push(args['n'])) });
    const client = transport.client();
    const { topic, version } = to;
    await client.cast({ target: to, method: 'note', args: { n: 'host' }, context: {} });
    await client.cast({ target: { topic, version }, method: 'note', args: { n: 'topic' }, context: {} });
    await client.cast({ target: { topic, version, fanout: true }, method: 'note', args: { n: 'fanout' }, context: {} });
    await vi.waitFor(() => expect(seen).toEqual(['host', 'topic', 'fanout']));
    expect(broker.published.map(({ exchange, routingKey }) => [exchange, routingKey])).toEqual([
      ['nova', 'compute.h1'],
      ['nova', 'compute'],
      ['compute_fanout', ''],
    ]);
    for (const payload of broker.published) expect(JSON.stringify(payload)).not.toContain('_msg_id');
  });

  it('never answers a cast', async () => {
    await serve({});
    broker.send('nova', 'compute.h1', cast('unknown'));
    await vi.waitFor(() => expect(logged.join()).toContain('request failed'));
    expect(broker.published).toEqual([]);
  });

  it('chooses the endpoint by namespace and version, in order', async () => {
    const answer = (text: string) => () => Promise.resolve(text);
    const endpoints = [
      { version: '6.5', methods: { a: answer('six') } },
      { version: '5.13', methods: { a: answer('five'), b: answer('old') } },
      { version: '1.2', namespace: 'other', methods: { a: answer('other') } },
      { version: '6.4', methods: { a: answer('second'), c: answer('c') } },
    ];
    await serve({}, { endpoints, pingEnabled: true });
    const call = (method: string, version: string, namespace?: string) =>
      transport.client().call({
        target: { ...to, version, ...(namespace ? { namespace } : {}) },
        method,
        args: { arg: 7 },
        context: {},
      });
    expect(await call('a', '6.0')).toBe('six');
    expect(await call('c', '6.4')).toBe('c');
    expect(await call('a', '5.0')).toBe('five');
    expect(await call('a', '1.0', 'other')).toBe('other');
    expect(await call('ping', '1.0', 'baseapi')).toEqual({ service: 'compute', arg: 7 });
    expect(await call('get_backdoor_port', '1.1', 'baseapi')).toBeNull();
    expect(await call('oslo_rpc_server_ping', '1.0')).toBe('pong');
    const dispatcher = 'oslo_messaging.rpc.dispatcher';
    await expect(call('b', '6.0')).rejects.toMatchObject({ remoteClass: 'NoSuchMethod', remoteModule: dispatcher });
    await expect(call('toString', '6.0')).rejects.toMatchObject({ remoteClass: 'NoSuchMethod' });
    await expect(call('a', '7.0')).rejects.toMatchObject({
      remoteClass: 'UnsupportedVersion',
      remoteModule: dispatcher,
    });
    await expect(call('a', '1.3', 'other')).rejects.toMatchObject({ remoteClass: 'UnsupportedVersion' });
    await expect(call('a', '6.0', 'nowhere')).rejects.toMatchObject({ remoteClass: 'UnsupportedVersion' });
  });

  it('refuses methods that start with an underscore, and the ping that is not enabled', async () => {
    await serve({ _hidden: () => Promise.resolve('seen') });
    const call = (method: string, version: string) =>
      transport.client().call({ target: { ...to, version }, method, args: {}, context: {} });
    await expect(call('_hidden', '6.0')).rejects.toMatchObject({ remoteClass: 'NoSuchMethod' });
    await expect(call('oslo_rpc_server_ping', '1.0')).rejects.toMatchObject({ remoteClass: 'UnsupportedVersion' });
  });

  it('ignores a repetition among the last 16 messages', async () => {
    const seen: unknown[] = [];
    await serve({ note: (_context, args) => Promise.resolve(void seen.push(args['n'])) });
    const note = (n: number): object => ({ ...cast('note'), args: { n }, _unique_id: `id-${n}` });
    for (const n of [0, 0, 1, 0]) broker.send('nova', 'compute.h1', note(n));
    for (let n = 2; n <= 16; n += 1) broker.send('nova', 'compute.h1', note(n));
    broker.send('nova', 'compute.h1', note(0));
    await vi.waitFor(() => expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0]));
  });

  it('rejects what is malformed and goes on', async () => {
    await serve({ ok: () => Promise.resolve('ok') });
    broker.send('nova', 'compute.h1', Buffer.from('{"broken'));
    broker.send('nova', 'compute.h1', wrap({}), { contentType: 'application/x-python-serialize' });
    expect(broker.calls.filter((call) => call === 'reject compute.h1 requeue=false')).toHaveLength(2);
    expect(await transport.client().call({ target: to, method: 'ok', args: {}, context: {} })).toBe('ok');
  });

  it('runs so many requests at a time', async () => {
    let running = 0;
    let most = 0;
    const work: RpcHandler = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running -= 1;
    };
    await serve({ work }, { concurrency: 3 });
    const client = transport.client();
    await Promise.all(
      Array.from({ length: 10 }, () => client.call({ target: to, method: 'work', args: {}, context: {} })),
    );
    expect(most).toBe(3);
  });

  it('stops consuming first, then waits for what is in flight, then deletes its fanout queue', async () => {
    const gate = Promise.withResolvers<string>();
    const server = await serve({ work: () => gate.promise });
    const call = transport.client().call({ target: to, method: 'work', args: {}, context: {} });
    await vi.waitFor(() => expect(broker.payloads('compute.h1')).toHaveLength(1));
    const stopped = server.stop(never);
    await vi.waitFor(() => expect(broker.calls.filter((line) => line.startsWith('cancel'))).toHaveLength(3));
    broker.send('nova', 'compute.h1', cast('later'));
    expect(broker.queues.get('compute.h1')?.messages).toHaveLength(1);
    gate.resolve('in time');
    expect(await call).toBe('in time');
    await stopped;
    expect([...broker.queues.keys()].filter((name) => name.startsWith('compute'))).toEqual(['compute', 'compute.h1']);
    expect(broker.exchanges.has('compute_fanout')).toBe(false);
  });

  it('aborts handlers when the grace time is over', async () => {
    const seen = vi.fn();
    const work: RpcHandler = (_context, _args, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          seen();
          reject(signal.reason as Error);
        });
      });
    const server = await serve({ work });
    broker.send('nova', 'compute.h1', cast('work'));
    await server.stop(AbortSignal.timeout(20));
    expect(seen).toHaveBeenCalledOnce();
  });

  it('keeps the queues that the queue manager named, and consumes with the options given', async () => {
    const raw = {
      use_queue_manager: 'true',
      hostname: `t${process.pid}`,
      rabbit_qos_prefetch_count: '7',
      enable_cancel_on_failover: 'true',
    };
    const managed = connect(raw);
    const server = await serve({}, {}, managed);
    const name = [...broker.queues.keys()].find((queue) => queue.startsWith('compute_fanout_')) ?? '';
    expect(name).toMatch(/^compute_fanout_t\d+:nova-compute:\d+$/);
    expect(broker.calls).toContain('prefetch 7');
    expect(broker.queues.get(name)?.consumer?.arguments).toEqual({ 'x-cancel-on-ha-failover': true });
    await server.stop(never);
    await managed.close();
    expect(broker.queues.has(name)).toBe(true);
    rmSync(`/dev/shm/t${process.pid}_nova-compute_qmanager`);
  });
});

describe('replies', () => {
  const request = { method: 'ok', args: {}, version: '6.0', _msg_id: 'm', _reply_q: 'reply_late' };

  it('are tried every quarter second until the queue is back', async () => {
    vi.useFakeTimers();
    await serve({ ok: () => Promise.resolve('ok') });
    broker.send('nova', 'compute.h1', request);
    await vi.advanceTimersByTimeAsync(1000);
    expect(broker.published).toHaveLength(5);
    broker.queues.set('reply_late', { durable: false, autoDelete: false, arguments: {}, messages: [] });
    await vi.advanceTimersByTimeAsync(1000);
    expect(broker.published).toHaveLength(6);
    expect(broker.queues.get('reply_late')?.messages).toHaveLength(1);
  });

  it('are dropped after 60 s, and at once for a minute to the same queue', async () => {
    vi.useFakeTimers();
    await serve({ ok: () => Promise.resolve('ok') });
    broker.send('nova', 'compute.h1', request);
    await vi.advanceTimersByTimeAsync(61_000);
    const tries = broker.published.length;
    expect(tries).toBeGreaterThan(235);
    expect(tries).toBeLessThan(245);
    expect(logged.join()).toContain('reply dropped');
    broker.send('nova', 'compute.h1', request);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(broker.published).toHaveLength(tries);
    await vi.advanceTimersByTimeAsync(60_000);
    broker.send('nova', 'compute.h1', request);
    await vi.advanceTimersByTimeAsync(10);
    expect(broker.published).toHaveLength(tries + 1);
  });
});

describe('a lost connection', () => {
  const cast = { target: to, method: 'note', args: {}, context: {} };

  it('is made again: queues declared, consumed and answered as before', async () => {
    await serve({ ok: () => Promise.resolve('ok') });
    const client = transport.client();
    const call = { target: to, method: 'ok', args: {}, context: {} };
    await client.call(call);
    const queues = [...broker.queues.keys()];
    broker.queues.clear();
    broker.exchanges.clear();
    broker.drop();
    expect(await client.call(call)).toBe('ok');
    expect([...broker.queues.keys()].sort()).toEqual(queues.sort());
  });

  it('sends unconfirmed messages again, the same bytes', async () => {
    await serve({ note: () => Promise.resolve() });
    broker.confirms = false;
    const sent = transport.client().cast(cast);
    await vi.waitFor(() => expect(broker.published).toHaveLength(1));
    broker.confirms = true;
    broker.drop();
    await sent;
    expect(broker.published).toHaveLength(2);
    expect(broker.published[1]?.content.equals(broker.published[0]?.content ?? Buffer.of())).toBe(true);
  });

  it('is followed by the other brokers in turn, with a growing wait', async () => {
    vi.useFakeTimers();
    transport = connect({}, 'rabbit://a:1,b:2/');
    broker.onDial = () => {
      throw new Error('refused');
    };
    const waiting = transport.client().cast(cast);
    waiting.catch(() => {});
    await vi.advanceTimersByTimeAsync(10);
    expect(new Set(broker.dials.map(({ host }) => host))).toEqual(new Set(['a', 'b']));
    await vi.advanceTimersByTimeAsync(980);
    expect(broker.dials).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(20);
    expect(broker.dials).toHaveLength(4);
    await vi.advanceTimersByTimeAsync(3010);
    expect(broker.dials).toHaveLength(6);
    broker.onDial = () => {};
    await vi.advanceTimersByTimeAsync(5000);
    await waiting;
  });

  it('does not keep a transport from closing while it is dialled', async () => {
    const { promise, resolve } = Promise.withResolvers<never>();
    const slow = createRpcTransport({ transportUrl: '', log, programName: 'x' }, () => () => promise);
    const sent = slow.client().cast(cast);
    await Promise.all([expect(sent).rejects.toMatchObject({ kind: 'unavailable' }), slow.close()]);
    resolve((await broker.dial({ host: 'late', port: 1, username: '', password: '' })) as never);
    await vi.waitFor(() => expect(broker.connections.size).toBe(0));
  });

  it('waits kombu_reconnect_delay before the first attempt', async () => {
    transport = connect({ kombu_reconnect_delay: '2' });
    await serve({});
    vi.useFakeTimers();
    const dials = broker.dials.length;
    broker.drop();
    await vi.advanceTimersByTimeAsync(1999);
    expect(broker.dials).toHaveLength(dials);
    await vi.advanceTimersByTimeAsync(1);
    expect(broker.dials).toHaveLength(dials + 1);
  });

  it('is what a consumer cancelled by the broker means', async () => {
    await serve({ ok: () => Promise.resolve('ok') });
    broker.loseQueue('compute.h1');
    await vi.waitFor(() => expect(broker.queues.get('compute.h1')?.consumer).toBeDefined());
  });
});

describe('a message that the broker refuses', () => {
  it('fails alone: those beside it are sent again', async () => {
    const client = transport.client();
    const cast = (method: string) => client.cast({ target: to, method, args: {}, context: {} });
    await cast('first');
    broker.onPublish = ({ content }) => {
      // no word of hexadecimal digits: ids are random
      if (content.includes('too-large')) throw amqpError(406, 'PRECONDITION_FAILED - too large');
      if (content.includes('secret')) throw amqpError(403, 'ACCESS_REFUSED - topic');
    };
    const answers = await Promise.allSettled(['good', 'too-large', 'secret', 'fine'].map(cast));
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
    expect(answers[1]).toMatchObject({ reason: { kind: 'invalid' } });
    expect(answers[2]).toMatchObject({ reason: { kind: 'forbidden' } });
    await cast('after');
  });
});

describe('declarations', () => {
  it('take a non-durable exchange as it is, and nothing else', async () => {
    broker.exchanges.set('nova', { type: 'topic', durable: false, autoDelete: false, bindings: [] });
    transport = connect({ amqp_durable_queues: 'true' });
    await serve({ ok: () => Promise.resolve('ok') });
    expect(await transport.client().call({ target: to, method: 'ok', args: {}, context: {} })).toBe('ok');
    expect(broker.exchanges.get('nova')?.durable).toBe(false);
    expect(broker.queues.get('compute.h1')?.durable).toBe(true);
  });

  it('that contradict the broker end the start with a word of advice', async () => {
    broker.queues.set('compute.h1', { durable: true, autoDelete: false, arguments: {}, messages: [] });
    const start = serve({});
    await expect(start).rejects.toMatchObject({ kind: 'conflict' });
    await expect(start).rejects.toThrow(/compute\.h1.*make \[oslo_messaging_rabbit\] the same/);
  });

  it('that contradict the broker fail a cast, too', async () => {
    broker.exchanges.set('nova', { type: 'topic', durable: true, autoDelete: true, bindings: [] });
    const sent = transport.client().cast({ target: to, method: 'x', args: {}, context: {} });
    await expect(sent).rejects.toMatchObject({ kind: 'conflict' });
  });

  it('that are forbidden end the start', async () => {
    broker.onDeclare = (what) => {
      if (what === 'queue compute') throw amqpError(403, 'ACCESS_REFUSED');
    };
    await expect(serve({})).rejects.toMatchObject({ kind: 'forbidden' });
  });

  it('of a queue whose node is dead delete it first', async () => {
    let failures = 1;
    broker.onDeclare = (what) => {
      if (what === 'queue compute.h1' && failures-- > 0) throw amqpError(404, 'NOT_FOUND - home node down');
    };
    await serve({});
    expect(broker.calls).toContain('delete queue compute.h1');
    expect(broker.queues.get('compute.h1')?.consumer).toBeDefined();
  });

  it('wait 2 s after an internal error, and replace a quorum queue', async () => {
    vi.useFakeTimers();
    transport = connect({ rabbit_quorum_queue: 'true' });
    let failures = 1;
    broker.onDeclare = (what) => {
      if (what === 'queue compute.h1' && failures-- > 0) throw amqpError(541, 'INTERNAL_ERROR');
    };
    const started = serve({});
    await vi.advanceTimersByTimeAsync(2900);
    expect(broker.calls).not.toContain('delete queue compute.h1');
    await vi.advanceTimersByTimeAsync(200);
    await started;
    expect(broker.calls).toContain('delete queue compute.h1');
  });

  it('of an exchange that vanished are repeated without disturbing other messages', async () => {
    const client = transport.client();
    const fanout = { target: { topic: 'scheduler', version: '4.2', fanout: true }, method: 'x', args: {}, context: {} };
    await client.cast(fanout);
    broker.exchanges.delete('scheduler_fanout');
    await Promise.all([client.cast(fanout), client.cast({ target: to, method: 'x', args: {}, context: {} })]);
    expect(broker.payloads('compute.h1')).toHaveLength(1);
    expect(broker.exchanges.has('scheduler_fanout')).toBe(true);
  });
});

describe('the transport', () => {
  it('refuses unknown options in the URL and takes the known ones', async () => {
    expect(() => connect({}, 'rabbit://h/?rabbit_quorum=1')).toThrow(AppError);
    const durable = connect({}, 'rabbit://h/?amqp_durable_queues=true');
    await serve({}, {}, durable);
    expect(broker.queues.get('compute')?.durable).toBe(true);
    await durable.close();
  });

  it('compresses when asked', async () => {
    transport = connect({ kombu_compression: 'gzip' });
    await serve({ ok: (_context, args) => Promise.resolve(args) });
    expect(await transport.client().call({ target: to, method: 'ok', args: { a: 1 }, context: {} })).toEqual({ a: 1 });
    expect(broker.published.map(({ options }) => options['headers'])).toEqual([
      { compression: 'application/x-gzip' },
      { compression: 'application/x-gzip' },
    ]);
  });

  it('reads a shared stream from the last message on', async () => {
    const raw = {
      rabbit_stream_fanout: 'true',
      rabbit_transient_quorum_queue: 'true',
      rabbit_qos_prefetch_count: '10',
    };
    transport = connect(raw);
    const seen: unknown[] = [];
    const server = await serve({ note: (_context, args) => Promise.resolve(void seen.push(args['n'])) });
    expect(broker.queues.get('compute_fanout')?.consumer?.arguments).toEqual({ 'x-stream-offset': 'last' });
    const headers = { 'x-stream-offset': 41 };
    broker.send('compute_fanout', '', { method: 'note', args: { n: 1 }, version: '6.0' }, { headers });
    await vi.waitFor(() => expect(seen).toEqual([1]));
    broker.drop();
    await vi.waitFor(() => {
      expect(broker.queues.get('compute_fanout')?.consumer?.arguments).toEqual({ 'x-stream-offset': 42 });
    });
    await server.stop(never);
    expect(broker.queues.has('compute_fanout')).toBe(true);
  });
});
