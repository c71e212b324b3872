import { expect, it } from 'vitest';
import { truthOf } from '#src/lib/truth.ts';

it.each([
  ['True', true],
  [' yes ', true],
  ['1', true],
  ['OFF', false],
  ['n', false],
  ['', undefined],
  ['2', undefined],
  ['truest', undefined],
])('%j is %s', (text, truth) => {
  expect(truthOf(text)).toBe(truth);
});
