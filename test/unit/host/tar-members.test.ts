// Archives read member by member, in pieces of any size, as ours and those of others are written.
import { text } from 'node:stream/consumers';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { tarMembersOf } from '#src/host/unpack/tar-members.ts';
import { tarEnd, tarHeader, tarPadding } from '#src/lib/tar.ts';

interface File {
  readonly name: string;
  readonly content: string;
}

function archiveOf(files: readonly File[]): Buffer {
  const parts = files.flatMap(({ name, content }) => {
    const data = Buffer.from(content);
    return [tarHeader(name, data.length), data, tarPadding(data.length)];
  });
  return Buffer.concat([...parts, tarEnd()]);
}

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Buffer, size = 1000): Promise<readonly File[]> {
  const found: File[] = [];
  for await (const { name, content } of tarMembersOf(inPieces(bytes, size))) {
    found.push({ name, content: await text(content) });
  }
  return found;
}

describe('members of a tar', () => {
  it('come as they were written, with names of any length, in whatever pieces', async () => {
    const name = fc.stringMatching(/^[a-zé][a-zé/._-]{0,299}$/u);
    const files = fc.array(fc.record({ name, content: fc.string({ maxLength: 2000 }) }), { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(files, fc.integer({ min: 1, max: 3000 }), async (written, size) => {
        expect(await read(archiveOf(written), size)).toEqual(written);
      }),
      { numRuns: 50 },
    );
  });

  it('are passed over when nobody reads them, or not to the end', async () => {
    const big = 'x'.repeat(200_000);
    const bytes = archiveOf([
      { name: 'a', content: big },
      { name: 'b', content: big },
      { name: 'c', content: 'end' },
    ]);

    const seen: string[] = [];
    for await (const { name, content } of tarMembersOf(inPieces(bytes, 700))) {
      seen.push(name);
      if (name === 'b') for await (const _ of content) break; // which has read ahead
      if (name === 'c') expect(await text(content)).toBe('end');
    }

    expect(seen).toEqual(['a', 'b', 'c']);
  });

  it('tell sizes that octal digits have no room for', () => {
    const size = 9 * 2 ** 30;

    expect(tarHeader('large', size).readBigUInt64BE(128)).toBe(BigInt(size));
  });

  it('end with an error in what was cut off or is no tar', async () => {
    const bytes = archiveOf([{ name: 'a', content: 'x'.repeat(5000) }]);

    await expect(read(bytes.subarray(0, 3000))).rejects.toThrow('truncated');
    await expect(read(Buffer.alloc(1024, 'no tar'))).rejects.toThrow('damaged header');
  });
});
