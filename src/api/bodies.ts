// Request bodies: JSON of bounded size whatever the content type says, or a stream for the routes that want one.
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import type { ApiApp } from './app.ts';
import { ApiError } from './envelope.ts';

/** The largest JSON body; instances carry cloud-init documents and certificates, nothing larger. */
const MAX_JSON_BYTES = 4 << 20;
/** Of strangers: a certificate, nothing larger. */
const MAX_STRANGERS_BYTES = 64 << 10;

/** How long a client may go on sending what nobody wants, after it was answered; then its connection is closed. */
const LINGER_MS = 30_000;

function isStream(request: FastifyRequest): boolean {
  const { rawBody = 'json' } = request.routeOptions.config;
  const type = request.headers['content-type'] ?? '';
  return rawBody === 'stream' || (rawBody === 'octet-stream' && type.startsWith('application/octet-stream'));
}

/** Reads all of a stream, refusing (413) what is longer than `limit`. */
export async function readAll(stream: AsyncIterable<unknown>, limit = MAX_JSON_BYTES): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const bytes = chunk as Buffer;
    length += bytes.length;
    if (length > limit) throw new ApiError(413, `Request body is larger than ${limit} bytes`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks, length);
}

export function parseJson(text: string): unknown {
  try {
    return withoutNulls(JSON.parse(text));
  } catch (error) {
    throw new ApiError(400, `Invalid JSON in the request body: ${(error as Error).message}`, { cause: error });
  }
}

/** In maps of text, `null` is the empty text; everywhere else it means the same as absence (Go's decoder, section 0). */
function withoutNulls(value: unknown, inMap = false): unknown {
  if (Array.isArray(value)) return value.map((item) => withoutNulls(item));
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([, member]) => member !== null || inMap);
  return Object.fromEntries(
    kept.map(([key, member]) => {
      if (member === null) return [key, ''];
      return [key, withoutNulls(member, inMap || key === 'config' || key === 'properties' || key === 'environment')];
    }),
  );
}

/** The body without its connection: whoever stops reading it, for an error, must not keep the answer from the client. */
function lent(payload: IncomingMessage): Readable {
  return Readable.from(piecesOf(payload), { objectMode: false });
}

async function* piecesOf(payload: IncomingMessage): AsyncGenerator<Buffer> {
  for await (const piece of payload.iterator({ destroyOnReturn: false })) yield piece as Buffer;
}

/** Many clients look for the answer only when they have sent everything. */
function discardRest(payload: IncomingMessage): void {
  if (payload.complete || payload.destroyed) return;
  payload.resume();
  // of a message that is not complete, this ends the connection
  const tooLong = setTimeout(() => payload.destroy(), LINGER_MS).unref();
  payload.once('close', () => clearTimeout(tooLong));
}

async function parse(request: FastifyRequest, payload: IncomingMessage): Promise<unknown> {
  if (isStream(request)) return lent(payload);
  const bytes = await readAll(payload, request.caller.trusted ? MAX_JSON_BYTES : MAX_STRANGERS_BYTES);
  return bytes.length === 0 ? undefined : parseJson(bytes.toString('utf8'));
}

export function useBodies(app: ApiApp): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', parse);
  // Clients send bodies without any content type; Fastify only looks for a parser when there is one.
  app.addHook('onRequest', async (request) => {
    if (request.headers['content-type'] !== undefined || !hasBody(request)) return;
    const { rawBody = 'json' } = request.routeOptions.config;
    request.headers['content-type'] = rawBody === 'stream' ? 'application/x-unknown' : 'application/json';
  });
  app.addHook('onResponse', async ({ raw }) => discardRest(raw));
}

function hasBody({ headers }: FastifyRequest): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}
