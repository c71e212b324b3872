// npm run generate: writes the files that are made from the sources; --check only says which of them are out of date.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openApiText } from './openapi-text.ts';
import { ROOT } from './tool.ts';

/** Path → its content as it should be. */
const FILES: Readonly<Record<string, () => Promise<string>>> = {
  'docs/openapi.json': openApiText,
};

const check = process.argv.includes('--check');
for (const [name, make] of Object.entries(FILES)) {
  const path = join(ROOT, name);
  const content = await make();
  const present = await readFile(path, 'utf8').catch(() => '');
  if (content === present) continue;
  if (check) {
    console.error(`${name} is out of date: npm run generate`);
    process.exitCode = 1;
  } else {
    await writeFile(path, content);
    console.log(`wrote ${name}`);
  }
}
