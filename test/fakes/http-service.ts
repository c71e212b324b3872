// A scripted HTTP service on loopback: answers in order, remembers what it was asked.
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ScriptedAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Closes the connection instead of answering. */
  readonly hangUp?: boolean;
}

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: unknown;
}

export class HttpService implements AsyncDisposable {
  readonly requests: RecordedRequest[] = [];
  readonly #routes: { readonly match: RegExp; readonly answers: ScriptedAnswer[] }[] = [];
  readonly #server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const line = `${request.method} ${request.url}`;
      const body: unknown = text === '' ? undefined : JSON.parse(text);
      this.requests.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers, body });
      const answer = this.#answerTo(line);
      if (answer.hangUp) return request.socket.destroy();
      const data = Buffer.isBuffer(answer.body) ? answer.body : JSON.stringify(answer.body ?? {});
      response.writeHead(answer.status ?? 200, { 'content-type': 'application/json', ...answer.headers });
      return response.end(answer.status === 204 ? undefined : data);
    });
  });

  static async start(): Promise<HttpService> {
    const service = new HttpService();
    await new Promise<void>((resolve) => service.#server.listen(0, '127.0.0.1', resolve));
    return service;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** `METHOD /path` patterns; the last answer of a route is repeated. The newest matching route wins. */
  on(match: RegExp, ...answers: ScriptedAnswer[]): this {
    this.#routes.unshift({ match, answers });
    return this;
  }

  #answerTo(line: string): ScriptedAnswer {
    const route = this.#routes.find(({ match }) => match.test(line));
    if (!route) return { status: 404, body: { message: `no route for ${line}` } };
    return (route.answers.length > 1 ? route.answers.shift() : route.answers[0]) ?? {};
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** The answer of Keystone to POST /v3/auth/tokens. */
export function tokenAnswer(
  id: string,
  endpoints: Readonly<Record<string, string>>,
  expiresInMs = 3_600_000,
): ScriptedAnswer {
  const catalog = Object.entries(endpoints).map(([type, url]) => ({
    type,
    name: type,
    endpoints: [
      { interface: 'public', region: 'RegionOne', url: `${url}/public` },
      { interface: 'internal', region: 'RegionOne', url },
    ],
  }));
  const token = {
    expires_at: new Date(Date.now() + expiresInMs).toISOString(),
    user: { id: 'u1' },
    project: { id: 'p1' },
    roles: [{ name: 'service' }],
    catalog,
  };
  return { status: 201, headers: { 'x-subject-token': id }, body: { token } };
}
