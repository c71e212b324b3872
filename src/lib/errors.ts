// The one error type of the project: a closed set of kinds that the edges translate.

export type ErrorKind =
  | 'invalid'
  | 'unauthorized'
  | 'forbidden'
  | 'not_found'
  | 'conflict'
  | 'unsupported'
  | 'unavailable'
  | 'internal';

/** An expected failure. `message` says what failed on which object; `cause` is what made it fail. */
export class AppError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.kind = kind;
  }
}

const KINDS: ReadonlySet<unknown> = new Set<ErrorKind>([
  'invalid',
  'unauthorized',
  'forbidden',
  'not_found',
  'conflict',
  'unsupported',
  'unavailable',
  'internal',
]);

/** The kind of any thrown value (ours, or a client package's with the same kinds); anything else is `internal`. */
export function kindOf(error: unknown): ErrorKind {
  const kind = error instanceof Error && 'kind' in error ? error.kind : undefined;
  return KINDS.has(kind) ? (kind as ErrorKind) : 'internal';
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Narrows any thrown value to an Error. */
export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
