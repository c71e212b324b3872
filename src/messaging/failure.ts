// Exceptions on the wire, both ways (section 1.9).
import { AppError, asError, kindOf } from '#src/lib/errors.ts';
import { RemoteError } from './errors.ts';
import type { WireFailure } from './types.ts';

const REMOTE_POSTFIX = '_Remote';

/** The JSON text for the key `failure`. A re-raised remote exception loses its `_Remote` again. */
export function encodeFailure(failure: WireFailure): string {
  const isRemote = failure.class.endsWith(REMOTE_POSTFIX) && failure.module.endsWith(REMOTE_POSTFIX);
  const trim = (name: string): string => (isRemote ? name.slice(0, -REMOTE_POSTFIX.length) : name);
  return JSON.stringify({
    class: trim(failure.class),
    module: trim(failure.module),
    message: failure.message,
    tb: failure.tb,
    args: failure.args,
    kwargs: failure.kwargs,
  });
}

/** The peer's exception; a `failure` that is no such JSON text becomes a RemoteError without class. */
export function decodeFailure(failure: unknown): RemoteError {
  const data = typeof failure === 'string' ? parse(failure) : failure;
  const fields = (typeof data === 'object' && data !== null ? data : {}) as Readonly<Record<string, unknown>>;
  return new RemoteError({
    class: text(fields['class'], 'RemoteError'),
    module: text(fields['module'], ''),
    message: text(fields['message'], 'the peer failed without a readable reason'),
    tb: Array.isArray(fields['tb']) ? fields['tb'].map(String) : [],
    args: Array.isArray(fields['args']) ? fields['args'] : [],
    kwargs: isRecord(fields['kwargs']) ? fields['kwargs'] : {},
  });
}

/** The default serializer: no class of Nova's is guessed; the peer sees builtins or what it sent itself. */
export function plainFailure(error: unknown): WireFailure {
  if (error instanceof RemoteError) {
    const { remoteClass, remoteModule, remoteMessage: message, args, kwargs, tb } = error;
    return { class: remoteClass, module: remoteModule, message, args, kwargs, tb };
  }
  const { message, stack = '' } = asError(error);
  const name = kindOf(error) === 'unsupported' ? 'NotImplementedError' : 'RuntimeError';
  return builtin(name, message, stack.split('\n'));
}

/** Raised by the dispatcher itself: no endpoint of that namespace and version, or none with that method. */
export class DispatchError extends AppError {
  readonly #name: 'UnsupportedVersion' | 'NoSuchMethod';

  constructor(name: 'UnsupportedVersion' | 'NoSuchMethod', message: string) {
    super('unsupported', message);
    this.#name = name;
  }

  get failure(): WireFailure {
    const { message } = this;
    const module = 'oslo_messaging.rpc.dispatcher';
    const tb = [`${module}.${this.#name}: ${message}\n`];
    return { class: this.#name, module, message, args: [message], kwargs: {}, tb };
  }
}

function builtin(name: string, message: string, tb: readonly string[]): WireFailure {
  return { class: name, module: 'builtins', message, args: [message], kwargs: {}, tb };
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return { message: json };
  }
}

function text(value: unknown, fallback: string): string {
  return typeof value === 'string' ? value : fallback;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
