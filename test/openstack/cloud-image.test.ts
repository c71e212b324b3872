// A server from a qcow2 cloud image, on a real Nova and Glance: booted with its address, an image of it boots again.
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { makeQcow2, makeRawDisk } from '../integration/disk-images.ts';
import { makeBusyboxRoot } from '../integration/images.ts';
import { addressOf, consoleLog, waitForPing, waitForStatus } from './lab/first-server.ts';
import { activeServer, cloud, deleteServer, engine, lab, newServer } from './lab/suite.ts';

let folder: string;
const made: string[] = [];
let engineImages: readonly string[];

async function upload(name: string, diskFormat: string, path: string): Promise<string> {
  const description = { name, disk_format: diskFormat, container_format: 'bare' };
  const { id } = await cloud.post<{ id: string }>(cloud.image, '/v2/images', description);
  made.push(id);
  const headers = { 'Content-Type': 'application/octet-stream' };
  await cloud.image.request({ method: 'PUT', path: `/v2/images/${id}/file`, headers, body: createReadStream(path) });
  return id;
}

async function fingerprints(): Promise<readonly string[]> {
  return (await engine.images.list()).map(({ fingerprint }) => fingerprint);
}

beforeAll(async () => {
  engineImages = await fingerprints();
  folder = await mkdtemp(join(tmpdir(), 'cloud-image-'));
  await makeBusyboxRoot(join(folder, 'root'));
  await makeRawDisk(join(folder, 'disk.raw'), join(folder, 'root'), { sizeMib: 40 });
  await makeQcow2(join(folder, 'disk.raw'), join(folder, 'disk.qcow2'), ['-c']);
});

afterAll(async () => {
  for (const id of made) await cloud.delete(cloud.image, `/v2/images/${id}`);
  for (const fingerprint of await fingerprints()) {
    if (!engineImages.includes(fingerprint)) await (await engine.images.remove(fingerprint)).wait();
  }
  await rm(folder, { recursive: true, force: true });
});

it('a qcow2 image boots with its address, and so does an image of that server', async () => {
  const image = await upload('cloud-qcow2', 'qcow2', join(folder, 'disk.qcow2'));
  const server = await activeServer({ name: 'of-qcow2', image });
  await waitForPing(addressOf(server) ?? '', (await lab()).network);
  expect(await consoleLog(cloud, server.id, 1000)).toContain('lightervisor-test: up as');

  const answer = await cloud.action(server.id, { createImage: { name: 'of-of-qcow2' } });
  const { image_id: copied } = answer as { image_id: string };
  made.push(copied);
  const isActive = async (): Promise<true | undefined> =>
    (await cloud.get<{ status: string }>(cloud.image, `/v2/images/${copied}`)).status === 'active' ? true : undefined;
  await poll(isActive, 200, AbortSignal.timeout(120_000));
  const copy = await activeServer({ name: 'of-of-qcow2', image: copied });
  await waitForPing(addressOf(copy) ?? '', (await lab()).network);

  await deleteServer(copy.id);
  await deleteServer(server.id);
});

it('a qcow2 image that is declared as raw is refused with a reason', async () => {
  const image = await upload('no-raw', 'raw', join(folder, 'disk.qcow2'));
  const id = await newServer({ name: 'no-raw', image });

  await expect(waitForStatus(cloud, id, 'ACTIVE')).rejects.toThrow('declared as raw and is a qcow2 disk');

  await deleteServer(id);
});
