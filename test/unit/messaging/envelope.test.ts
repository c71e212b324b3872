import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { kindOf } from '#src/lib/errors.ts';
import { decode, encode } from '#src/messaging/envelope.ts';
import { isCompatible } from '#src/messaging/version.ts';

const properties = { contentType: 'application/json', contentEncoding: 'utf-8', headers: {} };
const payload = { method: 'x', args: { text: 'ü "quoted" \\ \u2028', deep: [{ n: null }] } };

describe('envelope', () => {
  it('is JSON inside JSON, version 2.0', () => {
    const { content, headers } = encode(payload, { compression: '' });
    const outer = JSON.parse(content.toString()) as Record<string, unknown>;
    expect(Object.keys(outer)).toEqual(['oslo.version', 'oslo.message']);
    expect(outer['oslo.version']).toBe('2.0');
    expect(JSON.parse(String(outer['oslo.message']))).toEqual(payload);
    expect(headers).toEqual({});
  });

  it('reads what it writes, with and without envelope and compression', () => {
    for (const enveloped of [true, false]) {
      for (const compression of ['', 'gzip']) {
        const { content, headers } = encode(payload, { compression, enveloped });
        expect(decode({ content, properties: { ...properties, headers } })).toEqual(payload);
      }
    }
  });

  it("compresses in the format that kombu calls gzip, zlib's", () => {
    const { content, headers } = encode(payload, { compression: 'gzip' });
    expect(headers).toEqual({ compression: 'application/x-gzip' });
    expect(content[0]).toBe(0x78);
  });

  it.each([
    ['application/x-gzip', deflateSync],
    ['application/x-gzip', gzipSync],
    ['zlib', deflateSync],
    ['application/x-brotli', brotliCompressSync],
  ] as const)('unpacks %s', (compression, pack) => {
    const content = pack(Buffer.from(JSON.stringify(payload)));
    expect(decode({ content, properties: { ...properties, headers: { compression } } })).toEqual(payload);
  });

  it('takes a message without envelope, or with half of one, as the payload', () => {
    expect(decode({ content: Buffer.from('{"a":1}'), properties })).toEqual({ a: 1 });
    expect(decode({ content: Buffer.from('{"oslo.version":"9.0"}'), properties })).toEqual({ 'oslo.version': '9.0' });
    expect(decode({ content: Buffer.from('{"a":1}'), properties: {} })).toEqual({ a: 1 });
  });

  it.each([
    ['not JSON', Buffer.from('{secret'), properties, 'invalid'],
    ['an array', Buffer.from('[]'), properties, 'invalid'],
    ['an inner array', Buffer.from('{"oslo.version":"2.0","oslo.message":"[]"}'), properties, 'invalid'],
    ['an inner object', Buffer.from('{"oslo.version":"2.0","oslo.message":{}}'), properties, 'invalid'],
    ['envelope 2.1', Buffer.from('{"oslo.version":"2.1","oslo.message":"{}"}'), properties, 'unsupported'],
    ['envelope 3.0', Buffer.from('{"oslo.version":"3.0","oslo.message":"{}"}'), properties, 'unsupported'],
    ['pickle', Buffer.from('{}'), { contentType: 'application/x-python-serialize' }, 'unsupported'],
    ['latin-1', Buffer.from('{}'), { ...properties, contentEncoding: 'latin-1' }, 'unsupported'],
    ['bz2', Buffer.from('{}'), { ...properties, headers: { compression: 'application/x-bz2' } }, 'unsupported'],
    ['broken gzip', Buffer.from('{}'), { ...properties, headers: { compression: 'application/x-gzip' } }, 'invalid'],
  ])('refuses %s', (_what, content, given, kind) => {
    try {
      decode({ content, properties: given });
      expect.unreachable();
    } catch (error) {
      expect(kindOf(error)).toBe(kind);
      expect((error as Error).message).not.toContain('secret');
    }
  });
});

describe('versions', () => {
  it.each([
    ['6.5', '6.0', true],
    ['6.5', '6.5', true],
    ['6.5', '6.6', false],
    ['6.5', '5.5', false],
    ['6.5', '7.0', false],
    ['1.1', '1.0', true],
    ['1.1.2', '1.1.2', true],
    ['1.1.2', '1.1.3', false],
    ['1.1', '1.1.1', false],
    ['1.2', '1.1.9', true],
    ['6.5', 'six', false],
    ['6.5', '6', true],
  ])('%s serves %s: %s', (implemented, requested, answer) => {
    expect(isCompatible(implemented, requested)).toBe(answer);
  });
});
