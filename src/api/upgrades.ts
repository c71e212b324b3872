// Websockets and other upgrades: which paths take an upgrade, who may, and what a slow or silent peer costs.
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { onBehalfOf } from '#src/engine/events/requestor.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Caller } from './app.ts';
import { errorBody, statusOf } from './envelope.ts';
import { pathPattern } from './path-table.ts';

export interface UpgradeRequest {
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly caller: Caller;
}

/** Decides before the upgrade (by throwing) and takes the connection after it. */
export type UpgradeHandler = (request: UpgradeRequest) => (socket: WebSocket) => void;

/** Decides before the upgrade, as above, and has the bare connection after it. */
export type RawHandler = (request: UpgradeRequest) => (connection: Duplex) => void;

export interface UpgradesOptions {
  readonly callerOf: (request: IncomingMessage) => Caller;
  readonly log: Log;
}

/** One message of a client: exec input and window sizes, nothing near this. */
const MAX_MESSAGE_BYTES = 4 << 20;
const PING_MS = 30_000;

/** Emits `closing` when either side says that it closes: some clients leave the connection itself open for long after that. */
class ServerSocket extends WebSocket {
  override close(code?: number, data?: string | Buffer): void {
    super.close(code, data);
    this.emit('closing');
  }
}

export class Upgrades {
  readonly #routes: { readonly pattern: RegExp; readonly handler: UpgradeHandler }[] = [];
  readonly #rawRoutes: { readonly pattern: RegExp; readonly protocol: string; readonly handler: RawHandler }[] = [];
  readonly #connections = new Set<Duplex>();
  readonly #callerOf: UpgradesOptions['callerOf'];
  readonly #log: Log;
  readonly #server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE_BYTES,
    WebSocket: ServerSocket,
  });

  constructor({ callerOf, log }: UpgradesOptions) {
    this.#callerOf = callerOf;
    this.#log = log;
  }

  /** `path` as routes have it: /1.0/operations/:id/websocket. Untrusted callers come through: the handler looks. */
  add(path: string, handler: UpgradeHandler): void {
    this.#routes.push({ pattern: pathPattern(path), handler });
  }

  /** For an upgrade to another protocol than websockets, named in the header `Upgrade`. */
  addRaw(path: string, protocol: string, handler: RawHandler): void {
    this.#rawRoutes.push({ pattern: pathPattern(path), protocol, handler });
  }

  handle(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', (error) => this.#log.debug('websocket connection failed', { url: request.url, error }));
    try {
      const protocol = request.headers.upgrade ?? '';
      const raw = this.#rawRoutes.filter((route) => route.protocol === protocol);
      if (raw.length > 0) {
        this.#takeRaw(this.#find(request, raw), { protocol, socket, head });
        return;
      }
      const take = this.#find(request, this.#routes);
      this.#server.handleUpgrade(request, socket, head, (websocket) => {
        websocket.on('error', (error) => this.#log.debug('websocket failed', { error }));
        keepAlive(websocket);
        take(websocket);
      });
    } catch (error) {
      refuse(socket, error);
    }
  }

  /** Ends every connection. */
  close(): void {
    for (const client of this.#server.clients) client.terminate();
    for (const connection of this.#connections) connection.destroy();
  }

  #takeRaw(
    take: (connection: Duplex) => void,
    { protocol, socket, head }: { readonly protocol: string; readonly socket: Duplex; readonly head: Buffer },
  ): void {
    this.#connections.add(socket);
    socket.once('close', () => this.#connections.delete(socket));
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: ${protocol}\r\nConnection: Upgrade\r\n\r\n`);
    if (head.length > 0) socket.unshift(head);
    take(socket);
  }

  #find<Taker>(
    request: IncomingMessage,
    routes: readonly { readonly pattern: RegExp; readonly handler: (request: UpgradeRequest) => Taker }[],
  ): Taker {
    const url = new URL(request.url ?? '/', 'http://localhost');
    for (const { pattern, handler } of routes) {
      const match = pattern.exec(url.pathname);
      if (!match) continue;
      const caller = this.#callerOf(request);
      const params = Object.entries(match.groups ?? {}).map(([key, value]) => [key, decoded(value)] as const);
      return onBehalfOf(caller.requestor, () => {
        return handler({ params: Object.fromEntries(params), query: url.searchParams, caller });
      });
    }
    throw new AppError('not_found', 'not found');
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    throw new AppError('invalid', `malformed URL: ${part}`, { cause: error });
  }
}

/** Notices peers that are gone without a word: they may hold a container's terminal. */
function keepAlive(socket: WebSocket): void {
  let alive = true;
  socket.on('pong', () => (alive = true));
  const timer = setInterval(() => {
    // One that is paused, because a program does not read yet, cannot hear the answer.
    if (!alive && !socket.isPaused) socket.terminate();
    alive = false;
    socket.ping();
  }, PING_MS).unref();
  socket.once('close', () => clearInterval(timer));
}

function refuse(socket: Duplex, error: unknown): void {
  const code = statusOf(error);
  const body = errorBody(code, messageOf(error));
  socket.end(
    [
      `HTTP/1.1 ${code} Refused`,
      'Content-Type: application/json',
      'X-Content-Type-Options: nosniff',
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Connection: close',
      '',
      body,
    ].join('\r\n'),
  );
}
