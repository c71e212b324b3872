// One keep-alive HTTP client per TLS configuration; every answer, good or bad, passes here.
import { readFileSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { Readable } from 'node:stream';
import { type AxiosInstance, create } from 'axios';
import { describeBody, OpenStackError } from './errors.ts';

export interface TlsOptions {
  /** PEM file of the authorities to trust instead of the system's. */
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  /** Accept any certificate. */
  readonly insecure?: boolean;
}

export interface HttpOptions extends TlsOptions {
  /** Milliseconds for a request without a body stream; default 60 000. */
  readonly timeoutMs?: number;
  readonly userAgent?: string;
}

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A Readable is sent as it comes, with neither a total time limit nor redirects. */
  readonly body?: unknown;
  /** 'stream': `data` is a Readable, and no total time limit applies. */
  readonly responseType?: 'json' | 'stream';
  readonly signal?: AbortSignal;
  /** Names the request in errors: "placement", "neutron" … */
  readonly service: string;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly data: unknown;
}

export type SendRequest = (request: HttpRequest) => Promise<HttpResponse>;

function createAxios({ userAgent = 'keystone-client-ts', ...tls }: HttpOptions): AxiosInstance {
  const read = (path: string | undefined) => (path === undefined ? undefined : readFileSync(path));
  return create({
    httpAgent: new HttpAgent({ keepAlive: true }),
    httpsAgent: new HttpsAgent({
      keepAlive: true,
      ca: read(tls.caFile),
      cert: read(tls.certFile),
      key: read(tls.keyFile),
      rejectUnauthorized: tls.insecure !== true,
    }),
    headers: { 'User-Agent': userAgent },
    maxRedirects: 3,
    proxy: false,
    validateStatus: () => true,
    maxBodyLength: Number.POSITIVE_INFINITY,
  });
}

/** Rejects with OpenStackError on every status ≥ 400 and when there is no answer; with the signal's reason when it aborts. */
export function createHttp(options: HttpOptions = {}): SendRequest {
  const client = createAxios(options);
  const { timeoutMs = 60_000 } = options;
  return async (request) => {
    const { method, url, headers, body, signal, responseType = 'json' } = request;
    const asked = client.request<unknown>({
      method,
      url,
      data: body,
      responseType,
      headers: { Accept: 'application/json', ...headers },
      timeout: responseType === 'stream' || body instanceof Readable ? 0 : timeoutMs,
      // to follow one, the whole body would be kept in memory
      ...(body instanceof Readable ? { maxRedirects: 0 } : {}),
      ...(signal ? { signal } : {}),
    });
    const response = await asked.catch((error: unknown) => {
      signal?.throwIfAborted();
      throw new OpenStackError(`${nameOf(request)}: no answer: ${reasonOf(error)}`, { cause: withoutSecrets(error) });
    });
    if (response.status >= 400) throw await badStatus(request, response.status, response.data);
    return { status: response.status, headers: response.headers as Record<string, string>, data: response.data };
  };
}

function nameOf({ service, method, url }: HttpRequest): string {
  return `${service}: ${method} ${new URL(url).pathname}`;
}

function reasonOf(error: unknown): string {
  const { code, message } = error as { code?: string; message?: string };
  return message || code || String(error);
}

/** An axios error carries the whole request, with its tokens. */
function withoutSecrets(error: unknown): Error {
  const { code, message } = error as { code?: string; message?: string };
  return Object.assign(new Error(message ?? 'request failed'), { code });
}

async function badStatus(request: HttpRequest, status: number, data: unknown): Promise<OpenStackError> {
  const body = request.responseType === 'stream' ? await readSome(data as Readable) : data;
  const { message, code } = describeBody(body);
  const text = `${nameOf(request)}: ${status}${message ? ` ${message}` : ''}`;
  return new OpenStackError(text, { status, ...(code === undefined ? {} : { code }) });
}

async function readSome(stream: Readable): Promise<string> {
  let text = '';
  for await (const chunk of stream) {
    text += String(chunk);
    if (text.length > 4096) break;
  }
  return text;
}
