// Tokens, endpoints, retries: against a scripted server on loopback.
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findEndpoint, fromLegacyCatalog, KeystoneSession, OpenStackError, ServiceClient } from '../src/index.ts';

interface Asked {
  readonly line: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: unknown;
}
type Answer = { status?: number; headers?: Record<string, string>; body?: unknown; hangUp?: boolean };

let asked: Asked[];
let answers: Map<string, Answer[]>;
const server = createServer((request, response) => {
  let text = '';
  request.on('data', (chunk) => {
    text += String(chunk);
  });
  request.on('end', () => {
    const line = `${request.method} ${request.url}`;
    asked.push({ line, headers: request.headers, body: text === '' ? undefined : JSON.parse(text) });
    const queue = answers.get(line) ?? [{ status: 404, body: { error: { message: `no ${line}` } } }];
    const answer = (queue.length > 1 ? queue.shift() : queue[0]) ?? {};
    if (answer.hangUp) return request.socket.destroy();
    response.writeHead(answer.status ?? 200, { 'content-type': 'application/json', ...answer.headers });
    return response.end(JSON.stringify(answer.body ?? {}));
  });
});
let url: string;

beforeEach(async () => {
  asked = [];
  answers = new Map();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function token(id: string, expiresAt = new Date(Date.now() + 3_600_000)): Answer {
  const endpoints = [
    { interface: 'public', region: 'RegionOne', url: `${url}/public` },
    { interface: 'internal', region: 'RegionTwo', url: `${url}/two` },
    { interface: 'internal', region: 'RegionOne', url: `${url}/one/` },
  ];
  const body = {
    token: {
      expires_at: expiresAt.toISOString(),
      user: { id: 'u1' },
      project: { id: 'p1' },
      roles: [{ name: 'service' }],
      catalog: [{ type: 'network', name: 'neutron', endpoints }],
    },
  };
  return { status: 201, headers: { 'x-subject-token': id }, body };
}

const auth = () =>
  ({
    type: 'password',
    authUrl: url,
    user: { name: 'nova', domainName: 'Default' },
    password: 'secret',
    project: { name: 'service', domainId: 'default' },
  }) as const;

const clientOf = (session: KeystoneSession) =>
  new ServiceClient({
    endpoint: { serviceType: 'network', region: 'RegionOne' },
    tokens: session,
    connectRetryDelayMs: 1,
  });

describe('KeystoneSession', () => {
  it('authenticates with a password, once for many callers', async () => {
    answers.set('POST /v3/auth/tokens', [token('t1')]);
    const session = new KeystoneSession({ auth: auth() });

    const tokens = await Promise.all([session.getToken(), session.getToken(), session.getToken()]);

    expect(tokens.map(({ id }) => id)).toEqual(['t1', 't1', 't1']);
    expect(asked).toHaveLength(1);
    expect(asked[0]?.body).toEqual({
      auth: {
        identity: {
          methods: ['password'],
          password: { user: { name: 'nova', domain: { name: 'Default' }, password: 'secret' } },
        },
        scope: { project: { name: 'service', domain: { id: 'default' } } },
      },
    });
  });

  it('renews a token before it ends', async () => {
    answers.set('POST /v3/auth/tokens', [token('t1', new Date(1_000_000)), token('t2', new Date(9_000_000))]);
    let now = 0;
    const session = new KeystoneSession({ auth: auth(), renewalMarginMs: 60_000, now: () => now });

    const first = await session.getToken();
    now = 939_999;
    const second = await session.getToken();
    now = 940_001;
    const third = await session.getToken();

    expect([first.id, second.id, third.id]).toEqual(['t1', 't1', 't2']);
  });

  it('says that credentials are wrong without showing them', async () => {
    answers.set('POST /v3/auth/tokens', [
      { status: 401, body: { error: { message: 'The request needs authentication' } } },
    ]);
    const session = new KeystoneSession({ auth: auth() });

    const error = await session.getToken().catch((reason: unknown) => reason);

    expect(error).toBeInstanceOf(OpenStackError);
    expect(error).toMatchObject({ kind: 'unauthorized', status: 401 });
    expect(JSON.stringify(error) + String(error)).not.toContain('secret');
  });

  it.each([
    [
      { type: 'application_credential', id: 'ac1', secret: 's' },
      { id: 'ac1', secret: 's' },
    ],
    [
      { type: 'application_credential', name: 'ac', user: { id: 'u' }, secret: 's' },
      { name: 'ac', user: { id: 'u' }, secret: 's' },
    ],
  ] as const)('authenticates with an application credential %#', async (credential, body) => {
    answers.set('POST /v3/auth/tokens', [token('t1')]);

    await new KeystoneSession({ auth: { ...credential, authUrl: `${url}/v3` } }).getToken();

    expect(asked[0]?.body).toEqual({
      auth: { identity: { methods: ['application_credential'], application_credential: body } },
    });
  });

  it('tries again after a failure', async () => {
    answers.set('POST /v3/auth/tokens', [{ status: 503 }, token('t1')]);
    const session = new KeystoneSession({ auth: auth() });

    await expect(session.getToken()).rejects.toMatchObject({ kind: 'unavailable' });

    expect((await session.getToken()).id).toBe('t1');
  });
});

describe('ServiceClient', () => {
  it('uses the preferred interface of the region', async () => {
    answers.set('POST /v3/auth/tokens', [token('t1')]);
    answers.set('GET /one/v2.0/ports?device_id=i1&fields=id&fields=name', [{ body: { ports: [] } }]);

    const response = await clientOf(new KeystoneSession({ auth: auth() })).request({
      method: 'GET',
      path: '/v2.0/ports',
      query: { device_id: 'i1', fields: ['id', 'name'] },
      requestId: 'req-1',
    });

    expect(response.data).toEqual({ ports: [] });
    expect(asked[1]?.headers).toMatchObject({ 'x-auth-token': 't1', 'x-openstack-request-id': 'req-1' });
  });

  it('authenticates anew once when its own token is refused', async () => {
    answers.set('POST /v3/auth/tokens', [token('t1'), token('t2')]);
    answers.set('GET /one/x', [{ status: 401 }, { body: { ok: true } }]);

    const response = await clientOf(new KeystoneSession({ auth: auth() })).request({ method: 'GET', path: '/x' });

    expect(response.data).toEqual({ ok: true });
    expect(asked.map(({ headers }) => headers['x-auth-token'])).toEqual([undefined, 't1', undefined, 't2']);
  });

  it("gives up when a user's token is refused", async () => {
    answers.set('GET /x', [{ status: 401 }]);
    const client = new ServiceClient({ endpoint: { serviceType: 'image', override: url } });

    await expect(client.request({ method: 'GET', path: '/x', token: 'users' })).rejects.toMatchObject({ status: 401 });

    expect(asked).toHaveLength(1);
  });

  it('sends the service token along', async () => {
    answers.set('POST /v3/auth/tokens', [token('s1')]);
    answers.set('GET /x', [{ body: {} }]);
    const serviceTokens = new KeystoneSession({ auth: auth() });
    const client = new ServiceClient({ endpoint: { serviceType: 'image', override: url }, serviceTokens });

    await client.request({ method: 'GET', path: '/x', token: 'users' });

    expect(asked[1]?.headers).toMatchObject({ 'x-auth-token': 'users', 'x-service-token': 's1' });
  });

  it('asks again when the connection broke, but never sends a POST twice', async () => {
    answers.set('GET /x', [{ hangUp: true }, { hangUp: true }, { body: { ok: 1 } }]);
    answers.set('POST /x', [{ hangUp: true }, { body: {} }]);
    const client = new ServiceClient({ endpoint: { serviceType: 'image', override: url }, connectRetryDelayMs: 1 });

    const response = await client.request({ method: 'GET', path: '/x', token: 't' });

    expect(response.data).toEqual({ ok: 1 });
    await expect(client.request({ method: 'POST', path: '/x', token: 't', body: {} })).rejects.toMatchObject({
      kind: 'unavailable',
    });
    expect(asked.filter(({ line }) => line === 'POST /x')).toHaveLength(1);
  });

  it.each([
    [
      { errors: [{ code: 'placement.concurrent_update', detail: 'generation' }] },
      'placement.concurrent_update',
      'generation',
    ],
    [{ NeutronError: { type: 'IpAddressInUse', message: 'in use' } }, 'IpAddressInUse', 'in use'],
  ])('quotes code and message of a refusal %#', async (body, code, message) => {
    answers.set('PUT /x', [{ status: 409, body }]);
    const client = new ServiceClient({ endpoint: { serviceType: 'any', override: url } });

    const error: unknown = await client.request({ method: 'PUT', path: '/x', token: 't' }).catch((e: unknown) => e);

    expect(error).toMatchObject({ kind: 'conflict', status: 409, code });
    expect(String(error)).toContain(message);
  });

  it('says what is missing in the catalogue', async () => {
    answers.set('POST /v3/auth/tokens', [token('t1')]);
    const tokens = new KeystoneSession({ auth: auth() });
    const client = new ServiceClient({ endpoint: { serviceType: 'image', region: 'RegionOne' }, tokens });

    await expect(client.request({ method: 'GET', path: '/x' })).rejects.toThrow(
      'image: no internal or public endpoint in region RegionOne in the service catalogue',
    );
  });

  it('stops at once when the caller goes away', async () => {
    const caller = new AbortController();
    caller.abort(new Error('gone'));
    const client = new ServiceClient({ endpoint: { serviceType: 'any', override: url } });

    await expect(client.request({ method: 'GET', path: '/x', token: 't', signal: caller.signal })).rejects.toThrow(
      'gone',
    );
  });
});

describe('findEndpoint', () => {
  it("reads the v2-style catalogue of a request's context", () => {
    const catalog = fromLegacyCatalog([
      { type: 'image', name: 'glance', endpoints: [{ region: 'R', publicURL: 'http://p/', internalURL: 'http://i' }] },
      'garbage',
    ]);

    expect(findEndpoint(catalog, { serviceType: 'image' })).toBe('http://i');
    expect(findEndpoint(catalog, { serviceType: 'image', interfaces: ['public'] })).toBe('http://p');
    expect(findEndpoint(catalog, { serviceType: 'image', region: 'S' })).toBeUndefined();
  });
});
