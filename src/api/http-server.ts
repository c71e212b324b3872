// The listeners: the unix socket, and TLS when an address is configured. One application serves both.
import { chmod, chown, rename, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { ServerCertificate } from '#src/engine/certificates/server-certificate.ts';
import type { ListenAddress } from '#src/engine/server/address.ts';
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { aborted } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { errorBody } from './envelope.ts';
import { HTTP_LIMITS, TlsListener } from './tls-listener.ts';
import type { Upgrades } from './upgrades.ts';

export interface HttpServerOptions {
  readonly app: ApiApp;
  readonly upgrades: Upgrades;
  readonly log: Log;
  readonly socketPath: string;
  /** Group that may use the socket; undefined: root alone. */
  readonly socketGid?: number;
  readonly certificate: ServerCertificate;
  readonly address: ListenAddress | undefined;
  /** Serves /1.0/metrics alone. */
  readonly metricsAddress?: ListenAddress | undefined;
  readonly trustedProxies?: () => readonly string[];
  /** Where clients come from that a proxy speaks for. */
  readonly proxied?: Map<string, string>;
}

/** A client that stops in the middle of a body for so long is gone. */
const IDLE_MS = 60_000;
const SOCKET_MODE = 0o660;

export class HttpServer implements Service {
  readonly name = 'api';
  readonly #options: HttpServerOptions;
  readonly #tls: TlsListener;
  readonly #metrics: TlsListener;
  #unix: Server | undefined;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    const { certificate, trustedProxies, proxied } = options;
    this.#tls = new TlsListener({
      certificate,
      serve: (request, response) => this.#serve(request, response),
      upgrade: (...event) => options.upgrades.handle(...event),
      ...(trustedProxies && { trustedProxies }),
      ...(proxied && { proxied }),
    });
    this.#metrics = new TlsListener({
      certificate,
      serve: (request, response) => {
        if (request.url?.split('?', 1)[0] === '/1.0/metrics') this.#serve(request, response);
        else notFound(response);
      },
    });
  }

  async start(): Promise<void> {
    const { app, address, metricsAddress, log } = this.#options;
    await app.ready();
    for (const [key, listener, where] of [
      ['core.https_address', this.#tls, address],
      ['core.metrics_address', this.#metrics, metricsAddress],
    ] as const) {
      // A port that is taken must not lock the operator out of the socket with which to change it.
      await listener.setAddress(where).catch((error: unknown) => {
        log.error(`cannot listen on ${key}`, { ...where, error });
      });
    }
    this.#unix = await this.#listenUnix();
    log.info('listening', { socket: this.#options.socketPath, ...address });
  }

  async stop(signal: AbortSignal): Promise<void> {
    const closing = [closed(this.#unix), this.#tls.close(), this.#metrics.close()];
    this.#options.upgrades.close();
    await Promise.race([Promise.all(closing), aborted(signal)]);
    this.#unix?.closeAllConnections();
    for (const listener of [this.#tls, this.#metrics]) listener.destroy();
    await this.#options.app.close();
  }

  /** Listens on another address; the old one closes when the new one is open, and stays when that fails. */
  setAddress(address: ListenAddress | undefined): Promise<void> {
    return this.#tls.setAddress(address);
  }

  setMetricsAddress(address: ListenAddress | undefined): Promise<void> {
    return this.#metrics.setAddress(address);
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    // Only while the body comes: the answer may take as long as an operation.
    request.setTimeout(IDLE_MS, () => request.destroy(new Error('the client stopped sending')));
    request.once('end', () => request.setTimeout(0));
    this.#options.app.routing(request, response);
  }

  /** Bound under another name, with its rights, then renamed: nobody meets a socket that is not ready. */
  async #listenUnix(): Promise<Server> {
    const { socketPath, socketGid } = this.#options;
    const server = createServer(HTTP_LIMITS, (request, response) => this.#serve(request, response));
    server.on('upgrade', (...event) => this.#options.upgrades.handle(...event));
    const temporary = `${socketPath}.new`;
    await rm(temporary, { force: true });
    await listening(server, { path: temporary });
    await chmod(temporary, SOCKET_MODE);
    if (socketGid !== undefined) await chown(temporary, 0, socketGid);
    await rename(temporary, socketPath);
    return server;
  }
}

function notFound(response: ServerResponse): void {
  response.writeHead(404, { 'content-type': 'application/json', 'x-content-type-options': 'nosniff' });
  response.end(errorBody(404, 'not found'));
}

function listening(server: Server, where: { readonly path: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Resolves when the requests in flight have been answered. */
function closed(server: Server | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (!server) resolve();
    server?.close(() => resolve());
    server?.closeIdleConnections();
  });
}
