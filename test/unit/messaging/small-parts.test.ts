import { mkdtempSync, mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import type { AmqpConnection } from '#src/messaging/amqp.ts';
import { isRemote } from '#src/messaging/errors.ts';
import { decodeFailure, encodeFailure, plainFailure } from '#src/messaging/failure.ts';
import { Heartbeat } from '#src/messaging/heartbeat.ts';
import { Limiter } from '#src/messaging/limiter.ts';
import { parseRabbitOptions } from '#src/messaging/options.ts';
import { queueNames } from '#src/messaging/queue-names.ts';
import { ExpiringIds, RecentIds } from '#src/messaging/recent-ids.ts';

describe('recent ids', () => {
  it('remembers the last ones only', () => {
    const ids = new RecentIds(2);
    expect([ids.add('a'), ids.add('b'), ids.add('a'), ids.add('c'), ids.add('a')]).toEqual([
      true,
      true,
      false,
      true,
      true,
    ]);
  });

  it('forgets after the time, or when there are too many', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const ids = new ExpiringIds(2, 60_000);
    ids.add('a');
    vi.advanceTimersByTime(59_999);
    expect(ids.has('a')).toBe(true);
    vi.advanceTimersByTime(1);
    expect(ids.has('a')).toBe(false);
    for (const id of ['b', 'c', 'd']) ids.add(id);
    expect(['b', 'c', 'd'].map((id) => ids.has(id))).toEqual([false, true, true]);
    vi.useRealTimers();
  });
});

describe('limiter', () => {
  it('runs so many at a time, the rest in order, and says when all is done', async () => {
    const limiter = new Limiter(2);
    const started: number[] = [];
    const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<void>());
    gates.forEach(({ promise }, index) => {
      limiter.run(async () => {
        started.push(index);
        await promise;
      });
    });
    expect(started).toEqual([0, 1]);
    gates[1]?.resolve();
    await vi.waitFor(() => expect(started).toEqual([0, 1, 2]));
    let isIdle = false;
    const idle = limiter.idle().then(() => {
      isIdle = true;
    });
    for (const { resolve } of gates) resolve();
    expect(isIdle).toBe(false);
    await idle;
    expect(started).toEqual([0, 1, 2, 3]);
    expect(limiter.size).toBe(0);
    await limiter.idle();
  });
});

describe('heartbeat', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function watched(raw: Record<string, string>) {
    const connection = { bytesReceived: 0, destroy: vi.fn() };
    const onSilence = vi.fn();
    const rabbit = parseRabbitOptions(raw);
    const heartbeat = new Heartbeat(connection as unknown as AmqpConnection, rabbit, onSilence);
    return { connection, onSilence, heartbeat };
  }

  it('ends a connection after an interval without a byte', () => {
    const { connection, onSilence } = watched({ heartbeat_timeout_threshold: '60', heartbeat_rate: '2' });
    for (let beat = 0; beat < 10; beat += 1) {
      connection.bytesReceived += 8;
      vi.advanceTimersByTime(30_000);
    }
    expect(onSilence).not.toHaveBeenCalled();
    vi.advanceTimersByTime(60_000);
    expect(onSilence).not.toHaveBeenCalled();
    vi.advanceTimersByTime(30_000);
    expect(onSilence).toHaveBeenCalledOnce();
    expect(connection.destroy).toHaveBeenCalledOnce();
  });

  it('is off with a threshold of 0, and after stop', () => {
    const off = watched({ heartbeat_timeout_threshold: '0' });
    const stopped = watched({});
    stopped.heartbeat.stop();
    vi.advanceTimersByTime(3_600_000);
    expect(off.onSilence).not.toHaveBeenCalled();
    expect(stopped.onSilence).not.toHaveBeenCalled();
  });
});

describe('failures', () => {
  const failure = {
    class: 'InstanceNotFound',
    module: 'nova.exception',
    message: 'Instance X could not be found.',
    tb: ['Traceback'],
    args: ['Instance X could not be found.'],
    kwargs: { code: 404, secret: 'hidden' },
  };

  it('go there and back', () => {
    const remote = decodeFailure(encodeFailure(failure));
    expect(isRemote(remote, 'InstanceNotFound')).toBe(true);
    expect(isRemote(remote, 'Other')).toBe(false);
    expect(isRemote(new Error('x'), 'Error')).toBe(false);
    expect(plainFailure(remote)).toEqual(failure);
  });

  it('keep arguments and traceback out of logs', () => {
    expect(JSON.stringify(Object.entries(decodeFailure(encodeFailure(failure))))).not.toMatch(/hidden|Traceback/);
  });

  it('lose _Remote when both class and module have it', () => {
    const remote = { ...failure, class: 'InstanceNotFound_Remote', module: 'nova.exception_Remote' };
    expect(decodeFailure(encodeFailure(remote))).toMatchObject({
      remoteClass: 'InstanceNotFound',
      remoteModule: 'nova.exception',
    });
    const half = { ...failure, class: 'Odd_Remote' };
    expect(decodeFailure(encodeFailure(half)).remoteClass).toBe('Odd_Remote');
  });

  it.each(['no json', '"text"', '[]', '{"class": 5, "tb": 1, "args": {}, "kwargs": []}'])(
    'are read however broken: %s',
    (text) => {
      expect(decodeFailure(text)).toMatchObject({ remoteClass: 'RemoteError', args: [], kwargs: {}, tb: [] });
    },
  );

  it('of our own are builtins', () => {
    expect(plainFailure(new AppError('unsupported', 'no'))).toMatchObject({
      class: 'NotImplementedError',
      module: 'builtins',
      args: ['no'],
    });
    expect(plainFailure(new Error('broken'))).toMatchObject({ class: 'RuntimeError', message: 'broken' });
    expect(plainFailure('text')).toMatchObject({ class: 'RuntimeError', message: 'text' });
  });
});

describe('queue names', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'names-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const managed = (): ReturnType<typeof queueNames> => {
    const rabbit = parseRabbitOptions({ use_queue_manager: 'true', hostname: 'h1' });
    return queueNames({ rabbit, programName: '/usr/bin/nova-compute', folder });
  };

  it('are random without the queue manager', () => {
    const names = queueNames({ rabbit: parseRabbitOptions({}), programName: 'nova-compute', folder });
    expect(names.next()).toMatch(/^[0-9a-f]{32}$/);
    expect(names.next()).not.toBe(names.next());
  });

  it('count up over all users of the file', () => {
    expect([managed().next(), managed().next()]).toEqual(['h1:nova-compute:1', 'h1:nova-compute:2']);
    expect(readFileSync(join(folder, 'h1_nova-compute_qmanager'), 'utf8')).toMatch(/^\d+:2:\d+$/);
  });

  it('start again in a new process group', () => {
    writeFileSync(join(folder, 'h1_nova-compute_qmanager'), '1:41:12345\n');
    expect(managed().next()).toBe('h1:nova-compute:1');
  });

  it('break the lock of a process that was killed', () => {
    const lock = join(folder, 'h1_nova-compute_qmanager.lock');
    mkdirSync(lock);
    utimesSync(lock, 1000, 1000);
    expect(managed().next()).toBe('h1:nova-compute:1');
  });
});
