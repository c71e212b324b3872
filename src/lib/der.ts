// Just enough of DER to write a certificate: Node reads X.509 but cannot make it.

const TAG = { integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, utf8: 0x0c, sequence: 0x30, set: 0x31 } as const;
const GENERALIZED_TIME = 0x18;

/** One value with its tag and length. */
export function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const digits = length.toString(16);
  const bytes = Buffer.from(digits.padStart(digits.length + (digits.length % 2), '0'), 'hex');
  return Buffer.concat([Buffer.from([0x80 | bytes.length]), bytes]);
}

export const sequence = (...items: readonly Buffer[]) => der(TAG.sequence, ...items);
export const set = (...items: readonly Buffer[]) => der(TAG.set, ...items);
export const octets = (content: Buffer) => der(TAG.octets, content);
export const bits = (content: Buffer) => der(TAG.bits, Buffer.from([0]), content);
export const text = (content: string) => der(TAG.utf8, Buffer.from(content));
export const boolean = (value: boolean) => der(0x01, Buffer.from([value ? 0xff : 0]));

/** Context-specific, constructed. */
export const tagged = (number: number, content: Buffer) => der(0xa0 | number, content);

/** A positive number. */
export function integer(bytes: Buffer): Buffer {
  const isNegative = ((bytes[0] ?? 0) & 0x80) !== 0;
  return der(TAG.integer, isNegative ? Buffer.concat([Buffer.from([0]), bytes]) : bytes);
}

export function time(date: Date): Buffer {
  const digits = date.toISOString().replaceAll(/\D/gu, '').slice(0, 14);
  return der(GENERALIZED_TIME, Buffer.from(`${digits}Z`));
}

export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  return der(TAG.oid, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]));
}

function base128(value: number): readonly number[] {
  const bytes = [value & 0x7f];
  for (let left = value >> 7; left > 0; left >>= 7) bytes.unshift((left & 0x7f) | 0x80);
  return bytes;
}
