// A log that grows, is rotated and cleared while somebody reads it.
import { appendFile, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FollowedFile } from '#src/host/followed-file.ts';
import { poll } from '#src/lib/wait.ts';

let directory: string;
let path: string;
let followed: FollowedFile;
let text = '';

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'followed-'));
  path = join(directory, 'log');
  text = '';
  await writeFile(path, 'what was before\n');
  followed = await FollowedFile.open(path);
});
afterEach(async () => {
  followed.destroy();
  await rm(directory, { recursive: true });
});

const listen = () => followed.on('data', (chunk: Buffer) => (text += chunk.toString()));
const until = (wanted: string) =>
  poll(() => (text.endsWith(wanted) ? true : undefined), 5, AbortSignal.timeout(5000)).catch(() => {
    throw new Error(`"${wanted}" does not come, but ${JSON.stringify(text.slice(-100))}`);
  });

it('gives what is written from now on, whole', async () => {
  listen();

  for (let count = 0; count < 50; count++) await appendFile(path, `line ${count}\n`);
  await until('line 49\n');

  expect(text).toBe(Array.from({ length: 50 }, (_one, count) => `line ${count}\n`).join(''));
});

it('goes on with the new file after a rotation, and loses nothing of the old one', async () => {
  listen();

  await appendFile(path, 'old\n');
  await rename(path, `${path}.1`);
  await writeFile(path, 'new\n');
  await until('new\n');
  await appendFile(path, 'newer\n');
  await until('newer\n');

  expect(text).toBe('old\nnew\nnewer\n');
});

it('starts again where the file does when it was cleared', async () => {
  listen();
  await appendFile(path, 'one\n');
  await until('one\n');

  await truncate(path);
  await appendFile(path, 'two\n');

  await until('two\n');
});

it('reads large amounts at the pace of its reader, to the end', async () => {
  const data = 'x'.repeat(1_000_000);
  await appendFile(path, data);
  followed.finish();

  for await (const chunk of followed) text += (chunk as Buffer).toString();

  expect(text).toBe(data);
});

it('ends at once when nothing more is there, and is quiet after it was let go', async () => {
  followed.finish();
  for await (const chunk of followed) text += (chunk as Buffer).toString();
  const other = await FollowedFile.open(path);
  other.resume();
  other.destroy();

  await appendFile(path, 'more\n');

  expect(text).toBe('');
  expect(other.destroyed).toBe(true);
});
