// The listeners with real connections: the unix socket, TLS and its certificates, websockets, slow and silent clients.
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { HttpServer } from '#src/api/http-server.ts';
import { loadServerCertificate, type ServerCertificate } from '#src/engine/certificates/server-certificate.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { aborted } from '#src/lib/wait.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

let test: TestEngine;
let server: HttpServer;
let socketPath: string;

beforeEach(async () => {
  test = await startTestEngine();
  const { app, upgrades, engine } = test;
  socketPath = engine.context.paths.socket;
  const certificate = engine.serverCertificate;
  server = new HttpServer({ app, upgrades, log: silentLog, socketPath, certificate, address: undefined });
  engine.config.onAddress((address) => server.setAddress(address));
  await server.start();
});
afterEach(async () => {
  await server.stop(AbortSignal.timeout(1000));
  await test[Symbol.asyncDispose]();
});

async function answer(request: ReturnType<typeof httpRequest>, body?: string) {
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return {
    status: response.statusCode,
    body: JSON.parse(await text(response)) as { metadata: unknown; error: string },
  };
}

const unix = (path: string, options: RequestOptions = {}, body?: string) =>
  answer(httpRequest({ socketPath, path, ...options }), body);

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  return port;
}

describe('the unix socket', () => {
  it('may be used by its owner and group alone', async () => {
    expect((await stat(socketPath)).mode & 0o777).toBe(0o660);
    expect((await unix('/1.0')).status).toBe(200);
  });

  it('takes the place of one that a killed daemon left', async () => {
    const path = join(test.root, 'left.socket');
    const stale = createServer().listen(path);
    await once(stale, 'listening');
    const { app, upgrades, engine } = test;
    const { serverCertificate: certificate } = engine;
    const second = new HttpServer({ app, upgrades, log: silentLog, socketPath: path, certificate, address: undefined });

    await second.start();

    expect((await answer(httpRequest({ socketPath: path, path: '/1.0' }))).status).toBe(200);
    await second.stop(AbortSignal.timeout(1000));
    stale.close();
  });

  it('refuses a body that has no end before it has cost memory', async () => {
    const request = httpRequest({ socketPath, path: '/1.0/profiles', method: 'POST' });
    request.on('error', () => undefined);
    const responded = once(request, 'response') as Promise<[IncomingMessage]>;
    const chunk = Buffer.alloc(1 << 20, 0x20);
    for (let sent = 0; sent < 8 && !request.destroyed; sent++) {
      request.write(chunk);
      await delay(5);
    }

    const [response] = await responded;

    expect(response.statusCode).toBe(413);
    request.destroy();
  });
});

describe('TLS', () => {
  let port: number;
  let client: ServerCertificate;

  const tls = (path: string, options: RequestOptions & { cert?: string; key?: string } = {}, body?: string) =>
    answer(httpsRequest({ host: '127.0.0.1', port, path, rejectUnauthorized: false, agent: false, ...options }), body);

  beforeEach(async () => {
    port = await freePort();
    client = await loadServerCertificate(new LinuxHost(), test.engine.context.paths.backups, 'client');
    await test.engine.config.update({ 'core.https_address': `127.0.0.1:${port}`, 'core.trust_password': 'right' });
  });

  const own = () => ({ cert: client.certificate, key: client.key });

  it('serves strangers little, and all to whom the password made trusted, until that ends', async () => {
    expect((await tls('/1.0/profiles', own())).status).toBe(403);
    const body = JSON.stringify({ type: 'client', password: 'right', name: 'me' });

    const added = await tls('/1.0/certificates', { ...own(), method: 'POST' }, body);

    expect(added.status).toBe(201);
    expect(test.engine.certificates.list()).toMatchObject([{ name: 'me', fingerprint: client.fingerprint }]);
    expect((await tls('/1.0/profiles', own())).status).toBe(200);
    expect((await tls('/1.0/profiles')).status).toBe(403);
    test.engine.certificates.delete(client.fingerprint);
    expect((await tls('/1.0/profiles', own())).status).toBe(403);
  });

  it('keeps the old address when the new one is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port: taken } = other.address() as { port: number };

    const body = JSON.stringify({ config: { 'core.https_address': `127.0.0.1:${taken}` } });
    const refused = await unix('/1.0', { method: 'PATCH' }, body);

    expect(refused.status).toBe(400);
    expect(refused.body.error).toContain('EADDRINUSE');
    expect((await tls('/1.0')).status).toBe(200);
    expect(test.engine.config.listenAddress()).toEqual({ host: '127.0.0.1', port });
    other.close();
  });

  it('ends with its address', async () => {
    await test.engine.config.update({ 'core.https_address': '' });

    await expect(tls('/1.0')).rejects.toThrow('ECONNREFUSED');
  });
});

describe('websockets', () => {
  const open = (path: string) => new WebSocket(`ws+unix:${socketPath}:${path}`);

  async function refusal(socket: WebSocket): Promise<number | undefined> {
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
    return response.statusCode;
  }

  it('carry the events that were asked for', async () => {
    const socket = open('/1.0/events?type=lifecycle');
    await once(socket, 'open');
    const received = once(socket, 'message') as Promise<[Buffer]>;

    await unix('/1.0/profiles', { method: 'POST' }, '{"name":"p"}');

    expect(JSON.parse((await received)[0].toString())).toMatchObject({
      type: 'lifecycle',
      location: 'none',
      project: 'default',
      metadata: { action: 'profile-created', source: '/1.0/profiles/p', requestor: { protocol: 'unix', address: '@' } },
    });
    socket.close();
  });

  it('are refused before the upgrade: unknown types, paths, operations', async () => {
    expect(await refusal(open('/1.0/events?type=nope'))).toBe(400);
    expect(await refusal(open('/1.0/nothing'))).toBe(404);
    expect(await refusal(open('/1.0/operations/x/websocket?secret=y'))).toBe(404);
    expect(await refusal(open('/1.0/operations/%zz/websocket'))).toBe(400);
  });

  it('connect to an operation by its secret', async () => {
    const sockets: WebSocket[] = [];
    const id = test.engine.operations.start(
      {
        class: 'websocket',
        description: 'Executing command',
        resources: {},
        connect: (secret) => (secret === 'right' ? (socket) => sockets.push(socket) : undefined),
      },
      ({ signal }) => aborted(signal),
    );

    expect(await refusal(open(`/1.0/operations/${id}/websocket?secret=wrong`))).toBe(403);
    const socket = open(`/1.0/operations/${id}/websocket?secret=right`);
    await once(socket, 'open');
    const echoed = once(socket, 'message') as Promise<[Buffer]>;
    sockets[0]?.send('hello');

    expect((await echoed)[0].toString()).toBe('hello');
    socket.close();
    test.engine.operations.cancel(id);
  });

  it('are closed when their client does not read', async () => {
    const raw: Socket = createConnection(socketPath);
    raw.on('error', () => undefined);
    raw.write(
      [
        'GET /1.0/events HTTP/1.1',
        'Host: x',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        '',
        '',
      ].join('\r\n'),
    );
    await once(raw, 'data');
    raw.pause();
    const filler = 'x'.repeat(64 << 10);

    for (let sent = 0; sent < 200; sent++) {
      test.engine.events.publish('lifecycle', { filler }, 'default');
      await delay(1);
    }

    raw.resume();
    await once(raw, 'close');
    expect(raw.bytesRead).toBeLessThan(8 << 20);
  });
});
