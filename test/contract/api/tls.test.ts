// The TLS listeners: certificates of their kinds, metrics, proxies, browsers, and peers that mean no good.
import { once } from 'node:events';
import type { IncomingMessage, RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect, createServer } from 'node:net';
import { text } from 'node:stream/consumers';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { callerFrom } from '#src/api/callers.ts';
import { createApi } from '#src/api/create-api.ts';
import { HttpServer } from '#src/api/http-server.ts';
import { registerRoutes } from '#src/api/register-routes.ts';
import { loadServerCertificate, type ServerCertificate } from '#src/engine/certificates/server-certificate.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

let test: TestEngine;
let server: HttpServer;
let port: number;
let client: ServerCertificate;

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port: free } = probe.address() as { port: number };
  probe.close();
  return free;
}

beforeEach(async () => {
  test = await startTestEngine();
  const { engine, upgrades } = test;
  const proxied = new Map<string, string>();
  const callerOf = callerFrom(engine.context.database, { proxied });
  const app = createApi({ log: silentLog, callerOf, projectExists: () => true, config: engine.config });
  app.addHook('onSend', async (request, reply) => {
    // A browser's question before the request has no caller.
    const caller = request.caller as typeof request.caller | undefined;
    if (caller) void reply.header('x-caller', caller.requestor.address);
  });
  const instanceRoutes = { extensions: [], register: () => undefined };
  registerRoutes(app, { engine, upgrades, instanceRoutes, shutdown: async () => undefined });
  server = new HttpServer({
    app,
    upgrades,
    log: silentLog,
    socketPath: engine.context.paths.socket,
    certificate: engine.serverCertificate,
    address: undefined,
    trustedProxies: () => engine.config.text('core.https_trusted_proxy').split(','),
    proxied,
  });
  engine.config.onAddress((address) => server.setAddress(address));
  engine.config.onMetricsAddress((address) => server.setMetricsAddress(address));
  await server.start();
  port = await freePort();
  client = await loadServerCertificate(new LinuxHost(), engine.context.paths.backups, 'client');
  await engine.config.update({ 'core.https_address': `127.0.0.1:${port}` });
});
afterEach(async () => {
  await server.stop(AbortSignal.timeout(1000));
  await test[Symbol.asyncDispose]();
});

type Options = RequestOptions & { cert?: string; key?: string; port?: number };

async function call(path: string, options: Options = {}, body?: string) {
  const request = httpsRequest({ host: '127.0.0.1', port, path, rejectUnauthorized: false, agent: false, ...options });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

const own = () => ({ cert: client.certificate, key: client.key });

function trust(type: string, restricted = false): void {
  const certificate = client.certificate.replaceAll(/-----[A-Z ]+-----/gu, '');
  test.engine.certificates.add({ name: 'me', type, certificate, restricted, projects: [] });
}

describe('metrics', () => {
  it('are for trusted clients and certificates for metrics, which open nothing else', async () => {
    expect((await call('/1.0/metrics', own())).status).toBe(403);

    trust('metrics');

    const answer = await call('/1.0/metrics', own());
    expect(answer).toMatchObject({ status: 200, headers: { 'content-type': 'text/plain; charset=utf-8' } });
    expect(answer.body).toMatch(/^lxd_operations_total 0$/mu);
    expect(answer.body.endsWith('# EOF\n')).toBe(true);
    expect((await call('/1.0/profiles', own())).status).toBe(403);
  });

  it('have an address of their own, and are open when the operator says so', async () => {
    const metricsPort = await freePort();
    await test.engine.config.update({ 'core.metrics_address': `127.0.0.1:${metricsPort}` });

    expect((await call('/1.0/metrics', { port: metricsPort })).status).toBe(403);
    await test.engine.config.update({ 'core.metrics_authentication': false });

    expect((await call('/1.0/metrics', { port: metricsPort })).status).toBe(200);
    for (const path of ['/1.0', '/1.0/profiles', '/']) {
      const answer = await call(path, { ...own(), port: metricsPort });
      expect(answer.body).toContain('"error_code":404');
    }
    await test.engine.config.update({ 'core.metrics_address': '' });
    await expect(call('/1.0/metrics', { port: metricsPort })).rejects.toThrow('ECONNREFUSED');
  });
});

describe('an address', () => {
  it('may be said in other words, and takes its port over', async () => {
    await test.engine.config.update({ 'core.https_address': `[::]:${port}` });
    expect((await call('/1.0')).status).toBe(200);

    await test.engine.config.update({ 'core.https_address': `127.0.0.1:${port}` });

    expect((await call('/1.0')).status).toBe(200);
    expect(test.engine.config.view()['core.https_address']).toBe(`127.0.0.1:${port}`);
  });
});

describe('a restricted client', () => {
  const update = (body: object) =>
    call(`/1.0/certificates/${client.fingerprint}`, { ...own(), method: 'PATCH' }, JSON.stringify(body));

  it('may replace its own certificate, and nothing else of it', async () => {
    trust('client', true);
    const next = await loadServerCertificate(new LinuxHost(), test.engine.context.paths.logs, 'next');

    for (const change of [{ restricted: false }, { name: 'x' }, { projects: ['default'] }]) {
      expect(await update(change)).toMatchObject({ status: 403 });
    }
    expect((await update({ certificate: next.certificate })).status).toBe(200);

    expect(test.engine.certificates.list()).toMatchObject([
      { name: 'me', fingerprint: next.fingerprint, restricted: true },
    ]);
    expect((await call('/1.0/projects', own())).status).toBe(403);
    expect((await call('/1.0/projects', { cert: next.certificate, key: next.key })).body).toContain('"metadata":[]');
  });

  it('does not touch those of others', async () => {
    trust('client', true);
    const other = await loadServerCertificate(new LinuxHost(), test.engine.context.paths.logs, 'other');
    const certificate = other.certificate.replaceAll(/-----[A-Z ]+-----/gu, '');
    test.engine.certificates.add({ name: 'o', type: 'client', certificate, restricted: false, projects: [] });

    const url = `/1.0/certificates/${other.fingerprint}`;
    const body = JSON.stringify({ certificate: client.certificate });

    expect((await call(url, { ...own(), method: 'PATCH' }, body)).status).toBe(403);
    expect((await call(url, { ...own(), method: 'DELETE' })).status).toBe(403);
  });
});

describe('a trust token', () => {
  const ask = (body: object) => test.app.inject({ method: 'POST', url: '/1.0/certificates', payload: body });

  it('is given for clients alone, while they can reach the server', async () => {
    expect((await ask({ token: true, type: 'metrics' })).json()).toMatchObject({
      error_code: 400,
      error: 'Tokens can only be issued for client certificates',
    });
    expect((await ask({ token: true, certificate: 'x' })).json()).toMatchObject({
      error: "Can't use certificate if token is requested",
    });
    await test.engine.config.update({ 'core.https_address': '' });
    expect((await ask({ token: true, name: 'x' })).json()).toMatchObject({
      error: "Can't issue token when server isn't listening on network",
    });
  });

  it('grants what it was made for, not what its holder asks for', async () => {
    const made = (await ask({ token: true, name: 'foo', restricted: true, projects: ['default'] })).json<{
      metadata: { metadata: { secret: string } };
    }>();
    const { secret } = made.metadata.metadata;
    const body = JSON.stringify({ password: secret, restricted: false, projects: ['default', 'x'] });

    expect((await call('/1.0/certificates', { ...own(), method: 'POST' }, body)).status).toBe(201);
    expect((await call('/1.0/certificates', { ...own(), method: 'POST' }, body)).status).not.toBe(201);

    expect(test.engine.certificates.list()).toMatchObject([{ name: 'foo', restricted: true, projects: ['default'] }]);
  });
});

describe('browsers', () => {
  const origin = { headers: { origin: 'https://ui.example' } };

  it('are told what was configured, before trust is asked for', async () => {
    expect((await call('/1.0', origin)).headers).not.toHaveProperty('access-control-allow-origin');

    await test.engine.config.update({
      'core.https_allowed_origin': 'https://ui.example',
      'core.https_allowed_methods': 'GET, PUT',
      'core.https_allowed_headers': 'Content-Type',
      'core.https_allowed_credentials': true,
    });

    const expected = {
      'access-control-allow-origin': 'https://ui.example',
      'access-control-allow-methods': 'GET, PUT',
      'access-control-allow-headers': 'Content-Type',
      'access-control-allow-credentials': 'true',
    };
    expect((await call('/1.0', origin)).headers).toMatchObject(expected);
    const question = await call('/1.0/profiles', { ...origin, method: 'OPTIONS' });
    expect(question).toMatchObject({ status: 200, headers: expected });
    expect((await call('/1.0')).headers).not.toHaveProperty('access-control-allow-origin');
  });
});

describe('a trusted proxy', () => {
  async function addressSeen(header: string): Promise<string> {
    const raw = connect(port, '127.0.0.1');
    raw.write(header);
    const socket = connectTls({ socket: raw, rejectUnauthorized: false });
    socket.on('error', () => undefined);
    socket.write('GET /1.0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    const answer = await text(socket).catch(() => '');
    return /^x-caller: (.*)\r$/imu.exec(answer)?.[1] ?? '';
  }
  const HEADER = 'PROXY TCP4 192.0.2.7 127.0.0.1 4711 8443\r\n';

  it('says where clients come from; others do not', async () => {
    expect(await addressSeen(HEADER)).toBe('');

    await test.engine.config.update({ 'core.https_trusted_proxy': '10.9.9.9,127.0.0.1' });

    expect(await addressSeen(HEADER)).toBe('192.0.2.7:4711');
    expect(await addressSeen('')).toMatch(/^127\.0\.0\.1:\d+$/u);
    expect(await addressSeen('PROXY nonsense\r\n')).toBe('');
  });
});

describe('strangers', () => {
  it('do not send large bodies', async () => {
    const body = JSON.stringify({ password: 'x'.repeat(100_000) });

    expect((await call('/1.0/certificates', { ...own(), method: 'POST' }, body)).status).toBe(413);
  });

  it('do not send large heads', async () => {
    const answer = await call('/1.0', { headers: { 'x-large': 'x'.repeat(100_000) } }).catch(() => ({ status: 431 }));

    expect(answer.status).toBe(431);
  });

  it('that never begin to speak TLS keep nobody out', async () => {
    const silent = Array.from({ length: 50 }, () => connect(port, '127.0.0.1').on('error', () => undefined));

    expect((await call('/1.0')).status).toBe(200);

    for (const socket of silent) socket.destroy();
  });
});
