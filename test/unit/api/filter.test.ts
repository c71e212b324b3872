// Filters of lists, and the small parsers of the API.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseJson } from '#src/api/bodies.ts';
import { parseFilter } from '#src/api/filter.ts';
import { PathTable } from '#src/api/path-table.ts';

const object = {
  name: 'c1',
  public: false,
  config: { 'limits.cpu': '2', 'user.a': '' },
  devices: { root: { pool: 'p' } },
};

describe('a filter', () => {
  it.each([
    ['name eq c1', true],
    ['name ne c1', false],
    ['not name eq c1', false],
    ['name eq c2 or config.limits.cpu eq 2', true],
    ['name eq c1 and config.limits.cpu eq 3', false],
    ['devices.root.pool eq p', true],
    ['public eq false', true],
    ['config.user.a eq ""', true],
    ['nothing eq x', false],
    ['nothing ne x', true],
    ['', true],
  ])('%s', (text, passes) => {
    expect(parseFilter(text)(object)).toBe(passes);
  });

  it.each([
    ['name', 'clause has no operator'],
    ['name eq', 'clause has no value'],
    ['name eq a b', 'invalid clause composition'],
    ['name eq a and', 'unterminated compound clause'],
    ['name like a', 'invalid operator "like"'],
  ])('%s is refused', (text, reason) => {
    expect(() => parseFilter(text)).toThrow(`Invalid filter: ${reason}`);
  });

  it('finds any value that is quoted', () => {
    fc.assert(
      fc.property(fc.string(), (value) => {
        const quoted = `"${value.replaceAll(/["\\]/gu, '\\$&')}"`;
        expect(parseFilter(`name eq ${quoted}`)({ name: value })).toBe(true);
      }),
    );
  });
});

it('takes null for absence, and in maps of text for the empty text', () => {
  expect(parseJson('{"a":null,"config":{"k":null},"devices":{"d":null},"list":[{"x":null}]}')).toEqual({
    config: { k: '' },
    devices: {},
    list: [{}],
  });
});

it('keeps a key named __proto__ a key', () => {
  const parsed = parseJson('{"config":{"__proto__":"x"}}') as { config: object };

  expect(Object.keys(parsed.config)).toEqual(['__proto__']);
});

it('tells known paths from unknown ones', () => {
  const paths = new PathTable();
  paths.add('/1.0/images/:fingerprint/export');

  expect(paths.knows('/1.0/images/a%2Fb/export')).toBe(true);
  expect(paths.knows('/1.0/images/export')).toBe(false);
  expect(paths.knows('/1x0/images/a/export')).toBe(false);
});
