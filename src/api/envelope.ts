// LXD's envelope: the same seven fields in every JSON answer, ETags, and errors translated to its statuses (section 0).
import { createHash } from 'node:crypto';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import type { OperationRegistry } from '#src/engine/operations/operations.ts';
import { AppError, type ErrorKind, kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { ApiApp } from './app.ts';

const EMPTY = { type: '', status: '', status_code: 0, operation: '', error_code: 0, error: '' };

const HTTP_STATUS: Readonly<Record<ErrorKind, number>> = {
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  conflict: 409,
  unsupported: 501,
  unavailable: 503,
  internal: 500,
};

/** An error whose HTTP status is not that of its kind: LXD is not tidy, and clients' tests look. */
export class ApiError extends AppError {
  readonly status: number;

  constructor(status: number, message: string, options?: ErrorOptions) {
    super(status < 500 ? 'invalid' : 'internal', message, options);
    this.status = status;
  }
}

/** A sync answer; return it from the handler. */
export function sync(metadata: unknown = {}): object {
  return { ...EMPTY, type: 'sync', status: 'Success', status_code: 200, metadata };
}

/** A sync answer with the ETag of the object's mutable part. */
export function syncWithEtag(reply: FastifyReply, metadata: unknown, mutable: readonly unknown[]): object {
  void reply.header('etag', `"${etagOf(mutable)}"`);
  return sync(metadata);
}

/** 201 for a created thing; the body says 200 all the same. */
export function created(reply: FastifyReply, location: string): object {
  void reply.code(201).header('location', location);
  return sync(null);
}

/** 202 for a started operation. */
export function operation(reply: FastifyReply, operations: OperationRegistry, id: string): object {
  const url = `/1.0/operations/${id}`;
  void reply.code(202).header('location', url);
  const metadata = operations.get(id);
  return { ...EMPTY, type: 'async', status: 'Operation created', status_code: 100, operation: url, metadata };
}

export function etagOf(mutable: readonly unknown[]): string {
  return createHash('sha256')
    .update(`${JSON.stringify(mutable)}\n`)
    .digest('hex');
}

/** Without If-Match everything matches. */
export function checkIfMatch(request: FastifyRequest, mutable: readonly unknown[]): void {
  const wanted = request.headers['if-match']?.replaceAll('"', '');
  if (wanted === undefined || wanted === '') return;
  const actual = etagOf(mutable);
  if (wanted !== actual) throw new ApiError(412, `ETag doesn't match: ${actual} vs ${wanted}`);
}

export function statusOf(error: unknown): number {
  if (error instanceof ApiError) return error.status;
  if (error instanceof AppError) return HTTP_STATUS[kindOf(error)];
  const { statusCode, validation } = error as Partial<FastifyError>;
  return validation ? 400 : (statusCode ?? 500);
}

export function errorBody(code: number, message: string): string {
  return `${JSON.stringify({ ...EMPTY, type: 'error', error_code: code, error: message, metadata: null })}\n\n`;
}

export function sendError(reply: FastifyReply, code: number, message: string): FastifyReply {
  return reply
    .code(code)
    .header('content-type', 'application/json')
    .header('x-content-type-options', 'nosniff')
    .send(errorBody(code, message));
}

/** `explain` tells clients of an error of ours; it never rejects. */
export function useErrorEnvelope(
  app: ApiApp,
  log: Log,
  explain: (error: unknown) => Promise<string> = async (error) => messageOf(error),
): void {
  app.setErrorHandler(async (error, request, reply) => {
    const code = statusOf(error);
    const expected = error instanceof AppError && error.kind !== 'internal';
    if (code >= 500 && !expected) log.error('request failed', { method: request.method, url: request.url, error });
    return sendError(reply, code, code >= 500 ? await explain(error) : messageOf(error));
  });
}

type Translation = Partial<Record<ErrorKind, { readonly status: number; readonly prefix?: string }>>;

/** Runs `work`, giving errors of some kinds the status and the words that LXD has for them here. */
export async function translating<T>(translation: Translation, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const rule = error instanceof AppError ? translation[error.kind] : undefined;
    if (!rule) throw error;
    throw new ApiError(rule.status, `${rule.prefix ?? ''}${messageOf(error)}`, { cause: error });
  }
}
