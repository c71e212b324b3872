// The request context: what is propagated, what changes, what is never written.
import { describe, expect, it } from 'vitest';
import { RequestContext } from '#src/nova/context.ts';

const received = {
  request_id: 'req-1',
  user_id: 'u',
  project_id: 'p',
  roles: ['member'],
  is_admin: false,
  auth_token: 'secret',
  service_catalog: [{ type: 'image' }],
  read_deleted: 'no',
  timestamp: '2026-01-01T00:00:00.5',
  traceparent: '00-1-2-01',
  trace_info: { base_id: 'b' },
};

describe('a received context', () => {
  it('is propagated as it came, unknown keys included', () => {
    expect(RequestContext.fromWire(received).toWire()).toEqual(received);
  });

  it('gets a timestamp that Python can read when it had none', () => {
    for (const timestamp of [undefined, null, '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00']) {
      const wire = RequestContext.fromWire({ ...received, timestamp }).toWire();

      expect(wire['timestamp']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/);
    }
    expect(RequestContext.fromWire(received).timestamp).toEqual(new Date('2026-01-01T00:00:00.500Z'));
  });

  it('defaults what is missing', () => {
    const context = RequestContext.fromWire({});

    expect(context).toMatchObject({ requestId: '', isAdmin: false, roles: [], readDeleted: 'no', serviceCatalog: [] });
    expect(context.authToken).toBeUndefined();
    expect(context.projectId).toBeUndefined();
    expect(RequestContext.fromWire({ user: 'u', project: 'p' })).toMatchObject({ userId: 'u', projectId: 'p' });
  });
});

describe('a changed context', () => {
  it('leaves the one it was made from alone', () => {
    const context = RequestContext.fromWire(received);

    const elevated = context.elevated();

    expect(elevated.toWire()).toEqual({ ...received, is_admin: true, roles: ['member', 'admin'] });
    expect(elevated.elevated().roles).toEqual(['member', 'admin']);
    expect(context.withReadDeleted('yes').readDeleted).toBe('yes');
    expect(context.toWire()).toEqual(received);
  });

  it('for notifications has no secrets', () => {
    const wire = RequestContext.fromWire(received).redacted().toWire();

    expect(wire).toMatchObject({ auth_token: null, request_id: 'req-1' });
    expect(wire).not.toHaveProperty('service_catalog');
  });
});

it('a log shows no secret', () => {
  expect(JSON.stringify(RequestContext.fromWire(received))).toBe('{"requestId":"req-1","projectId":"p","userId":"u"}');
});

it('every admin context is a request of its own', () => {
  expect(RequestContext.admin().requestId).not.toBe(RequestContext.admin().requestId);
});
