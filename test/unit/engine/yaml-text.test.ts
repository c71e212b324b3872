// Backups describe themselves in YAML that LXD, scripts and we read alike.
import { parse } from 'yaml';
import { expect, it } from 'vitest';
import { parseIndex } from '#src/engine/backups/read-index.ts';
import { yamlText } from '#src/engine/backups/yaml-text.ts';

it('is YAML in lines, without aliases', async () => {
  const same = { 'user.a': 'b' };

  const text = await yamlText({
    name: 'c1',
    snapshots: ['s0', 's1'],
    config: { container: { config: same }, volume: { config: same } },
  });

  expect(text.split('\n').slice(0, 4)).toEqual(['name: c1', 'snapshots:', '- s0', '- s1']);
  expect(text).not.toMatch(/[&*]/u);
  expect((await parseIndex(text)).snapshots).toEqual(['s0', 's1']);
});

it.each([
  'yes',
  'off',
  '12:30',
  '1_000',
  '0o17',
  '017',
  'null',
  '~',
  '2026-01-01',
  '<<',
  'a: b',
  "'",
  '- x',
  '',
  ' ',
  'a\nb\n',
  '\u0000\u0007',
  `${'x '.repeat(200)}y`,
])('keeps the text %j', async (value) => {
  const text = await yamlText({ value });

  expect(parse(text, { version: '1.1' })).toEqual({ value });
  expect(parse(text, { schema: 'core' })).toEqual({ value });
});
