import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { tarNames, writeTar } from '#src/lib/tar.ts';

const name = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}(\/[A-Za-z0-9_.-]{1,20}[A-Za-z0-9])?$/);

it('reads the names that were written', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.record({ name, content: fc.string() }), { minLength: 1, selector: (file) => file.name }),
      (files) => {
        expect(tarNames(writeTar(files))).toEqual(files.map((file) => file.name));
      },
    ),
  );
});

it('writes the same bytes for the same files', () => {
  const files = [{ name: 'metadata.yaml', content: 'architecture: x86_64\n' }];

  expect(writeTar(files)).toEqual(writeTar(files));
});

it('reads as far as the head goes', () => {
  const archive = writeTar([
    { name: 'a', content: 'x'.repeat(5000) },
    { name: 'b', content: '' },
  ]);

  expect(tarNames(archive.subarray(0, 1024))).toEqual(['a']);
});

it('takes nothing else for an archive', () => {
  expect(tarNames(Buffer.alloc(1024))).toBeUndefined();
  expect(tarNames(Buffer.from('metadata.yaml'))).toBeUndefined();
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 512, maxLength: 2048 }), (bytes) => {
      expect(tarNames(Buffer.from(bytes))).toBeUndefined();
    }),
  );
});

it('refuses a name that does not fit', () => {
  expect(() => writeTar([{ name: 'x'.repeat(101), content: '' }])).toThrow(RangeError);
});
