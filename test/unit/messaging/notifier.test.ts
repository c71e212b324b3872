import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { silentLog, type LogFields } from '#src/lib/log.ts';
import { parseRabbitOptions } from '#src/messaging/options.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import type { NotifierOptions, RpcTransport } from '#src/messaging/types.ts';
import { FakeBroker, unwrap } from '#test/fakes/fake-broker.ts';

const context = {
  user_id: 'u',
  request_id: 'req-1',
  auth_token: 'secret',
  service_catalog: [1],
  remote_address: '::1',
};
const notification = {
  context,
  eventType: 'compute.instance.create.end',
  priority: 'INFO',
  payload: { a: 1 },
} as const;
const options: NotifierOptions = { drivers: ['messagingv2'], topics: ['notifications'], publisherId: 'compute.h1' };

let broker: FakeBroker;
let transport: RpcTransport;
let logged: [string, LogFields | undefined][];

beforeEach(() => {
  broker = new FakeBroker();
  logged = [];
  const log = {
    ...silentLog,
    info: (message: string, fields?: LogFields) => void logged.push([message, fields]),
    warn: (message: string, fields?: LogFields) => void logged.push([message, fields]),
  };
  const rabbit = parseRabbitOptions({ kombu_reconnect_delay: '0' });
  transport = createRpcTransport({ transportUrl: '', rabbit, log, programName: 'nova-compute' }, () => broker.dial);
});

afterEach(async () => {
  await transport.close();
  vi.useRealTimers();
});

const soon = (): AbortSignal => AbortSignal.timeout(1000);

describe('notifications', () => {
  it('are what oslo sends, the context stripped, the queue declared before', async () => {
    const notifier = transport.notifier(options);
    notifier.notify(notification);
    await notifier.flush(soon());
    expect(broker.published).toMatchObject([{ exchange: 'nova', routingKey: 'notifications.info' }]);
    expect(broker.queues.get('notifications.info')?.messages).toHaveLength(1);
    const [payload] = broker.payloads('notifications.info');
    expect(payload).toEqual({
      message_id: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/) as string,
      publisher_id: 'compute.h1',
      event_type: 'compute.instance.create.end',
      priority: 'INFO',
      payload: { a: 1 },
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$/) as string,
      _unique_id: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
      _context_user_id: 'u',
      _context_request_id: 'req-1',
    });
  });

  it('have no envelope with the driver messaging, and go to every topic', async () => {
    const notifier = transport.notifier({ ...options, drivers: ['messaging'], topics: ['a', 'b'] });
    notifier.notify({ ...notification, priority: 'ERROR' });
    await notifier.flush(soon());
    expect(broker.published.map(({ routingKey }) => routingKey)).toEqual(['a.error', 'b.error']);
    expect(JSON.parse(broker.published[0]?.content.toString() ?? '')).toMatchObject({ priority: 'ERROR' });
  });

  it('go nowhere without a driver, and refuse an unknown one', () => {
    for (const driver of ['noop', 'test']) transport.notifier({ ...options, drivers: [driver] }).notify(notification);
    transport.notifier({ ...options, drivers: [] }).notify(notification);
    expect(broker.dials).toEqual([]);
    expect(() => transport.notifier({ ...options, drivers: ['routing'] })).toThrow("'routing' is not supported");
  });

  it('are logged without secrets by the driver log', () => {
    const payload = { admin_pass: 'hidden', deep: { token: 'hidden', name: 'x' } };
    transport.notifier({ ...options, drivers: ['log'] }).notify({ ...notification, payload });
    expect(logged).toHaveLength(1);
    expect(JSON.stringify(logged)).toContain('name');
    expect(JSON.stringify(logged)).not.toMatch(/hidden|secret/);
  });

  it('never wait: beyond the limit the oldest are dropped', async () => {
    vi.useFakeTimers();
    broker.onDial = () => {
      throw new Error('refused');
    };
    const notifier = transport.notifier({ ...options, queueLimit: 10 });
    for (let n = 0; n < 100; n += 1) notifier.notify({ ...notification, payload: { n } });
    await vi.advanceTimersByTimeAsync(10);
    broker.onDial = () => {};
    await vi.advanceTimersByTimeAsync(5000);
    const seen = broker.published.map(({ content }) => (unwrap(content)['payload'] as { n: number }).n);
    // 32 were on their way, the last 10 waited
    expect(seen).toEqual([...Array.from({ length: 32 }, (_, n) => n), ...Array.from({ length: 10 }, (_, n) => 90 + n)]);
    expect(logged.map(([message]) => message)).toContain('notification dropped');
  });

  it('are given up after the configured retries', async () => {
    vi.useFakeTimers();
    broker.onDial = () => {
      throw new Error('refused');
    };
    const notifier = transport.notifier({ ...options, retry: 1 });
    notifier.notify(notification);
    await vi.advanceTimersByTimeAsync(1100);
    await notifier.flush(soon());
    expect(broker.dials).toHaveLength(2);
    expect(logged.map(([message]) => message)).toContain('notification dropped');
  });

  it('may have a broker of their own', async () => {
    const notifier = transport.notifier({ ...options, transportUrl: 'rabbit://n:p@elsewhere/' });
    notifier.notify(notification);
    await notifier.flush(soon());
    expect(broker.dials.map(({ host }) => host)).toEqual(['elsewhere']);
  });
});
