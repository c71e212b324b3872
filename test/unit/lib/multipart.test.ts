// Forms: whatever the chunks are, the parts are the same.
import { buffer } from 'node:stream/consumers';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { boundaryOf, formParts } from '#src/lib/multipart.ts';

const BOUNDARY = 'xYz';

function formOf(parts: readonly (readonly [string, Buffer])[]): Buffer {
  const pieces = parts.flatMap(([name, content], index) => [
    Buffer.from(
      `${index === 0 ? '' : '\r\n'}--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"; filename="f\\"${index}"\r\n\r\n`,
    ),
    content,
  ]);
  return Buffer.concat([...pieces, Buffer.from(`\r\n--${BOUNDARY}--\r\n`)]);
}

async function* inChunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(body: AsyncIterable<Buffer>) {
  const parts: [string, string, string][] = [];
  for await (const { name, filename, content } of formParts(body, BOUNDARY)) {
    parts.push([name, filename, (await buffer(content)).toString('latin1')]);
  }
  return parts;
}

it('reads the parts of any content in chunks of any size', async () => {
  // Bytes that look like boundaries are the interesting ones.
  const content = fc
    .array(fc.constantFrom('\r', '\n', '-', 'x', 'Y', 'z', '\r\n--', '\r\n--xY', '\0'), { maxLength: 40 })
    .map((pieces) => pieces.join(''))
    .filter((text) => !`\r\n${text}`.includes(`\r\n--${BOUNDARY}`));
  await fc.assert(
    fc.asyncProperty(
      fc.array(content, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 64 }),
      async (texts, size) => {
        const form = formOf(texts.map((text, index) => [`p${index}`, Buffer.from(text, 'latin1')]));

        expect(await read(inChunks(form, size))).toEqual(texts.map((text, index) => [`p${index}`, `f"${index}`, text]));
      },
    ),
    { numRuns: 200 },
  );
});

describe('a form that is not one', () => {
  it('is refused when it ends early', async () => {
    const form = formOf([['metadata', Buffer.from('content')]]);

    await expect(read(inChunks(form.subarray(0, form.length - 10), 7))).rejects.toThrow('unexpected end of the form');
  });

  it('is refused when a header never ends', async () => {
    async function* endless() {
      yield Buffer.from(`--${BOUNDARY}\r\n`);
      for (;;) yield Buffer.alloc(4096, 'a');
    }

    await expect(read(endless())).rejects.toThrow('too long');
  });
});

it('finds the boundary of a form alone', () => {
  expect(boundaryOf('multipart/form-data; boundary=abc')).toBe('abc');
  expect(boundaryOf('Multipart/Form-Data; charset=x; boundary="a b"')).toBe('a b');
  expect(boundaryOf('application/octet-stream; boundary=abc')).toBeUndefined();
});
