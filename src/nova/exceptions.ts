// Nova's exceptions: raised by name, sent as the caller of an RPC expects them, and recognised when they come from a peer.
import { AppError, type ErrorKind, asError, kindOf, messageOf } from '#src/lib/errors.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import type { FailureSerializer, WireFailure } from '#src/messaging/types.ts';
import { type ExceptionDefinition, exceptionTable } from './exception-table.ts';

export type NovaExceptionName = keyof typeof exceptionTable;

type ParamsIn<M> = M extends `${string}{${infer P}}${infer Rest}` ? P | ParamsIn<Rest> : never;
/** The parameters that the message of an exception is made of. */
export type NovaExceptionParams<N extends NovaExceptionName> = {
  readonly [P in ParamsIn<(typeof exceptionTable)[N]['message']>]: unknown;
};

/** An exception that Nova knows by name; its message may be shown to the user. */
export class NovaException extends AppError {
  readonly novaName: NovaExceptionName;
  readonly code: number;
  readonly params: Readonly<Record<string, unknown>>;

  /** Use novaException(). */
  constructor(name: NovaExceptionName, params: Readonly<Record<string, unknown>>, options?: ErrorOptions) {
    super(kindOfException(name), format(exceptionTable[name].message, params), options);
    this.name = name;
    this.novaName = name;
    this.code = exceptionTable[name].code;
    this.params = params;
  }
}

export function novaException<N extends NovaExceptionName>(
  name: N,
  params: NovaExceptionParams<N>,
  options?: ErrorOptions,
): NovaException {
  return new NovaException(name, params, options);
}

const KIND_OF_CODE: Readonly<Record<number, ErrorKind>> = {
  400: 'invalid',
  403: 'forbidden',
  404: 'not_found',
  409: 'conflict',
  413: 'forbidden',
};

function kindOfException(name: NovaExceptionName): ErrorKind {
  return /NotSupported/.test(name) ? 'unsupported' : (KIND_OF_CODE[exceptionTable[name].code] ?? 'internal');
}

function format(message: string, params: Readonly<Record<string, unknown>>): string {
  return message.replace(/\{(\w+)\}/g, (_match, name: string) => text(params[name]));
}

function text(value: unknown): string {
  if (value instanceof Error) return value.message;
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'none');
}

function isExceptionName(name: string): name is NovaExceptionName {
  return Object.hasOwn(exceptionTable, name);
}

/** Nova's name of an exception, ours or a peer's, with the classes it derives from; empty for other errors. */
function lineageOf(error: unknown): readonly string[] {
  const lineage: string[] = [];
  let name =
    error instanceof NovaException ? error.novaName : error instanceof RemoteError ? error.remoteClass : undefined;
  while (name !== undefined) {
    lineage.push(name);
    const definition: ExceptionDefinition | undefined = isExceptionName(name) ? exceptionTable[name] : undefined;
    name = definition?.extends;
  }
  return lineage;
}

/** Whether a peer raised one of these exceptions, or one derived from them (UnexpectedDeletingTaskStateError counts as an UnexpectedTaskStateError). */
export function isRemote(error: unknown, ...names: readonly NovaExceptionName[]): error is RemoteError {
  return error instanceof RemoteError && isNova(error, ...names);
}

/** As isRemote(), for exceptions raised here as well. */
export function isNova(error: unknown, ...names: readonly NovaExceptionName[]): error is RemoteError | NovaException {
  return lineageOf(error).some((name) => names.some((wanted) => wanted === name));
}

/**
 * What the caller of an RPC gets for a thrown error (section 1.9). An error that is not Nova's shows no more than the name
 * of its class: the text may tell about this host or carry secrets, and belongs in our log.
 */
export const serializeNovaFailure: FailureSerializer = (error) => {
  if (error instanceof NovaException) return failureOf(error);
  if (error instanceof RemoteError) return forwarded(error);
  if (kindOf(error) === 'unsupported') {
    const message = messageOf(error);
    return { class: 'NotImplementedError', module: 'builtins', message, args: [message], kwargs: {}, tb: [] };
  }
  const name = asError(error).name;
  return { class: name, module: 'lightervisor', message: name, args: [name], kwargs: {}, tb: [] };
};

function failureOf(error: NovaException): WireFailure {
  return {
    class: error.novaName,
    module: 'nova.exception',
    message: error.message,
    args: [error.message],
    kwargs: { ...jsonParams(error.params), code: error.code },
    tb: (error.stack ?? '').split('\n').map((line) => `${line}\n`),
  };
}

/** A peer's exception passed on, as Nova does it: `_Remote` is the mark of an exception that had travelled before. */
function forwarded(error: RemoteError): WireFailure {
  return {
    class: error.remoteClass.replace(/_Remote$/, ''),
    module: error.remoteModule.replace(/_Remote$/, ''),
    message: error.remoteMessage,
    args: error.args,
    kwargs: error.kwargs,
    tb: error.tb,
  };
}

function jsonParams(params: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(params).map(([key, value]) => [key, value instanceof Error ? value.message : value]),
  );
}

/** What an InstanceFault row says about an error. */
export interface Fault {
  readonly code: number;
  /** At most 255 bytes. */
  readonly message: string;
  /** Shown to administrators; empty unless the code is 500. */
  readonly details: string;
}

/** Appendix D.2, fault rows: errors that are not Nova's are known to the owner by class only. */
export function faultOf(error: unknown): Fault {
  const { code, message } = publicPartOf(error);
  return { code, message: cutToBytes(message, 255), details: code === 500 ? detailsOf(error) : '' };
}

function publicPartOf(error: unknown): { readonly code: number; readonly message: string } {
  if (error instanceof NovaException) return { code: error.code, message: error.message };
  if (error instanceof RemoteError) {
    const code = error.kwargs['code'];
    const isNovas = error.remoteModule.startsWith('nova.exception');
    return { code: typeof code === 'number' ? code : 500, message: isNovas ? error.remoteMessage : error.remoteClass };
  }
  return { code: 500, message: asError(error).name };
}

function detailsOf(error: unknown): string {
  const { stack, cause } = asError(error);
  const own = stack ?? messageOf(error);
  return cause === undefined ? own : `${own}\nCaused by: ${detailsOf(cause)}`;
}

function cutToBytes(message: string, limit: number): string {
  if (Buffer.byteLength(message) <= limit) return message;
  const bytes = Buffer.from(message).subarray(0, limit);
  return bytes.toString().replace(/\uFFFD$/, '');
}
