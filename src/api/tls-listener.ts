// One TLS address: its listener can move while the daemon runs, and what hostile peers cost it is bounded.
import { createServer as createTlsServer } from 'node:https';
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from 'node:http';
import { createServer, type Server as TcpServer, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ServerCertificate } from '#src/engine/certificates/server-certificate.ts';
import type { ListenAddress } from '#src/engine/server/address.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { readProxyHeader } from './proxy-protocol.ts';

/** Uploads take as long as they take: bodies watch for silence themselves. */
export const HTTP_LIMITS: ServerOptions = {
  requestTimeout: 0,
  headersTimeout: 30_000,
  keepAliveTimeout: 60_000,
  maxHeaderSize: 64 << 10,
};
const HANDSHAKE_MS = 10_000;
/** Each costs some 50 KB. */
const MAX_CONNECTIONS = 1024;
const SWEEP_MS = 30_000;
/** Sweeps in which a peer took nothing of what waits for it. */
const MAX_STALLS = 4;

export interface TlsListenerOptions {
  readonly certificate: ServerCertificate;
  readonly serve: (request: IncomingMessage, response: ServerResponse) => void;
  /** Absent: no upgrades. */
  readonly upgrade?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  /** Addresses whose PROXY header is believed. */
  readonly trustedProxies?: () => readonly string[];
  /** Where clients come from that a proxy speaks for, by the proxy's end of the connection. */
  readonly proxied?: Map<string, string>;
}

/** How a connection is named in `proxied`. */
export function connectionKey({ remoteAddress, remotePort }: Pick<Socket, 'remoteAddress' | 'remotePort'>): string {
  return `${remoteAddress ?? ''}:${remotePort ?? 0}`;
}

interface Listening {
  readonly address: ListenAddress;
  readonly tcp: TcpServer;
  readonly http: Server;
}

export class TlsListener {
  readonly #options: TlsListenerOptions;
  #now: Listening | undefined;
  readonly #stalls = new Map<Socket, { length: number; times: number }>();
  #sweeper: NodeJS.Timeout | undefined;

  constructor(options: TlsListenerOptions) {
    this.#options = options;
  }

  /** The old address stays when the new one cannot be listened on. Connections to the old one go on. */
  async setAddress(address: ListenAddress | undefined): Promise<void> {
    const old = this.#now;
    if (!address || !old) {
      const next = address && (await this.#listen(address));
      if (old) retire(old);
      this.#now = next;
      return;
    }
    if (address.host === old.address.host && address.port === old.address.port) return;
    // Another address of the same port may be the same one in other words.
    if (address.port === old.address.port) await this.#replace(old, address);
    else {
      this.#now = await this.#listen(address);
      retire(old);
    }
  }

  async #replace(old: Listening, address: ListenAddress): Promise<void> {
    retire(old);
    try {
      this.#now = await this.#listen(address);
    } catch (error) {
      this.#now = await this.#listen(old.address);
      throw error;
    }
  }

  async #listen(address: ListenAddress): Promise<Listening> {
    const { serve, upgrade, certificate } = this.#options;
    const { ca, crl } = certificate;
    const http = createTlsServer(
      {
        ...HTTP_LIMITS,
        cert: certificate.certificate,
        key: certificate.key,
        ...(ca !== undefined && { ca }),
        ...(crl !== undefined && { crl }),
        minVersion: 'TLSv1.2',
        handshakeTimeout: HANDSHAKE_MS,
        requestCert: true,
        rejectUnauthorized: false,
      },
      serve,
    );
    if (upgrade) http.on('upgrade', upgrade);
    const tcp = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket, http));
    tcp.maxConnections = MAX_CONNECTIONS;
    await listening(tcp, address);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    return { address, tcp, http };
  }

  #accept(socket: Socket, http: Server): void {
    this.#stalls.set(socket, { length: 0, times: 0 });
    socket.once('close', () => this.#stalls.delete(socket));
    const { trustedProxies, proxied } = this.#options;
    const give = () => void http.emit('connection', socket);
    const remote = (socket.remoteAddress ?? '').replace(/^::ffff:/u, '');
    if (!proxied || trustedProxies?.().includes(remote) !== true) {
      give();
      return;
    }
    readProxyHeader(socket, (address) => {
      if (address !== undefined) {
        const key = connectionKey(socket);
        proxied.set(key, address);
        socket.once('close', () => proxied.delete(key));
      }
      give();
    });
  }

  /** Ends peers that take nothing of their answers: these would be kept for ever. */
  #sweep(): void {
    for (const [socket, stall] of this.#stalls) {
      const { writableLength } = socket;
      const isStalled = writableLength > 0 && writableLength === stall.length;
      stall.times = isStalled ? stall.times + 1 : 0;
      stall.length = writableLength;
      if (stall.times >= MAX_STALLS) socket.destroy();
    }
  }

  /** Resolves when the requests in flight have been answered. */
  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    const now = this.#now;
    if (!now) return;
    this.#now = undefined;
    const gone = new Promise<void>((resolve) => now.tcp.close(() => resolve()));
    now.http.closeIdleConnections();
    await gone;
  }

  /** At once. */
  destroy(): void {
    for (const socket of this.#stalls.keys()) socket.destroy();
  }
}

function listening(server: TcpServer, { host, port }: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const text = `cannot listen on ${host} port ${port}: ${messageOf(error)}`;
      reject(new AppError('invalid', text, { cause: error }));
    });
    server.listen({ host, port }, resolve);
  });
}

/** Ends a listener without its requests: the answer to the change itself may be on its way through it. */
function retire({ tcp, http }: Listening): void {
  tcp.close();
  http.closeIdleConnections();
}
