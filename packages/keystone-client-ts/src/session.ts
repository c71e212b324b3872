// A token that renews itself, and the catalogue that came with it.
import { type Auth, authRequestBody, tokensUrl } from './auth.ts';
import type { CatalogService } from './catalog.ts';
import { OpenStackError } from './errors.ts';
import { createHttp, type HttpOptions, type HttpResponse, type SendRequest } from './http.ts';

export interface Token {
  readonly id: string;
  readonly expiresAt: Date;
  readonly userId: string;
  readonly projectId: string | null;
  readonly roles: readonly string[];
  readonly catalog: readonly CatalogService[];
}

export interface TokenSource {
  /** A token that is valid for at least the renewal margin. Concurrent callers share one request. */
  getToken(signal?: AbortSignal): Promise<Token>;
  /** Forgets a token that a service has refused; the next getToken asks Keystone. */
  invalidate(tokenId: string): void;
}

export interface SessionOptions extends HttpOptions {
  readonly auth: Auth;
  /** Milliseconds before its end at which a token is renewed; default 60 000. */
  readonly renewalMarginMs?: number;
  /** For tests. */
  readonly now?: () => number;
}

/** Authenticates on first use. Errors: OpenStackError 'unauthorized' for bad credentials, 'unavailable' without Keystone. */
export class KeystoneSession implements TokenSource {
  readonly send: SendRequest;
  readonly #auth: Auth;
  readonly #marginMs: number;
  readonly #now: () => number;
  #token: Token | undefined;
  #pending: Promise<Token> | undefined;

  constructor({ auth, renewalMarginMs = 60_000, now = Date.now, ...http }: SessionOptions) {
    this.#auth = auth;
    this.#marginMs = renewalMarginMs;
    this.#now = now;
    this.send = createHttp(http);
  }

  async getToken(signal?: AbortSignal): Promise<Token> {
    signal?.throwIfAborted();
    const token = this.#token;
    if (token && token.expiresAt.getTime() - this.#marginMs > this.#now()) return token;
    // shared by all callers, therefore without any one caller's signal: the HTTP time limit ends it
    this.#pending ??= this.#authenticate().finally(() => {
      this.#pending = undefined;
    });
    return await (signal ? Promise.race([this.#pending, whenAborted(signal)]) : this.#pending);
  }

  invalidate(tokenId: string): void {
    if (this.#token?.id === tokenId) this.#token = undefined;
  }

  async #authenticate(): Promise<Token> {
    const response = await this.send({
      service: 'keystone',
      method: 'POST',
      url: tokensUrl(this.#auth.authUrl),
      body: authRequestBody(this.#auth),
    });
    this.#token = parseToken(response);
    return this.#token;
  }
}

interface TokenBody {
  readonly token?: {
    readonly expires_at?: string;
    readonly user?: { readonly id?: string };
    readonly project?: { readonly id?: string };
    readonly roles?: readonly { readonly name: string }[];
    readonly catalog?: readonly CatalogService[];
  };
}

function parseToken({ headers, data }: HttpResponse): Token {
  const id = headers['x-subject-token'];
  const { token = {} } = data as TokenBody;
  const { user = {}, project = {}, roles = [], catalog = [] } = token;
  const expiresAt = new Date(token.expires_at ?? Number.NaN);
  if (id === undefined || Number.isNaN(expiresAt.getTime())) {
    throw new OpenStackError('keystone: the answer to an authentication request holds no token', { status: 500 });
  }
  const names = roles.map(({ name }) => name);
  return { id, expiresAt, userId: String(user.id), projectId: project.id ?? null, roles: names, catalog };
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
