// Typed errors: what went wrong with an OpenStack request, and whether asking again can help.

export type OpenStackErrorKind =
  | 'invalid'
  | 'unauthorized'
  | 'forbidden'
  | 'not_found'
  | 'conflict'
  | 'unavailable'
  | 'internal';

export interface OpenStackErrorDetails {
  /** HTTP status; absent when there was no answer. */
  readonly status?: number;
  /** The service's own error code: Placement's `code`, Neutron's `type`. */
  readonly code?: string;
  readonly cause?: unknown;
}

const KIND_BY_STATUS: Readonly<Record<number, OpenStackErrorKind>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'not_found',
  409: 'conflict',
  429: 'unavailable',
  502: 'unavailable',
  503: 'unavailable',
  504: 'unavailable',
};

/** A failed request. The message names service, method and path, and quotes the service's own message; never a token. */
export class OpenStackError extends Error {
  readonly kind: OpenStackErrorKind;
  readonly status: number | undefined;
  readonly code: string | undefined;

  constructor(message: string, { status, code, cause }: OpenStackErrorDetails = {}) {
    super(message, { cause });
    this.name = 'OpenStackError';
    this.status = status;
    this.code = code;
    this.kind = kindOfStatus(status);
  }
}

function kindOfStatus(status: number | undefined): OpenStackErrorKind {
  if (status === undefined) return 'unavailable';
  return KIND_BY_STATUS[status] ?? (status >= 500 ? 'internal' : 'invalid');
}

interface ErrorBody {
  readonly message?: unknown;
  readonly detail?: unknown;
  readonly type?: unknown;
  readonly code?: unknown;
}

/** Finds message and code in the shapes that the services use. */
export function describeBody(body: unknown): { message: string | undefined; code: string | undefined } {
  if (typeof body === 'string') return { message: body.trim().slice(0, 500) || undefined, code: undefined };
  if (typeof body !== 'object' || body === null) return { message: undefined, code: undefined };
  const found = innermost(body as Record<string, unknown>);
  const code = found.type ?? found.code;
  const message = found.message ?? found.detail;
  return {
    message: typeof message === 'string' ? message.slice(0, 1000) : undefined,
    code: typeof code === 'string' ? code : undefined,
  };
}

/** Keystone {error: {…}}, Placement {errors: [{…}]}, Neutron {NeutronError: {…}}, Glance {message}. */
function innermost(body: Record<string, unknown>): ErrorBody {
  const { errors } = body;
  if (Array.isArray(errors)) return { ...(errors[0] as ErrorBody) };
  if (typeof body['message'] === 'string') return body;
  const nested = Object.values(body).find((value) => typeof value === 'object' && value !== null);
  return nested ?? body;
}
