// kill -9 of the compute while it makes an image of a server, shelves it, or brings it back: the next one leaves nothing of it in the engine.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitForStatus } from './lab/first-server.ts';
import { startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, paths, processes } from './lab/suite.ts';

/** Milliseconds; from before this host has claimed it to when the guest starts. */
const UNSHELVING_MOMENTS = (process.env['UNSHELVING_MOMENTS'] ?? '250,700,1200').split(',').map(Number);

let before: Residue;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

afterAll(async () => {
  await expectNothingLeft(before, 60_000);
});

async function leftovers(instance: string): Promise<readonly string[]> {
  const images = (await engine.images.list()).flatMap(({ properties }) => properties?.['nova.snapshot'] ?? []);
  return [...images, ...(await engine.instances.snapshotNames(instance))];
}

async function taskOf(id: string): Promise<string | null | undefined> {
  return (await cloud.server(id))?.['OS-EXT-STS:task_state'];
}

async function deleteImages(wanted: string): Promise<void> {
  const { images } = await cloud.get<{ images: readonly { id: string; name: string }[] }>(cloud.image, '/v2/images');
  for (const { id, name } of images) if (name === wanted) await cloud.delete(cloud.image, `/v2/images/${id}`);
}

describe('after kill -9 of the compute during an image', () => {
  it.each([100, 400, 800])(
    '%i ms after it was asked for nothing of it stays, and the server goes on',
    async (moment) => {
      const server = await activeServer({ name: `imaged-${moment}`, network: 'none' });
      const instance = server['OS-EXT-SRV-ATTR:instance_name'];
      const answer = await cloud.action(server.id, { createImage: { name: `interrupted-${moment}` } });
      const { image_id: image } = answer as { image_id: string };

      await sleep(moment);
      await processes.kill('nova-compute-lxd');
      console.log(`killed ${moment} ms into an image: ${(await leftovers(instance)).length} leftovers`);
      startCompute(paths, processes);
      await waitForConsumer(processes);

      await expect.poll(() => taskOf(server.id), { timeout: 60_000, interval: 300 }).toBe(null);
      await expect.poll(() => leftovers(instance), { timeout: 60_000, interval: 300 }).toEqual([]);
      expect((await cloud.server(server.id))?.status).toBe('ACTIVE');
      await cloud.delete(cloud.image, `/v2/images/${image}`);
      await deleteServer(server.id);
    },
  );
});

describe('after kill -9 of the compute while it shelves', () => {
  it.each([150, 700, 1500])('%i ms after that was asked for the server is as before, or shelved', async (moment) => {
    const server = await activeServer({ name: `shelving-${moment}`, network: 'none' });
    await cloud.action(server.id, { shelve: null });

    await sleep(moment);
    await processes.kill('nova-compute-lxd');
    startCompute(paths, processes);
    await waitForConsumer(processes);

    await expect.poll(() => taskOf(server.id), { timeout: 60_000, interval: 300 }).toBe(null);
    const status = (await cloud.server(server.id))?.status ?? '';
    console.log(`killed ${moment} ms into shelving: ${status}`);
    expect(['ACTIVE', 'SHELVED', 'SHELVED_OFFLOADED']).toContain(status);
    const instance = server['OS-EXT-SRV-ATTR:instance_name'];
    const guest = await engine.instances.find(instance);
    expect(guest?.status).toBe(status === 'ACTIVE' ? 'Running' : undefined);
    if (guest) await expect.poll(() => leftovers(instance), { timeout: 60_000, interval: 300 }).toEqual([]);
    await deleteServer(server.id);
    await deleteImages(`shelving-${moment}-shelved`);
  });

  it('or while it brings the server back, that is shelved still, or runs', async () => {
    const server = await activeServer({ name: 'unshelving', network: 'none' });
    const instance = server['OS-EXT-SRV-ATTR:instance_name'];
    await cloud.action(server.id, { shelve: null });
    await waitForStatus(cloud, server.id, 'SHELVED_OFFLOADED');

    for (const moment of UNSHELVING_MOMENTS) {
      await cloud.action(server.id, { unshelve: null });
      await sleep(moment);
      await processes.kill('nova-compute-lxd');
      startCompute(paths, processes);
      await waitForConsumer(processes);

      await expect.poll(() => taskOf(server.id), { timeout: 60_000, interval: 300 }).toBe(null);
      const now = await cloud.server(server.id);
      console.log(`killed ${moment} ms into unshelving: ${now?.status}`);
      expect(['ACTIVE', 'SHELVED_OFFLOADED']).toContain(now?.status);
      const isActive = now?.status === 'ACTIVE';
      expect((await engine.instances.find(instance))?.status).toBe(isActive ? 'Running' : undefined);
      const { allocations } = await cloud.get<{ allocations: object }>(cloud.placement, `/allocations/${server.id}`);
      expect(Object.keys(allocations)).toHaveLength(isActive ? 1 : 0);
      if (!isActive) continue;
      await cloud.action(server.id, { shelve: null });
      await waitForStatus(cloud, server.id, 'SHELVED_OFFLOADED');
    }

    await deleteServer(server.id);
    await deleteImages('unshelving-shelved');
  });
});
