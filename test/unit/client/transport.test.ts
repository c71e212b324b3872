// Connections that the engine closes just as they are used again.
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Transport } from '#src/client/transport.ts';

let folder: string;
let server: Server;
let transport: Transport;
let seen: string[];
const sockets = new Set<Socket>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'transport-'));
  const socketPath = join(folder, 'socket');
  seen = [];
  server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    response.end(JSON.stringify({ type: 'sync', metadata: null }));
  });
  server.on('connection', (socket: Socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  transport = new Transport({ kind: 'unix', socketPath });
});

afterEach(async () => {
  transport.close();
  closeConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true });
});

/** At once: the other end has no time to see it. */
function closeConnections(): void {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
}

it.each(['GET', 'PUT', 'POST'] as const)('a %s which did not arrive is sent again, once', async (method) => {
  await transport.request('GET', '/1.0');
  closeConnections();

  const body = method === 'GET' ? {} : { body: { action: 'start' } };
  await transport.request(method, '/1.0/instances/c1/state', body);

  expect(seen).toEqual(['GET /1.0', `${method} /1.0/instances/c1/state`]);
});

it('a stream is not: what was read of it is gone', async () => {
  await transport.request('GET', '/1.0');
  closeConnections();

  const sent = transport.request('POST', '/1.0/images', { body: Readable.from(['image']) });

  await expect(sent).rejects.toMatchObject({ kind: 'unavailable' });
});
