// Reading the metadata of an upload: who reads it, and what it refuses.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readMetadataText } from '#src/engine/images/archive.ts';
import { idMapKey, NOBODYS_IDS } from '#src/host/id-map.ts';
import { FakeHost } from '../../fakes/fake-host.ts';
import { tarOf } from '../../fakes/tar.ts';

const METADATA = 'architecture: x86_64\n';
const TAR = tarOf({ first: 'x'.repeat(3000), './metadata.yaml': METADATA });

let host: FakeHost;
let folder: string;
beforeEach(async () => {
  host = new FakeHost();
  folder = await mkdtemp(join(tmpdir(), 'lighter-archive-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function read(archive: Buffer): Promise<string> {
  const path = join(folder, 'archive');
  await writeFile(path, archive);
  return await readMetadataText(host, path, AbortSignal.timeout(5000));
}

it('starts no program for a plain tar', async () => {
  expect(await read(TAR)).toBe(METADATA);
  expect(host.calls).toEqual([]);
});

it('has a compressed one unpacked by a program that is nobody', async () => {
  host.on(/ gzip -dc$/, TAR.toString('latin1'));

  expect(await read(gzipSync(TAR))).toBe(METADATA);

  const inside = `nsenter --user=/fake/userns/${idMapKey(NOBODYS_IDS)} -- prlimit `;
  expect(host.calls.map((call) => call.slice(0, inside.length))).toEqual([inside]);
});

it.each([
  ['without it', tarOf({ other: 'x' }), 'there is no such file'],
  ['that is cut off before it', TAR.subarray(0, 2000), 'the archive is truncated'],
  ['that is cut off in it', TAR.subarray(0, 4100), 'the archive is truncated'],
  ['with an empty one', tarOf({ 'metadata.yaml': '' }), 'metadata.yaml of the image is empty'],
  ['with a large one', tarOf({ 'metadata.yaml': 'x'.repeat((1 << 20) + 1) }), 'has 1048577 bytes'],
])('refuses an archive %s', async (_what, archive, message) => {
  await expect(read(archive)).rejects.toMatchObject({ kind: 'invalid', message: expect.stringContaining(message) });
});
