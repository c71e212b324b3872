// As much of protocol buffers (proto2) as the messages of a migration need: varints, text, nested messages, lists.
import { AppError } from '#src/lib/errors.ts';

export type FieldType = 'bool' | 'int' | 'text' | MessageType;

export interface Field {
  readonly number: number;
  readonly type: FieldType;
  readonly list?: boolean;
}

/** Field name → what it is. */
export interface MessageType {
  readonly [name: string]: Field;
}

export type Message = Readonly<Record<string, unknown>>;

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const MAX_DEPTH = 8;

export function encode(type: MessageType, message: Message): Buffer {
  const parts: Buffer[] = [];
  for (const [name, field] of Object.entries(type)) {
    const value = message[name];
    if (value === undefined) continue;
    for (const one of field.list === true ? (value as readonly unknown[]) : [value])
      parts.push(encodeField(field, one));
  }
  return Buffer.concat(parts);
}

function encodeField({ number, type }: Field, value: unknown): Buffer {
  const head = (wire: number): Buffer => varint(BigInt(number * 8 + wire));
  if (type === 'bool') return Buffer.concat([head(VARINT), varint(value === true ? 1n : 0n)]);
  if (type === 'int') return Buffer.concat([head(VARINT), varint(BigInt.asUintN(64, BigInt(Number(value))))]);
  const body = type === 'text' ? Buffer.from(String(value)) : encode(type, value as Message);
  return Buffer.concat([head(BYTES), varint(BigInt(body.length)), body]);
}

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

/** Lists are always there; unknown fields are skipped. AppError 'invalid' for what is no message. */
export function decode(type: MessageType, bytes: Uint8Array, depth = 0): Message {
  if (depth > MAX_DEPTH) throw malformed();
  const reader = new Reader(bytes);
  const byNumber = new Map(Object.entries(type).map(([name, field]) => [field.number, { name, field }] as const));
  const message: Record<string, unknown> = {};
  for (const [name, { list }] of Object.entries(type)) if (list === true) message[name] = [];
  while (!reader.atEnd) {
    const tag = Number(reader.varint());
    const known = byNumber.get(Math.floor(tag / 8));
    const raw = reader.value(tag % 8);
    if (!known) continue;
    const value = valueOf(known.field.type, raw, depth);
    if (known.field.list === true) (message[known.name] as unknown[]).push(value);
    else message[known.name] = value;
  }
  return message;
}

function valueOf(type: FieldType, raw: bigint | Buffer, depth: number): unknown {
  if (type === 'bool' || type === 'int') {
    if (typeof raw !== 'bigint') throw malformed();
    return type === 'bool' ? raw !== 0n : Number(BigInt.asIntN(64, raw));
  }
  if (typeof raw === 'bigint') throw malformed();
  return type === 'text' ? raw.toString('utf8') : decode(type, raw, depth + 1);
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw malformed();
  }

  value(wire: number): bigint | Buffer {
    switch (wire) {
      case VARINT:
        return this.varint();
      case FIXED64:
        return this.#take(8);
      case BYTES:
        return this.#take(Number(this.varint()));
      case FIXED32:
        return this.#take(4);
      default:
        throw malformed();
    }
  }

  #take(length: number): Buffer {
    const end = this.#at + length;
    if (!(end <= this.#bytes.length)) throw malformed();
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

function malformed(): AppError {
  return new AppError('invalid', 'Malformed protobuf message');
}
