// SFTP packets as bytes: cut anywhere, too long, too short, and back to what they were made of.
import { Readable } from 'node:stream';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { longName } from '#src/engine/sftp/long-name.ts';
import {
  attributes,
  bytes,
  MAX_PACKET_BYTES,
  packet,
  PacketReader,
  packetsOf,
  TYPE,
  uint32,
  type WireAttributes,
} from '#src/engine/sftp/packets.ts';

async function packetsIn(...chunks: readonly Buffer[]): Promise<readonly Buffer[]> {
  const found: Buffer[] = [];
  for await (const one of packetsOf(Readable.from(chunks, { objectMode: true }))) found.push(Buffer.from(one));
  return found;
}

describe('a stream of packets', () => {
  it('is the same however it is cut', async () => {
    const lists = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(lists, fc.integer({ min: 1, max: 30 }), async (bodies, size) => {
        const whole = Buffer.concat(bodies.map((body) => Buffer.concat([uint32(body.length), body])));
        const chunks = Array.from({ length: Math.ceil(whole.length / size) }, (_one, at) =>
          whole.subarray(at * size, (at + 1) * size),
        );

        expect(await packetsIn(...chunks)).toEqual(bodies.map((body) => Buffer.from(body)));
      }),
    );
  });

  it('has no packet that is too long or empty', async () => {
    await expect(packetsIn(uint32(MAX_PACKET_BYTES + 1))).rejects.toThrow('too long');
    await expect(packetsIn(packet(TYPE.stat, bytes('/')), uint32(0xffffffff))).rejects.toThrow('too long');
    await expect(packetsIn(uint32(0))).rejects.toThrow('empty');
  });
});

describe('a packet', () => {
  it('gives attributes back as they were written', () => {
    const ids = fc.record({ uid: fc.nat(), gid: fc.nat() });
    const times = fc.record({ accessed: fc.nat(), modified: fc.nat() });
    const all = fc.record(
      { size: fc.maxSafeNat(), owner: ids, mode: fc.nat({ max: 0o177777 }), times },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(all, (given) => {
        const wanted = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));

        expect(new PacketReader(attributes(given as WireAttributes)).attributes()).toEqual(wanted);
      }),
    );
  });

  it('skips attributes of others', () => {
    const extended = Buffer.concat([
      uint32(0x80000004),
      uint32(0o644),
      uint32(1),
      bytes('acl@x'),
      bytes('y'),
      uint32(7),
    ]);
    const reader = new PacketReader(extended);

    expect(reader.attributes()).toEqual({ mode: 0o644 });
    expect(reader.uint32()).toBe(7);
  });

  it.each([
    [uint32(5), (reader: PacketReader) => reader.bytes()],
    [Buffer.of(1), (reader: PacketReader) => reader.uint32()],
    [Buffer.concat([uint32(0x80000000), uint32(0xffffffff)]), (reader: PacketReader) => reader.attributes()],
    [Buffer.alloc(8, 0xff), (reader: PacketReader) => reader.uint64()],
  ])('that lies about its length is refused %#', (data, read) => {
    expect(() => read(new PacketReader(data))).toThrow('SFTP');
  });

  it('shows an entry as ls does', () => {
    const modified = new Date('2024-03-05T00:00:00Z');
    const found = {
      kind: 'directory',
      uid: 1000,
      gid: 0,
      mode: 0o40750,
      sizeBytes: 42,
      accessed: modified,
      modified,
    } as const;

    expect(longName('d', found).replaceAll(/ +/g, ' ')).toBe('drwxr-x--- 1 1000 0 42 Mar 5 2024 d');
  });
});
