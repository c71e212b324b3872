// Errors of the message bus that callers tell apart by their fields.
import { AppError } from '#src/lib/errors.ts';
import type { WireFailure } from './types.ts';

/** The peer raised this exception while it served our call (section 1.9). Nothing of it is trusted: plain JSON. */
export class RemoteError extends AppError {
  /** Behind accessors, so that a log of the error never carries the peer's arguments and traceback along. */
  readonly #failure: WireFailure;

  constructor(failure: WireFailure, options?: ErrorOptions) {
    super('internal', `${failure.class}: ${failure.message}`, options);
    this.#failure = failure;
  }

  /** Such as 'InstanceNotFound'. */
  get remoteClass(): string {
    return this.#failure.class;
  }

  /** Such as 'nova.exception'. */
  get remoteModule(): string {
    return this.#failure.module;
  }

  /** The peer's message, without the class in front. */
  get remoteMessage(): string {
    return this.#failure.message;
  }

  get args(): readonly unknown[] {
    return this.#failure.args;
  }

  get kwargs(): Readonly<Record<string, unknown>> {
    return this.#failure.kwargs;
  }

  /** The peer's traceback. */
  get tb(): readonly string[] {
    return this.#failure.tb;
  }
}

/** Whether `error` is the peer's exception of that class, such as 'InstanceNotFound'. */
export function isRemote(error: unknown, ...classes: readonly string[]): error is RemoteError {
  return error instanceof RemoteError && classes.includes(error.remoteClass);
}

/** The broker returned a mandatory message: no queue of that name. */
export class UndeliverableError extends AppError {
  readonly routingKey: string;

  constructor(routingKey: string) {
    super('unavailable', `no queue '${routingKey}' on the broker`);
    this.routingKey = routingKey;
  }
}
