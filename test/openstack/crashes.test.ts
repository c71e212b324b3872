// kill -9 at random moments: afterwards Nova and the engine agree, and nothing is left behind.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { setTimeout as sleep } from 'node:timers/promises';
import { startCompute, startEngine, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, newServer, paths, processes } from './lab/suite.ts';

const ROUNDS = 20;
let before: Residue;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

afterAll(async () => {
  await expectNothingLeft(before, 60_000);
});

async function killAndRestart(victim: 'lighterd' | 'nova-compute-lxd'): Promise<void> {
  await processes.kill(victim);
  if (victim === 'lighterd') await startEngine(paths, processes);
  else startCompute(paths, processes);
}

/** Neither in the middle of something, nor gone. */
async function settled(id: string): Promise<string> {
  let status = '';
  await expect
    .poll(
      async () => {
        const server = await cloud.server(id);
        status = server?.status ?? 'DELETED';
        return server === undefined || (server['OS-EXT-STS:task_state'] === null && server.status !== 'BUILD');
      },
      { timeout: 120_000, interval: 300 },
    )
    .toBe(true);
  return status;
}

describe('after kill -9 during builds and deletes', () => {
  it.each(Array.from({ length: ROUNDS }, (_none, round) => round))(
    'round %i: every server ends, and can be deleted',
    async (round) => {
      const victim = round % 2 === 0 ? 'nova-compute-lxd' : 'lighterd';
      const options = { configDrive: round % 4 < 2 };
      const doomed = await activeServer({
        ...options,
        name: `doomed-${round}`,
        network: round % 3 === 0 ? 'port' : 'none',
      });
      const building = await newServer({
        ...options,
        name: `building-${round}`,
        network: round % 3 === 1 ? 'port' : 'none',
      });
      const deleting = cloud.delete(cloud.compute, `/servers/${doomed.id}`);
      const moment = Math.random() * 1200;

      await sleep(moment);
      await killAndRestart(victim);
      await deleting;

      const status = await settled(building);
      console.log(
        `round ${round}: ${victim} killed after ${moment.toFixed(0)} ms; the server in building became ${status}`,
      );
      expect(['ACTIVE', 'ERROR']).toContain(status);
      await waitForConsumer(processes);
      await deleteServer(building);
      await deleteServer(doomed.id);
    },
  );

  it('servers are built as if nothing had been', async () => {
    const server = await activeServer({ name: 'afterwards' });

    await deleteServer(server.id);
  });
});
