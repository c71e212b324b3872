// Listens on $LIGHTER_DIR/devlxd/sock, whose directory every instance has as /dev/lxd. Callers are known by their process.
import { chmod, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { WebSocketServer } from 'ws';
import type { Engine } from '#src/engine/engine.ts';
import type { InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import type { DevlxdEvent, DevlxdGuest } from '#src/engine/instances/devlxd.ts';
import { devlxdDirectory } from '#src/engine/instances/devlxd-mount.ts';
import { peerCredentials } from '#src/host/peer-credentials.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import { createDevlxd, requireGuest } from './devlxd-routes.ts';
import { GuestConnections } from './guest-connections.ts';

/** So many connections at a time in all. */
const MAX_CONNECTIONS = 4096;
const HEADERS_MS = 10_000;
/** Of events that a listener does not take. */
const MAX_BUFFERED = 1024 * 1024;
const MODE = 0o666;

export class DevlxdServer implements Service {
  readonly name = 'devlxd';
  readonly #engine: Engine<InstancesOfEngine>;
  readonly #app: FastifyInstance;
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 1024 });
  /** Who connected: looked up once, while the process is still there. */
  readonly #keys = new WeakMap<Duplex, DevlxdGuest['record'] | undefined>();
  readonly #connections = new GuestConnections();
  #server: Server | undefined;

  constructor(engine: Engine<InstancesOfEngine>) {
    this.#engine = engine;
    this.#app = createDevlxd({
      guestOf: (request) => this.#guestOf(request),
      image: (guest, fingerprint) => this.#image(guest, fingerprint),
      streamEvents: (guest, request, reply) => this.#stream(guest, request, reply),
    });
  }

  async start(): Promise<void> {
    await this.#app.ready();
    const path = join(devlxdDirectory(this.#engine.context.paths), 'sock');
    await rm(path, { force: true });
    const server = createServer({ headersTimeout: HEADERS_MS }, (request, response) => {
      this.#app.routing(request, response);
    });
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connection', (socket) => this.#receive(socket));
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(path, () => resolve());
    });
    await chmod(path, MODE);
    this.#server = server;
  }

  async stop(): Promise<void> {
    for (const client of this.#sockets.clients) client.terminate();
    const closed = new Promise<void>((resolve) => {
      if (this.#server) this.#server.close(() => resolve());
      else resolve();
    });
    this.#server?.closeAllConnections();
    await closed;
    await this.#app.close();
  }

  #receive(socket: Socket): void {
    const guest = this.#identify(socket);
    this.#keys.set(socket, guest);
    if (!this.#connections.admit(guest?.id, socket)) socket.destroy();
  }

  #identify(socket: Socket): DevlxdGuest['record'] | undefined {
    const peer = peerCredentials(socket);
    return peer && this.#engine.instances.devlxd.guestOf(peer.pid)?.record;
  }

  /** As it is now. */
  #guestOf({ socket }: IncomingMessage): DevlxdGuest | undefined {
    const known = this.#keys.get(socket);
    const guest = known && this.#engine.instances.devlxd.guest(known.project, known.name);
    return guest?.record.id === known?.id ? guest : undefined;
  }

  async #image({ record }: DevlxdGuest, fingerprint: string) {
    const { images } = this.#engine;
    const image = images.resolve(record.project, { fingerprint });
    if (image.fingerprint !== fingerprint || !(image.isPublic || image.cached)) {
      throw new AppError('not_found', 'Image not found');
    }
    return { image, files: await images.files.find(image.fingerprint) };
  }

  #stream(guest: DevlxdGuest, request: FastifyRequest, reply: FastifyReply): void {
    const types = wantedTypes(request.raw);
    reply.raw.writeHead(200, { 'content-type': 'application/json' });
    reply.raw.flushHeaders();
    const subscription = this.#engine.instances.devlxd.subscribe(guest.record, (event) => {
      if (!types.has(event.type)) return;
      if (reply.raw.writableLength > MAX_BUFFERED) reply.raw.destroy();
      else reply.raw.write(`${JSON.stringify(event)}\n`);
    });
    reply.raw.once('close', () => subscription[Symbol.dispose]());
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    try {
      if (request.url?.split('?', 1)[0] !== '/1.0/events') throw new AppError('not_found', 'not found');
      const guest = requireGuest({ guestOf: () => this.#guestOf(request) }, request);
      const types = wantedTypes(request);
      this.#sockets.handleUpgrade(request, socket, head, (websocket) => {
        const subscription = this.#engine.instances.devlxd.subscribe(guest.record, (event) => {
          if (!types.has(event.type)) return;
          if (websocket.bufferedAmount > MAX_BUFFERED) websocket.terminate();
          else websocket.send(JSON.stringify(event));
        });
        websocket.on('error', () => websocket.terminate());
        websocket.once('close', () => subscription[Symbol.dispose]());
      });
    } catch (error) {
      socket.end(`HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n${messageOf(error)}\n`);
    }
  }
}

function wantedTypes({ url = '' }: IncomingMessage): ReadonlySet<DevlxdEvent['type']> {
  const asked = new URL(url, 'http://instance').searchParams.get('type');
  return new Set((asked === null || asked === '' ? 'config,device' : asked).split(',') as DevlxdEvent['type'][]);
}
