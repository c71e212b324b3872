// Errors of a remote engine as AppError kinds.
import { AppError, asError, type ErrorKind } from '#src/lib/errors.ts';

/** An error that the engine answered; `reply` is its own text, for people. */
export class EngineError extends AppError {
  readonly reply: string;

  constructor(kind: ErrorKind, context: string, reply: string) {
    super(kind, `${context}: ${reply}`);
    this.reply = reply;
  }
}

const KIND_BY_CODE: Readonly<Record<number, ErrorKind>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not_found',
  409: 'conflict',
  412: 'conflict',
  413: 'invalid',
  501: 'unsupported',
  503: 'unavailable',
};

/** Servers say the same thing with different codes (lxd-engine-contract section 0): some texts decide. */
const KIND_BY_TEXT: readonly (readonly [RegExp, ErrorKind])[] = [
  [/already exists|already in use|is already (running|stopped|frozen)|is busy running|is running$/i, 'conflict'],
  [/not found$|No such object/i, 'not_found'],
  [/LXD daemon setup in progress|is shutting down/i, 'unavailable'],
];

export function engineError(code: number, reply: string, context: string): EngineError {
  const text = reply.trim();
  const byText = KIND_BY_TEXT.find(([pattern]) => pattern.test(text))?.[1];
  const byCode = KIND_BY_CODE[code] ?? 'internal';
  return new EngineError(byCode === 'invalid' || byCode === 'internal' ? (byText ?? byCode) : byCode, context, text);
}

const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ENOENT',
  'EACCES',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ECONNABORTED',
]);

/** Nothing listens, or the connection broke. The message names address and request. */
export class EngineUnreachableError extends AppError {
  constructor(message: string, options?: ErrorOptions) {
    super('unavailable', message, options);
  }
}

/** A request that got no answer. The signal's own reason is kept, so that callers can tell a cancellation. */
export function transportError(error: unknown, context: string, signal?: AbortSignal): Error {
  if (signal?.aborted) return asError(signal.reason);
  const cause = asError(error);
  const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
  const text = `${context}: ${cause.message || code || 'the connection failed'}`;
  return UNREACHABLE.has(code)
    ? new EngineUnreachableError(text, { cause })
    : new AppError('internal', text, { cause });
}
