// Documents of strangers that are read on a thread of their own.
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { parseForeignYaml } from '#src/lib/foreign-yaml.ts';

const LIMIT_MS = 60_000;
const LARGE = `text: ${'a'.repeat(10_000)}`;

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }));
afterEach(() => void vi.useRealTimers());

it('does not count the start of the thread, which takes long on a busy machine', async () => {
  const read = parseForeignYaml(LARGE, { maxAliasCount: 0, limitMs: LIMIT_MS });
  vi.advanceTimersByTime(LIMIT_MS);

  expect(await read).toEqual({ text: 'a'.repeat(10_000) });
});

it('does not wait for a thread for ever', async () => {
  const read = parseForeignYaml(LARGE, { maxAliasCount: 0, limitMs: LIMIT_MS });
  const refused = expect(read).rejects.toThrow('the thread that reads documents does not start');
  vi.advanceTimersByTime(LIMIT_MS * 5);

  await refused;
});

it('ends a document that takes too long', async () => {
  const slow = `? ${'[a, '.repeat(3000)}${']'.repeat(3000)}: 1\n${'? [[a]]\n: b\n'.repeat(20_000)}`;
  vi.useRealTimers();

  const read = parseForeignYaml(slow, { maxAliasCount: 0, limitMs: 20 });

  await expect(read).rejects.toThrow('the document takes longer than 0.02 s to read');
});
