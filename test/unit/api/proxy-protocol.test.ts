// Headers of the PROXY protocol, whole, in pieces and broken.
import { describe, expect, it } from 'vitest';
import { parseProxyHeader } from '#src/api/proxy-protocol.ts';

const V1 = Buffer.from('PROXY TCP4 192.0.2.7 198.51.100.1 4711 8443\r\nrest');
const SIGNATURE = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);

function binary(command: number, family: number, body: readonly number[]): Buffer {
  return Buffer.concat([SIGNATURE, Buffer.from([command, family, body.length >> 8, body.length & 0xff, ...body])]);
}

describe('a PROXY header', () => {
  it('of version 1 names the client', () => {
    expect(parseProxyHeader(V1)).toEqual({ length: V1.length - 'rest'.length, address: '192.0.2.7:4711' });
    expect(parseProxyHeader(Buffer.from('PROXY UNKNOWN\r\n'))).toEqual({ length: 15 });
  });

  it('of version 2 names the client', () => {
    const body = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x20, 0xfb];
    const six = [
      0x20,
      1,
      0x0d,
      0xb8,
      ...Array.from({ length: 12 }, () => 0),
      ...Array.from({ length: 16 }, () => 0),
      0,
      80,
      0,
      1,
    ];

    expect(parseProxyHeader(binary(0x21, 0x11, body))).toEqual({ length: 28, address: '192.0.2.7:4711' });
    expect(parseProxyHeader(binary(0x21, 0x21, six))).toEqual({ length: 52, address: '2001:db8:0:0:0:0:0:0:80' });
    expect(parseProxyHeader(binary(0x20, 0, []))).toEqual({ length: 16 });
  });

  it('is waited for while it comes in pieces', () => {
    const end = V1.indexOf('\r\n') + 2;
    for (let length = 0; length < end; length++) expect(parseProxyHeader(V1.subarray(0, length))).toBe('more');
    const two = binary(
      0x21,
      0x11,
      Array.from({ length: 12 }, () => 1),
    );
    for (let length = 1; length < two.length; length++) expect(parseProxyHeader(two.subarray(0, length))).toBe('more');
  });

  it('that is broken, or without end, is refused', () => {
    expect(parseProxyHeader(Buffer.from(`PROXY ${'x'.repeat(200)}`))).toBe('bad');
    expect(parseProxyHeader(Buffer.from('PROXY TCP4 a b\r\n'))).toBe('bad');
    expect(parseProxyHeader(binary(0x11, 0x11, []))).toBe('bad');
    expect(parseProxyHeader(Buffer.concat([SIGNATURE, Buffer.from([0x21, 0x11, 0xff, 0xff])]))).toBe('bad');
  });

  it('is none of what begins otherwise', () => {
    expect(parseProxyHeader(Buffer.from([0x16, 3, 1]))).toBe('none');
  });
});
