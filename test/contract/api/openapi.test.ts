// The document of the API is made from the routes, and says something about each of them.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openApiText } from '../../../scripts/openapi-text.ts';

const committed = await readFile(join(import.meta.dirname, '../../../docs/openapi.json'), 'utf8');

it('is the committed document (npm run generate)', async () => {
  expect(await openApiText()).toBe(committed);
});

it('has a summary for every operation', () => {
  const { paths } = JSON.parse(committed) as { paths: Record<string, Record<string, { summary: string }>> };

  const nameless = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods)
      .filter(([, { summary }]) => summary === '')
      .map(([method]) => `${method} ${path}`),
  );

  expect(nameless).toEqual([]);
  expect(Object.keys(paths).length).toBeGreaterThan(30);
});
