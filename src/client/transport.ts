// HTTP to an engine: over its unix socket or over TLS with a client certificate; envelopes opened, errors translated.
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Readable } from 'node:stream';
import { type AxiosInstance, type AxiosResponse, create as createHttp } from 'axios';
import { AppError, kindOf } from '#src/lib/errors.ts';
import { engineError, transportError } from './errors.ts';
import type { Envelope } from './wire.ts';

export type Endpoint =
  | { readonly kind: 'unix'; readonly socketPath: string }
  | {
      readonly kind: 'https';
      /** https://HOST:8443 */
      readonly url: string;
      /** PEM. */
      readonly clientCertificate: string;
      readonly clientKey: string;
      /** PEM of the server's own certificate: pinned, its names are not looked at. Absent: the system's authorities decide. */
      readonly serverCertificate?: string;
    };

export type Query = Readonly<Record<string, string | number | undefined>>;

export interface RequestOptions {
  readonly query?: Query;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** No answer and no progress for this long is an error; 0: wait for ever. Default five minutes. */
  readonly idleTimeoutMs?: number;
}

export interface Reply {
  readonly envelope: Envelope;
  readonly headers: Readonly<Record<string, string>>;
}

export interface RawReply {
  readonly body: Readable;
  readonly headers: Readonly<Record<string, string>>;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** What a TLS connection to the engine needs, for HTTP and websockets alike. */
export interface TlsOptions {
  readonly cert: string;
  readonly key: string;
  readonly ca?: string;
  readonly checkServerIdentity?: () => undefined;
}

export function tlsOptions(endpoint: Extract<Endpoint, { kind: 'https' }>): TlsOptions {
  const own = { cert: endpoint.clientCertificate, key: endpoint.clientKey };
  return endpoint.serverCertificate === undefined
    ? own
    : { ...own, ca: endpoint.serverCertificate, checkServerIdentity: () => undefined };
}

const IDLE_TIMEOUT_MS = 300_000;
const JSON_LIMIT_BYTES = 256 * 1024 * 1024;

export class Transport {
  readonly endpoint: Endpoint;
  readonly project: string | undefined;
  readonly #http: AxiosInstance;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(endpoint: Endpoint, project?: string) {
    this.endpoint = endpoint;
    this.project = project;
    this.#agent =
      endpoint.kind === 'unix'
        ? new HttpAgent({ keepAlive: true })
        : new HttpsAgent({ keepAlive: true, ...tlsOptions(endpoint) });
    this.#http = createHttp({
      ...(endpoint.kind === 'unix'
        ? { baseURL: 'http://engine', socketPath: endpoint.socketPath, httpAgent: this.#agent }
        : { baseURL: endpoint.url, httpsAgent: this.#agent }),
      adapter: 'http',
      proxy: false,
      // Redirects make axios keep the whole body in memory; the API has none.
      maxRedirects: 0,
      maxBodyLength: Infinity,
      maxContentLength: Infinity,
      validateStatus: () => true,
      headers: { 'User-Agent': 'lightervisor' },
    });
  }

  /** One request with a JSON answer. On a kept connection that the server just closed, what does no harm twice or did not arrive is repeated once. */
  async request(method: Method, path: string, options: RequestOptions = {}): Promise<Reply> {
    try {
      return await this.#requestOnce(method, path, options);
    } catch (error) {
      const isHarmless = method === 'GET' ? isBrokenConnection(error) : this.#wasNotTaken(error, options.body);
      if (!isHarmless || options.signal?.aborted === true) throw error;
      return this.#requestOnce(method, path, options);
    }
  }

  /** A Unix socket answers EPIPE to a write of which nothing arrives: no engine has the whole request. TLS writes of itself as well. */
  #wasNotTaken(error: unknown, body: unknown): boolean {
    const canRepeat = body === undefined || isPlain(body);
    return this.endpoint.kind === 'unix' && canRepeat && brokenConnection(error) === 'EPIPE';
  }

  /** A request whose answer is not an envelope. The caller reads or destroys the stream. */
  async raw(path: string, options: RequestOptions & { readonly method?: Method } = {}): Promise<Readable> {
    return (await this.rawReply(path, options)).body;
  }

  /** The same with the headers of the answer. */
  async rawReply(path: string, options: RequestOptions & { readonly method?: Method } = {}): Promise<RawReply> {
    const { method = 'GET', ...rest } = options;
    const response = await this.#send<Readable>(method, path, { ...rest, responseType: 'stream' });
    if (response.status < 300) return { body: response.data, headers: flatHeaders(response) };
    const text = await readText(response.data);
    throw engineError(response.status, errorText(text), `${method} ${path}`);
  }

  close(): void {
    this.#agent.destroy();
  }

  async #requestOnce(method: Method, path: string, options: RequestOptions): Promise<Reply> {
    const context = `${method} ${path}`;
    const response = await this.#send<string>(method, path, { ...options, responseType: 'text' });
    if (response.status >= 300) throw engineError(response.status, errorText(response.data), context);
    const envelope = parseEnvelope(response.data, context);
    if (envelope.type === 'error') throw engineError(envelope.error_code, envelope.error, context);
    return { envelope, headers: flatHeaders(response) };
  }

  async #send<T>(
    method: Method,
    path: string,
    options: RequestOptions & { readonly responseType: 'text' | 'stream' },
  ): Promise<AxiosResponse<T>> {
    const { query, body, headers, signal, responseType, idleTimeoutMs = IDLE_TIMEOUT_MS } = options;
    try {
      return await this.#http.request<T>({
        method,
        url: path,
        params: { ...(this.project === undefined ? {} : { project: this.project }), ...query },
        responseType,
        timeout: idleTimeoutMs,
        transformResponse: (data: unknown) => data,
        ...(responseType === 'text' ? { maxContentLength: JSON_LIMIT_BYTES } : {}),
        ...(body === undefined ? {} : { data: body }),
        headers: { ...(isPlain(body) ? { 'Content-Type': 'application/json' } : {}), ...headers },
        ...(signal ? { signal } : {}),
      });
    } catch (error) {
      throw transportError(error, `${method} ${path}`, signal);
    }
  }
}

/** JSON bodies are plain values; uploads are streams. */
function isPlain(body: unknown): boolean {
  return body !== undefined && !(typeof body === 'object' && body !== null && 'pipe' in body);
}

function brokenConnection(error: unknown): unknown {
  const cause = error instanceof Error ? error.cause : undefined;
  return kindOf(error) === 'unavailable' && cause instanceof Error && 'code' in cause ? cause.code : undefined;
}

function isBrokenConnection(error: unknown): boolean {
  const code = brokenConnection(error);
  return code === 'ECONNRESET' || code === 'EPIPE';
}

function flatHeaders(response: AxiosResponse): Record<string, string> {
  return Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name, String(value)]));
}

function parseEnvelope(text: string, context: string): Envelope {
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null || !('type' in value)) {
    throw new AppError('internal', `${context}: the answer is not an envelope of LXD's API`);
  }
  return value as Envelope;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function errorText(text: string): string {
  const value = parseJson(text);
  if (typeof value === 'object' && value !== null && 'error' in value) return String(value.error);
  return text.slice(0, 500);
}

const ERROR_LIMIT_BYTES = 64 * 1024;

async function readText(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    chunks.push(Buffer.from(chunk as Uint8Array));
    length += chunks.at(-1)?.length ?? 0;
    if (length > ERROR_LIMIT_BYTES) break;
  }
  return Buffer.concat(chunks).toString('utf8');
}
