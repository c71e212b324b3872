// Operations: their life, and what clients see of it.
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { createEvents, EVENT_TYPES, type EngineEvent } from '#src/engine/events/events.ts';
import { onBehalfOf } from '#src/engine/events/requestor.ts';
import { createOperations, type OperationRegistry } from '#src/engine/operations/operations.ts';
import type { OperationSpec } from '#src/engine/types.ts';
import { silentLog } from '#src/lib/log.ts';
import { aborted } from '#src/lib/wait.ts';

const TASK: OperationSpec = { class: 'task', description: 'Working', resources: { images: ['/1.0/images/x'] } };
const soon = () => AbortSignal.timeout(2000);

let events: ReturnType<typeof createEvents>;
let seen: EngineEvent[];
let operations: OperationRegistry;

beforeEach(() => {
  events = createEvents();
  seen = [];
  events.subscribe({ types: new Set(EVENT_TYPES) }, (_text, event) => seen.push(event));
  operations = createOperations({ events, log: silentLog, keepMs: 50 });
});

const statuses = () => seen.map(({ metadata }) => metadata['status']);

it('runs to success, publishes every change, and is forgotten later', async () => {
  const id = operations.start(TASK, async (running) => running.setMetadata({ fingerprint: 'x' }));

  const view = await operations.wait(id, soon());

  expect(view).toMatchObject({ status: 'Success', status_code: 200, metadata: { fingerprint: 'x' }, err: '' });
  expect(statuses()).toEqual(['Running', 'Running', 'Success']);
  await delay(100);
  expect(() => operations.get(id)).toThrow('Operation not found');
});

it('keeps the error of its work', async () => {
  const id = operations.start(TASK, async () => {
    throw new Error('no room');
  });

  expect(await operations.wait(id, soon())).toMatchObject({ status: 'Failure', status_code: 400, err: 'no room' });
});

it('answers a wait that is over with the running operation', async () => {
  const id = operations.start({ ...TASK, mayCancel: true }, ({ signal }) => aborted(signal));

  expect(await operations.wait(id, AbortSignal.timeout(10))).toMatchObject({ status: 'Running' });
  operations.cancel(id);
});

describe('cancelling', () => {
  it('aborts the work and ends as cancelled', async () => {
    const id = operations.start({ ...TASK, mayCancel: true }, async ({ signal }) => {
      await aborted(signal);
      signal.throwIfAborted();
    });

    operations.cancel(id);

    expect(await operations.wait(id, soon())).toMatchObject({ status: 'Cancelled', status_code: 401 });
    expect(statuses().filter((status) => status !== undefined)).toEqual(['Running', 'Cancelling', 'Cancelled']);
  });

  it('is refused where the work cannot stop half-way, and when it has ended', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const id = operations.start(TASK, () => promise);

    expect(() => operations.cancel(id)).toThrow("This operation can't be cancelled");
    resolve();
    await operations.wait(id, soon());

    expect(() => operations.cancel(id)).toThrow('Only running operations can be cancelled');
  });
});

it('connects a websocket by its secret alone', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const taken: unknown[] = [];
  const connect = (secret: string) => (secret === 'right' ? (socket: unknown) => taken.push(socket) : undefined);
  const spec = { ...TASK, class: 'websocket', metadata: { fds: { 0: 'right' } }, connect } as OperationSpec;
  const id = operations.start(spec, () => promise);

  expect(() => operations.connect(id, 'wrong')).toThrow('not authorized');
  operations.connect(id, 'right')('socket' as never);

  expect(taken).toEqual(['socket']);
  expect([operations.hasSecret(id, 'right'), operations.hasSecret(id, '')]).toEqual([true, false]);
  resolve();
});

it('lets a token be used once', async () => {
  const spec: OperationSpec = { class: 'token', description: 'T', resources: {}, metadata: { secret: 's' } };
  const id = operations.start(spec, ({ signal }) => aborted(signal));

  expect(operations.useToken('T', 'other')).toBeUndefined();
  expect(operations.useToken('T', 's')?.id).toBe(id);

  expect(operations.useToken('T', 's')).toBeUndefined();
  expect(await operations.wait(id, soon())).toMatchObject({ status: 'Cancelled' });
});

it('drains: cancels what can be, waits for the rest, and aborts what does not end in time', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const ended = operations.start(TASK, () => promise);
  const stuck = operations.start(TASK, async ({ signal }) => {
    await aborted(signal);
    signal.throwIfAborted();
  });
  setTimeout(resolve, 20);

  await operations.drain(AbortSignal.timeout(60));

  expect(operations.get(ended).status).toBe('Success');
  expect((await operations.wait(stuck, soon())).err).toBe('shutting down');
});

describe('events', () => {
  it('go to listeners of their type and project, and those without a project to all', () => {
    const got: string[] = [];
    events.subscribe({ types: new Set(['lifecycle']), project: 'one' }, (_text, { project }) => got.push(`${project}`));

    events.publish('lifecycle', {}, 'one');
    events.publish('lifecycle', {}, 'two');
    events.publish('lifecycle', {});
    events.publish('operation', {}, 'one');

    expect(got).toEqual(['one', 'undefined']);
  });

  it('say who asked, also from work that goes on later', async () => {
    const requestor = { username: 'me', protocol: 'unix', address: '@' } as const;

    onBehalfOf(requestor, () => {
      operations.start(TASK, async () => {
        await delay(5);
        events.lifecycle({ action: 'image-created', source: '/1.0/images/x' });
      });
    });
    await delay(30);

    expect(seen.find(({ type }) => type === 'lifecycle')?.metadata).toMatchObject({ requestor });
  });
});
