// Servers that are deleted for good only after a while (reclaim_instance_interval): restored, deleted at once, or reclaimed.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Server } from './lab/cloud.ts';
import { startNovaApi } from './lab/control-plane.ts';
import { addressOf, waitForPing, waitForStatus } from './lab/first-server.ts';
import { overrideFile, startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, lab, paths, processes } from './lab/suite.ts';

/** Seconds. */
const INTERVAL = 20;
const RECLAIMED_MS = 120_000;

let before: Residue;
const created: string[] = [];
const nameOf = (server: Server): string => server['OS-EXT-SRV-ATTR:instance_name'];

/** The API decides by it how a server is deleted, the compute when. */
async function restartWith(extra: readonly string[]): Promise<void> {
  await Promise.all([processes.stop('nova-api'), processes.stop('nova-compute-lxd')]);
  startCompute(paths, processes, extra);
  await startNovaApi(paths, processes, extra);
  await waitForConsumer(processes);
}

async function softDeleted(name: string): Promise<Server> {
  const server = await activeServer({ name });
  created.push(server.id);
  await cloud.delete(cloud.compute, `/servers/${server.id}`);
  await waitForStatus(cloud, server.id, 'SOFT_DELETED');
  return server;
}

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  await restartWith([overrideFile(paths, 'reclaim', `[DEFAULT]\nreclaim_instance_interval = ${INTERVAL}\n`)]);
});

afterAll(async () => {
  await restartWith([]);
  for (const id of created) await deleteServer(id);
  await expectNothingLeft(before, 60_000);
});

describe('a deleted server', () => {
  it('is off and keeps everything until it is restored', async () => {
    const server = await softDeleted('restored');
    await engine.files.put(nameOf(server), '/root/mark', { kind: 'file', content: Buffer.from('kept') });

    expect((await engine.instances.get(nameOf(server))).status).toBe('Stopped');
    await cloud.action(server.id, { restore: null });
    const back = await waitForStatus(cloud, server.id, 'ACTIVE');

    expect(back && addressOf(back)).toBe(addressOf(server));
    await waitForPing(addressOf(server) ?? '', (await lab()).network);
    expect(await engine.files.find(nameOf(server), '/root/mark')).toBeDefined();
  });

  it('goes at once when that is forced', async () => {
    const server = await softDeleted('forced');

    await cloud.action(server.id, { forceDelete: null });
    await waitForStatus(cloud, server.id, 'DELETED');

    expect(await engine.instances.find(nameOf(server))).toBeUndefined();
  });

  // the compute looks once a minute: RECLAIM=1 waits for it
  it.runIf(process.env['RECLAIM'] === '1')('goes by itself when its time is over', async () => {
    const server = await softDeleted('reclaimed');

    await expect.poll(() => cloud.server(server.id), { timeout: RECLAIMED_MS, interval: 1000 }).toBeUndefined();

    expect(await engine.instances.find(nameOf(server))).toBeUndefined();
  });
});
