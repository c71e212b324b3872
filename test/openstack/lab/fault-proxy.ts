// Between the compute and one service: passes everything on, or is away, answers 500, or takes its time. Upgrades go through as they are.
import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export type Fault = 'none' | 'is down' | 'answers 500' | 'is slow';
export type Place = { readonly port: number } | { readonly socketPath: string };

export class FaultProxy implements AsyncDisposable {
  readonly #target: Place;
  readonly #upgraded = new Set<Socket>();
  #place: Place;
  #fault: Fault = 'none';
  #server: Server | undefined;
  /** Requests that came since the fault began. */
  requests = 0;
  slowMs = 30_000;

  private constructor(place: Place, target: Place) {
    this.#place = place;
    this.#target = target;
  }

  /** `place`: where it listens; port 0 is any free one. */
  static async start(target: Place, place: Place = { port: 0 }): Promise<FaultProxy> {
    const proxy = new FaultProxy(place, target);
    await proxy.#listen();
    return proxy;
  }

  get url(): string {
    if (!('port' in this.#place)) throw new Error('it listens on a Unix socket');
    return `http://127.0.0.1:${this.#place.port}`;
  }

  async set(fault: Fault): Promise<void> {
    this.#fault = fault;
    this.requests = 0;
    if (fault === 'is down') await this.#close();
    else await this.#listen();
  }

  async #listen(): Promise<void> {
    if (this.#server) return;
    // The answers say how long the service behind keeps a connection; closing it earlier would be a fault of its own.
    const keeping = { keepAliveTimeout: 0 };
    const server = createServer(keeping, (incoming, response) => void this.#answer(incoming, response));
    server.on('upgrade', (incoming: IncomingMessage, socket: Socket, head: Buffer) =>
      this.#splice(incoming, socket, head),
    );
    if ('socketPath' in this.#place) rmSync(this.#place.socketPath, { force: true });
    const where = 'port' in this.#place ? { ...this.#place, host: '127.0.0.1' } : { path: this.#place.socketPath };
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(where, resolve));
    if ('port' in this.#place) this.#place = { port: (server.address() as AddressInfo).port };
    this.#server = server;
  }

  async #close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (!server) return;
    for (const socket of this.#upgraded) socket.destroy();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  async #answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests += 1;
    if (this.#fault === 'answers 500') {
      incoming.resume();
      response.writeHead(500, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: 'injected', error_code: 500, type: 'error', message: 'injected' }));
      return;
    }
    if (this.#fault === 'is slow') await sleep(this.slowMs);
    const { method, url: path, headers } = incoming;
    const outgoing = request({ ...this.#address(), method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    outgoing.on('error', () => response.destroy());
    response.on('close', () => outgoing.destroy());
    incoming.pipe(outgoing);
  }

  #splice({ method, url, rawHeaders }: IncomingMessage, socket: Socket, head: Buffer): void {
    const target = 'port' in this.#target ? connect(this.#target.port, '127.0.0.1') : connect(this.#target.socketPath);
    const fields = rawHeaders.flatMap((name, index) =>
      index % 2 === 0 ? [`${name}: ${rawHeaders[index + 1]}\r\n`] : [],
    );
    target.write(`${method} ${url} HTTP/1.1\r\n${fields.join('')}\r\n`);
    target.write(head);
    for (const [from, to] of [
      [socket, target],
      [target, socket],
    ] as const) {
      this.#upgraded.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#upgraded.delete(from);
        to.destroy();
      });
    }
  }

  #address(): { readonly host: string; readonly port: number } | { readonly socketPath: string } {
    return 'port' in this.#target ? { ...this.#target, host: '127.0.0.1' } : this.#target;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}
