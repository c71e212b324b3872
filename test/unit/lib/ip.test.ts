// IP addresses and networks.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bytesValue,
  contains,
  eui64Address,
  firstOf,
  inRange,
  ipText,
  lastOf,
  networkText,
  overlap,
  parseIp,
  parseNetwork,
  parseRange,
  subnetText,
} from '#src/lib/ip.ts';

const network = (text: string) => {
  const parsed = parseNetwork(text);
  if (!parsed) throw new Error(`not a network: ${text}`);
  return parsed;
};
const ip = (text: string) => network(`${text}/${text.includes(':') ? 128 : 32}`).address;

describe('addresses', () => {
  it('are shortened as RFC 5952 says', () => {
    const text = (hex: string) => ipText({ family: 6, value: bytesValue(Buffer.from(hex, 'hex')) });

    expect(text('00000000000000000000000000000001')).toBe('::1');
    expect(text('20010db8000000000001000000000001')).toBe('2001:db8::1:0:0:1');
    expect(text('fe80000000000000021631fffe219999')).toBe('fe80::216:31ff:fe21:9999');
    expect(text('20010db8000100010001000100010001')).toBe('2001:db8:1:1:1:1:1:1');
    expect(text('00000000000000000000000000000000')).toBe('::');
  });

  it('come back from their text', () => {
    const families = [
      { family: 4, limit: 32n },
      { family: 6, limit: 128n },
    ] as const;
    for (const { family, limit } of families) {
      fc.assert(
        fc.property(fc.bigInt({ min: 0n, max: (1n << limit) - 1n }), (value) => {
          expect(parseIp(ipText({ family, value }))).toEqual({ family, value });
        }),
      );
    }
  });

  it('are read with a dotted end and refused with a zone or a leading zero', () => {
    expect(ipText(ip('::ffff:10.0.0.1'))).toBe('::ffff:a00:1');
    for (const text of ['fe80::1%eth0', '10.0.0.01', '10.0.0', 'x', '']) expect(parseIp(text)).toBeUndefined();
  });
});

describe('networks', () => {
  it('know their ends and what lies in them', () => {
    const net = network('10.1.2.3/20');

    expect([ipText(firstOf(net)), ipText(lastOf(net)), subnetText(net)]).toEqual([
      '10.1.0.0',
      '10.1.15.255',
      '10.1.0.0/20',
    ]);
    expect(contains(net, ip('10.1.15.9'))).toBe(true);
    expect(contains(net, ip('10.1.16.0'))).toBe(false);
    expect(contains(net, ip('::1'))).toBe(false);
    expect(overlap(net, network('10.0.0.0/8'))).toBe(true);
    expect(overlap(network('10.2.0.0/16'), net)).toBe(false);
    expect(networkText(network('fd42::1/64'))).toBe('fd42::1/64');
    for (const text of ['10.0.0.0', '10.0.0.0/33', 'fd42::/129', '10.0.0.0/-1']) {
      expect(parseNetwork(text)).toBeUndefined();
    }
  });

  it('have ranges', () => {
    const range = parseRange('10.0.0.5-10.0.0.9');

    expect(range && inRange(range, ip('10.0.0.9'))).toBe(true);
    expect(range && inRange(range, ip('10.0.0.10'))).toBe(false);
    for (const text of ['10.0.0.9-10.0.0.5', '10.0.0.1-fd42::1', '10.0.0.1-10.0.0.2-10.0.0.3', '-']) {
      expect(parseRange(text)).toBeUndefined();
    }
  });

  it('know the address that a MAC address gives', () => {
    expect(ipText(eui64Address(network('fd42:1:2:3::1/64'), '00:16:3e:21:99:99'))).toBe(
      'fd42:1:2:3:216:3eff:fe21:9999',
    );
  });
});
