// What goes out to image servers: HTTP through the configured proxies, certificates pinned, broken downloads taken up again.
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { Readable } from 'node:stream';
import type { AxiosProxyConfig } from 'axios';
import { AppError, messageOf } from '#src/lib/errors.ts';
import { limited, sleep } from '#src/lib/wait.ts';

/** Until an answer begins. */
const ANSWER_MS = 30_000;
/** A server that sends nothing for so long is gone. */
const IDLE_MS = 60_000;
const ATTEMPTS = 5;
const MAX_TEXT_BYTES = 64 * 1024 * 1024;

export interface FetchOptions {
  readonly method?: 'GET' | 'HEAD' | 'POST';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Readable;
  /** PEM; the server must have this one, whatever its names. Absent: the system's authorities decide. */
  readonly certificate?: string;
  readonly signal: AbortSignal;
}

export interface Fetched {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Must be read or destroyed. */
  readonly body: Readable;
}

export class ImageFetcher {
  readonly #proxyFor: (url: URL) => URL | undefined;
  readonly #userAgent: string;

  constructor(proxyFor: (url: URL) => URL | undefined, userAgent: string) {
    this.#proxyFor = proxyFor;
    this.#userAgent = userAgent;
  }

  /** Any status is an answer; redirects are followed. AppError 'unavailable' when there is none. */
  async fetch(url: string, options: FetchOptions): Promise<Fetched> {
    const { method = 'GET', headers = {}, body, certificate, signal } = options;
    // Loaded when it is needed: most daemons never ask anybody.
    const { default: axios } = await import('axios');
    const proxy = proxyConfig(this.#proxyFor(new URL(url)));
    const answered = new AbortController();
    // An upload takes as long as it takes.
    const limit = body ? undefined : setTimeout(() => answered.abort(new Error('no answer')), ANSWER_MS);
    try {
      const response = await axios.request<Readable>({
        url,
        method,
        headers: { 'User-Agent': this.#userAgent, ...headers },
        adapter: 'http',
        proxy,
        decompress: false,
        responseType: 'stream',
        validateStatus: () => true,
        maxContentLength: Infinity,
        maxBodyLength: Infinity,
        maxRedirects: body ? 0 : 10,
        httpAgent: new HttpAgent(),
        httpsAgent: new HttpsAgent(pinned(certificate)),
        signal: AbortSignal.any([signal, answered.signal]),
        ...(body && { data: body }),
      });
      return { status: response.status, headers: textHeaders(response.headers), body: response.data };
    } catch (error) {
      signal.throwIfAborted();
      // What LXD's client takes for a reason to try the next address.
      throw new AppError('unavailable', `Unable to connect to: ${hostOf(url)} (${reasonOf(error)})`, { cause: error });
    } finally {
      clearTimeout(limit);
    }
  }

  /** The whole body of a 200. */
  async text(url: string, options: FetchOptions): Promise<string> {
    const { status, body } = await this.fetch(url, options);
    const text = await readText(body, url);
    if (status !== 200)
      throw new AppError(status === 404 ? 'not_found' : 'unavailable', `Unable to fetch ${url}: ${status}`);
    return text;
  }

  /** A file; when the connection breaks the rest is asked for. `onTotal` gets its size when the server tells. */
  async *download(url: string, options: FetchOptions & { onTotal?: (bytes: number) => void }): AsyncGenerator<Buffer> {
    let offset = 0;
    for (let attempt = 1; ; attempt++) {
      const headers = { ...options.headers, ...(offset > 0 && { Range: `bytes=${offset}-` }) };
      try {
        const fetched = await this.fetch(url, { ...options, headers });
        checkStatus(fetched, url, offset);
        if (offset === 0) options.onTotal?.(Number(fetched.headers['content-length'] ?? 0));
        for await (const chunk of alive(fetched.body)) {
          offset += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        options.signal.throwIfAborted();
        if (!isResumable(error, attempt, offset)) throw error;
        await sleep(200 * 2 ** attempt, options.signal);
      }
    }
  }
}

/** Nothing came yet: another attempt is for whoever asked. Our own errors are answers of the server. */
function isResumable(error: unknown, attempt: number, offset: number): boolean {
  return attempt < ATTEMPTS && offset > 0 && !(error instanceof AppError);
}

/** Breaks off when nothing comes. */
export async function* alive(body: Readable): AsyncGenerator<Buffer> {
  const watch = setInterval(() => {
    if (Date.now() - last > IDLE_MS) body.destroy(new Error(`nothing came for ${IDLE_MS / 1000} s`));
  }, IDLE_MS / 4);
  body.once('close', () => clearInterval(watch));
  let last = Date.now();
  try {
    for await (const chunk of body) {
      last = Date.now();
      yield chunk as Buffer;
      // Not the server's fault when whoever takes it is slow.
      last = Date.now();
    }
  } finally {
    body.destroy();
  }
}

function checkStatus({ status, body }: Fetched, url: string, offset: number): void {
  if (status === (offset > 0 ? 206 : 200)) return;
  body.destroy();
  const reason = offset > 0 && status === 200 ? 'the download broke off and cannot be resumed' : `${status}`;
  throw new AppError(status === 404 ? 'not_found' : 'unavailable', `Unable to fetch ${url}: ${reason}`);
}

export async function readText(body: Readable, what: string): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of alive(body)) {
    length += chunk.length;
    if (length > MAX_TEXT_BYTES) throw new AppError('invalid', `The answer of ${what} is too large`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** With CONNECT where the answer is for nobody else. */
function proxyConfig(proxy: URL | undefined): AxiosProxyConfig | false {
  if (!proxy) return false;
  const { protocol, hostname, port, username, password } = proxy;
  const auth = { username: decodeURIComponent(username), password: decodeURIComponent(password) };
  return {
    protocol,
    host: hostname,
    port: Number(port) || (protocol === 'https:' ? 443 : 80),
    ...(username !== '' && { auth }),
  };
}

function pinned(certificate: string | undefined): object {
  if (certificate === undefined || certificate === '') return {};
  return { ca: certificate, checkServerIdentity: () => undefined, allowPartialTrustChain: true };
}

function textHeaders(headers: object): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value)]));
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : url;
}

function reasonOf(error: unknown): string {
  const { cause } = error instanceof Error ? error : { cause: undefined };
  return messageOf(error) || messageOf(cause);
}

/** For requests whose answer is short. */
export function shortly(signal: AbortSignal): AbortSignal {
  return limited(2 * ANSWER_MS, signal);
}
