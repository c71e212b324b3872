// What passes of a btrfs stream, and what does not.
import { describe, expect, it } from 'vitest';
import { checkedStream, type StreamBase } from '#drivers/storage/btrfs/stream-commands.ts';

const OWN = 'aa'.repeat(16);
const BASE: StreamBase = { guid: 'bb'.repeat(16), localUuid: 'cc'.repeat(16) };
const HEADER = Buffer.concat([Buffer.from('btrfs-stream\0'), Buffer.from([1, 0, 0, 0])]);

function attribute(type: number, value: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(type, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, value]);
}

function command(type: number, ...attributes: readonly Buffer[]): Buffer {
  const body = Buffer.concat(attributes);
  const head = Buffer.alloc(10);
  head.writeUInt32LE(body.length, 0);
  head.writeUInt16LE(type, 4);
  return Buffer.concat([head, body]);
}

const uuid = (text: string): Buffer => Buffer.from(text, 'hex');
const path = attribute(15, Buffer.from('rootfs/file'));
const subvolume = command(1, attribute(15, Buffer.from('name')), attribute(1, uuid(OWN)));
const snapshot = (of: string): Buffer => command(2, attribute(1, uuid(OWN)), attribute(20, uuid(of)));
const clone = (of: string): Buffer => command(16, path, attribute(20, uuid(of)));
const write = command(15, path, attribute(19, Buffer.alloc(1000, 1)));
const end = command(21);

/** In pieces of `size` bytes. */
async function passed(parts: readonly Buffer[], { base, size = 7 }: { base?: StreamBase; size?: number } = {}) {
  const all = Buffer.concat([HEADER, ...parts]);
  const pieces = Array.from({ length: Math.ceil(all.length / size) }, (_, index) => {
    return Buffer.from(all.subarray(index * size, (index + 1) * size));
  });
  const source = (async function* () {
    for (const piece of pieces) yield await Promise.resolve(piece);
  })();
  const checked = checkedStream(source, base);
  const out: Buffer[] = [];
  for await (const chunk of checked.chunks) out.push(chunk);
  return { bytes: Buffer.concat(out), uuid: checked.uuid() };
}

describe('a stream of btrfs', () => {
  it.each([1, 7, 100_000])('passes as it is, in pieces of %i bytes', async (size) => {
    const parts = [subvolume, write, clone(OWN), end];

    expect(await passed(parts, { size })).toEqual({ bytes: Buffer.concat([HEADER, ...parts]), uuid: OWN });
  });

  it('names its base as it is known here, under a new checksum', async () => {
    const { bytes } = await passed([snapshot(BASE.guid), write, clone(BASE.guid), clone(OWN), end], { base: BASE });

    const text = bytes.toString('hex');
    expect(text).not.toContain(BASE.guid);
    expect(text.split(BASE.localUuid)).toHaveLength(3);
    // Sums of the kernel's crc32c, begun with 0 and not inverted, over the commands with 0 in their place.
    expect(bytes.readUInt32LE(HEADER.length + 6)).toBe(sum(snapshot(BASE.localUuid)));
  });

  it.each([
    ['without a beginning', [Buffer.from('x'.repeat(40))]],
    ['without an end', [subvolume, write]],
    ['cut off in a command', [subvolume, write, end.subarray(0, 9)]],
    ['that goes on after its end', [subvolume, end, write]],
    ['with a second subvolume', [subvolume, subvolume, end]],
    ['without a subvolume', [write, end]],
    ['that builds on a snapshot which is not here', [snapshot(BASE.guid), end]],
    ['that reads from another subvolume', [subvolume, clone('dd'.repeat(16)), end]],
    ['with a command without end', [subvolume, Buffer.from('ffffffff0f0000000000', 'hex')]],
  ])('is refused %s', async (_, parts) => {
    await expect(passed(parts)).rejects.toThrow('not one of btrfs send');
  });

  it('is refused when it builds on another base, or on none', async () => {
    await expect(passed([snapshot('dd'.repeat(16)), end], { base: BASE })).rejects.toThrow('another snapshot');
    await expect(passed([subvolume, end], { base: BASE })).rejects.toThrow('does not build');
  });
});

/** Bit by bit. */
function sum(bytes: Buffer): number {
  let value = 0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  }
  return value >>> 0;
}
