// The request context against every context that a stock cell sent.
import { expect, it } from 'vitest';
import { RequestContext } from '#src/nova/context.ts';
import { contextOf, recordedMessages } from './recordings.ts';

const contexts = recordedMessages.map(({ message }) => contextOf(message)).filter((wire) => 'request_id' in wire);

it('propagates every recorded context unchanged', () => {
  expect(contexts.length).toBeGreaterThan(1000);
  for (const wire of contexts) {
    expect(RequestContext.fromWire(wire).toWire()).toEqual(wire);
  }
});

it('reads what the recorded contexts say', () => {
  for (const wire of contexts) {
    const context = RequestContext.fromWire(wire);

    expect(context.requestId).toBe(wire['request_id']);
    expect(context.projectId ?? null).toBe(wire['project_id']);
    expect(context.userId ?? null).toBe(wire['user_id']);
    expect(context.authToken ?? null).toBe(wire['auth_token']);
    expect(context.roles).toEqual(wire['roles']);
    expect(context.isAdmin).toBe(wire['is_admin']);
    expect(context.serviceCatalog).toEqual(wire['service_catalog']);
    expect(context.timestamp.toISOString().slice(0, 19)).toBe(String(wire['timestamp']).slice(0, 19));
  }
});

it('makes an admin context with the same keys and values as the stock compute', () => {
  const background = recordedMessages
    .filter(({ from, message }) => from.startsWith('compute-') && message['_context_user_id'] === null)
    .map(({ message }) => contextOf(message))
    .find((wire) => wire['read_deleted'] === 'no');

  const ours = RequestContext.admin().toWire();

  expect(background).toBeDefined();
  expect({ ...ours, request_id: '', timestamp: '' }).toEqual({ ...background, request_id: '', timestamp: '' });
  expect(ours['request_id']).toMatch(/^req-[0-9a-f-]{36}$/);
  expect(ours['timestamp']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/);
});
