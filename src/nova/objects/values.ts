// Field values to and from JSON (nova-compute-contract section 3.2).
import { truthOf } from '#src/lib/truth.ts';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { ContainerType, FieldType, ScalarKind } from './field-type.ts';

/** How nested objects are made from and turned into primitives; the values themselves know nothing of objects. */
export interface ObjectCodec {
  decode(raw: unknown): unknown;
  /** Undefined when `value` is not an object of the model. */
  encode(value: unknown): unknown;
}

/** Reads leniently, as Nova's own field coercion does; what cannot be read at all is `invalid`. */
export function decodeValue(type: FieldType, raw: unknown, objects: ObjectCodec): unknown {
  if (raw === null || raw === undefined) return null;
  switch (type.kind) {
    case 'object':
      return objects.decode(raw);
    case 'list':
    case 'set':
    case 'dict':
      return decodeContainer(type, raw, objects);
    default:
      return DECODERS[type.kind](raw);
  }
}

function decodeContainer(type: ContainerType, raw: unknown, objects: ObjectCodec): unknown {
  const decode = (item: unknown): unknown => decodeValue(type.of, item, objects);
  if (type.kind === 'dict') {
    if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw unreadable('dict', raw);
    return Object.fromEntries(Object.entries(raw).map(([key, item]) => [key, decode(item)]));
  }
  if (!Array.isArray(raw)) throw unreadable(type.kind, raw);
  return type.kind === 'set' ? new Set(raw.map(decode)) : raw.map(decode);
}

const DECODERS: Readonly<Record<ScalarKind, (raw: unknown) => unknown>> = {
  string: decodeString,
  secret: decodeString,
  integer: (raw) => Math.trunc(decodeNumber(raw)),
  float: decodeNumber,
  boolean: decodeBoolean,
  datetime: decodeDate,
};

function decodeString(raw: unknown): string {
  if (typeof raw === 'string') return raw;
  if (typeof raw === 'number' || typeof raw === 'boolean') return String(raw);
  throw unreadable('string', raw);
}

function decodeNumber(raw: unknown): number {
  const value = typeof raw === 'string' && raw.trim() !== '' ? Number(raw) : raw;
  if (typeof value === 'boolean') return Number(value);
  if (typeof value !== 'number' || Number.isNaN(value)) throw unreadable('number', raw);
  return value;
}

function decodeBoolean(raw: unknown): boolean {
  if (typeof raw === 'boolean') return raw;
  if (typeof raw === 'string') return truthOf(raw) === true;
  if (typeof raw === 'number') return raw !== 0;
  throw unreadable('boolean', raw);
}

/** `YYYY-MM-DDTHH:MM:SSZ` and other ISO 8601 forms; what names no zone is UTC, where Date would take local time. */
function decodeDate(raw: unknown): Date {
  const text = typeof raw === 'string' ? raw.trim().replace(' ', 'T') : '';
  const date = new Date(/(Z|[+-]\d{2}:?\d{2})$/i.test(text) || !text.includes('T') ? text : `${text}Z`);
  if (Number.isNaN(date.getTime())) throw unreadable('datetime', raw);
  return date;
}

/** The JSON of a value that we set ourselves: strict, a wrong type is our mistake (`internal`). */
export function encodeValue(type: FieldType, value: unknown, objects: ObjectCodec): unknown {
  if (value === null) {
    if (!type.nullable) throw unfit(`not nullable`);
    return null;
  }
  switch (type.kind) {
    case 'object':
      return objects.encode(value) ?? fail(`not a ${type.name} object`);
    case 'list':
    case 'set':
    case 'dict':
      return encodeContainer(type, value, objects);
    default:
      return encodeScalar(type.kind, value);
  }
}

function encodeContainer(type: ContainerType, value: unknown, objects: ObjectCodec): unknown {
  const encode = (item: unknown): unknown => encodeValue(type.of, item, objects);
  if (type.kind === 'dict') {
    if (typeof value !== 'object' || value === null) throw unfit('not a dict');
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, encode(item)]));
  }
  if (type.kind === 'set' ? value instanceof Set : Array.isArray(value))
    return [...(value as Iterable<unknown>)].map(encode);
  throw unfit(`not a ${type.kind}`);
}

const FITS: Readonly<Record<ScalarKind, (value: unknown) => boolean>> = {
  string: (value) => typeof value === 'string',
  secret: (value) => typeof value === 'string',
  integer: Number.isInteger,
  float: Number.isFinite,
  boolean: (value) => typeof value === 'boolean',
  datetime: (value) => value instanceof Date && !Number.isNaN(value.getTime()),
};

function encodeScalar(kind: ScalarKind, value: unknown): unknown {
  if (!FITS[kind](value)) throw unfit(`not a ${kind}`);
  return value instanceof Date ? encodeDate(value) : value;
}

/** Second resolution with Z, as Nova writes it. */
export function encodeDate(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}

function unreadable(kind: string, raw: unknown): AppError {
  return new AppError('invalid', `cannot read ${raw === null ? 'null' : typeof raw} as ${kind}`);
}

function unfit(what: string): AppError {
  return new AppError('internal', what);
}

function fail(what: string): never {
  throw unfit(what);
}

/** Says which field of which object an error of this module is about. */
export function inField(object: string, field: string, error: unknown): AppError {
  const kind = error instanceof AppError ? error.kind : 'internal';
  return new AppError(kind, `${object}.${field}: ${messageOf(error)}`, { cause: error });
}
