// Requests to one OpenStack service: endpoint, tokens, re-authentication and retries.
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { type CatalogService, type EndpointFilter, findEndpoint } from './catalog.ts';
import { OpenStackError } from './errors.ts';
import { createHttp, type HttpOptions, type HttpRequest, type HttpResponse, type SendRequest } from './http.ts';
import type { TokenSource } from './session.ts';

export interface ServiceClientOptions extends HttpOptions {
  readonly endpoint: EndpointFilter;
  /** The service user; absent: only requests with a token of their own are possible. */
  readonly tokens?: TokenSource;
  /** Its token goes along as X-Service-Token, so that a user's token that expired meanwhile is still accepted. */
  readonly serviceTokens?: TokenSource;
  /** Extra attempts when no connection could be made; default 3 (GET, PUT and DELETE, and POST if nothing was sent). */
  readonly connectRetries?: number;
  readonly connectRetryDelayMs?: number;
  /** Extra attempts on the statuses of retriableStatuses, for idempotent requests; default 0. */
  readonly statusRetries?: number;
  readonly retriableStatuses?: readonly number[];
}

export interface ServiceRequest extends Pick<HttpRequest, 'method' | 'headers' | 'body' | 'responseType' | 'signal'> {
  /** Begins with a slash; appended to the endpoint. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | boolean | number>>;
  /** A user's token, used instead of the service user's. */
  readonly token?: string;
  /** The catalogue that belongs to that token. */
  readonly catalog?: readonly CatalogService[];
  readonly requestId?: string;
}

interface Attempted {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The service user's token in use, if any. */
  readonly own: string | undefined;
}

/** Rejects with OpenStackError; see HttpOptions and ServiceClientOptions for limits. */
export class ServiceClient {
  readonly #options: ServiceClientOptions;
  readonly #send: SendRequest;

  constructor(options: ServiceClientOptions) {
    this.#options = options;
    this.#send = createHttp(options);
  }

  async request(request: ServiceRequest): Promise<HttpResponse> {
    const { connectRetries = 3, connectRetryDelayMs = 500, statusRetries = 0 } = this.#options;
    const left = { connect: connectRetries, status: statusRetries, auth: 1 };
    for (let attempt = 1; ; attempt += 1) {
      const prepared = await this.#prepare(request);
      try {
        return await this.#attempt(request, prepared);
      } catch (error) {
        const what = isSpent(request.body) ? undefined : this.#whatToDo(request, error, prepared);
        if (what === undefined || left[what] === 0) throw error;
        left[what] -= 1;
        if (what !== 'auth') await delay(connectRetryDelayMs * attempt, undefined, withSignal(request.signal));
      }
    }
  }

  async #prepare(request: ServiceRequest): Promise<Attempted> {
    const { tokens, serviceTokens, endpoint } = this.#options;
    const own = request.token === undefined ? await tokens?.getToken(request.signal) : undefined;
    const id = request.token ?? own?.id;
    if (id === undefined)
      throw new OpenStackError(`${endpoint.serviceType}: no credentials for this request`, { status: 401 });
    const serviceToken = await serviceTokens?.getToken(request.signal);
    return {
      url: `${await this.#endpointOf(request)}${request.path}${queryString(request.query)}`,
      own: own?.id,
      headers: {
        'X-Auth-Token': id,
        ...(serviceToken && { 'X-Service-Token': serviceToken.id }),
        ...(request.requestId !== undefined && { 'X-OpenStack-Request-ID': request.requestId }),
        ...request.headers,
      },
    };
  }

  /** The override, else what the user's own catalogue says, else the service user's. */
  async #endpointOf({ catalog, signal }: ServiceRequest): Promise<string> {
    const { tokens, endpoint } = this.#options;
    const given = findEndpoint(catalog ?? [], endpoint);
    if (given !== undefined) return given;
    const token = await tokens?.getToken(signal);
    const found = findEndpoint(token?.catalog ?? [], endpoint);
    if (found === undefined)
      throw new OpenStackError(notInCatalog(endpoint), { status: 404, code: 'EndpointNotFound' });
    return found;
  }

  #attempt(request: ServiceRequest, { url, headers }: Attempted): Promise<HttpResponse> {
    const { method, body, responseType, signal } = request;
    return this.#send({
      service: this.#options.endpoint.serviceType,
      method,
      url,
      headers,
      ...(body === undefined ? {} : { body }),
      ...(responseType === undefined ? {} : { responseType }),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  #whatToDo(request: ServiceRequest, error: unknown, { own }: Attempted): 'connect' | 'status' | 'auth' | undefined {
    if (!(error instanceof OpenStackError)) return undefined;
    const { status } = error;
    if (status === undefined) return isRepeatable(request, error) ? 'connect' : undefined;
    if (status === 401 && own !== undefined) {
      this.#options.tokens?.invalidate(own);
      return 'auth';
    }
    const retriable = this.#options.retriableStatuses ?? [503];
    return retriable.includes(status) && request.method !== 'POST' ? 'status' : undefined;
  }
}

/** Of a stream, what was read is gone: the request cannot be made a second time. */
function isSpent(body: unknown): boolean {
  return body instanceof Readable && (body.readableDidRead || body.destroyed);
}

/** A refused connection sent nothing; after anything else a POST may have been executed. */
function isRepeatable({ method }: ServiceRequest, error: OpenStackError): boolean {
  const { code } = (error.cause ?? {}) as { code?: string };
  return method !== 'POST' || code === 'ECONNREFUSED';
}

function notInCatalog({ serviceType, region, interfaces = ['internal', 'public'] }: EndpointFilter): string {
  return `${serviceType}: no ${interfaces.join(' or ')} endpoint${region ? ` in region ${region}` : ''} in the service catalogue`;
}

function withSignal(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}

function queryString(query: ServiceRequest['query']): string {
  const pairs = Object.entries(query ?? {}).flatMap(([key, value]) =>
    (Array.isArray(value) ? (value as readonly string[]) : [value]).map((item): [string, string] => [
      key,
      String(item),
    ]),
  );
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs).toString()}`;
}
