// Rescue on a real Nova: another guest comes up in a server's place and has its root; everything comes back, or goes, whatever is
// killed in between.
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenStackError } from 'keystone-client-ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { execIn } from '../integration/guest-exec.ts';
import type { Server } from './lab/cloud.ts';
import { addressOf, waitForPing, waitForStatus } from './lab/first-server.ts';
import { startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { actionsOf, activeServer, cloud, deleteServer, engine, lab, paths, processes } from './lab/suite.ts';

const nameOf = (server: Server) => server['OS-EXT-SRV-ATTR:instance_name'];
const guestsOf = async (server: Server): Promise<readonly string[]> => {
  const all = await engine.instances.list();
  return all.filter(({ config }) => config['user.nova.uuid'] === server.id).map(({ name }) => name);
};

async function run(instance: string, script: string): Promise<string> {
  const { code, stdout } = await execIn(engine, instance, ['sh', '-c', script]);
  if (code !== 0) throw new Error(`${script} ended with ${code}`);
  return stdout;
}

async function rescue(id: string, body: object = {}): Promise<void> {
  const answer = (await cloud.action(id, { rescue: { adminPass: 'rescue-secret', ...body } })) as { adminPass: string };
  expect(answer.adminPass).toBe('rescue-secret');
}

/** A password that a shadow file has is not the one from before. */
const passwordOf = (instance: string) => run(instance, 'grep ^root: /etc/shadow | cut -d: -f2');

let before: Residue;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

afterAll(async () => {
  await expectNothingLeft(before, 60_000);
});

describe('a rescued server', () => {
  let server: Server;

  it('has its address, its old root at /mnt/rescue, and the password that was told', async () => {
    const { network } = await lab();
    server = await activeServer({ name: 'rescued' });
    await run(nameOf(server), 'echo before > /root/before; chown 1000:1000 /root/before');

    await rescue(server.id);
    await waitForStatus(cloud, server.id, 'RESCUE');

    const guest = `rescue-${server.id}`;
    expect((await guestsOf(server)).toSorted()).toEqual([nameOf(server), guest].toSorted());
    expect(await run(guest, 'cat /mnt/rescue/root/before; stat -c %u /mnt/rescue/root/before')).toBe('before\n1000\n');
    await run(guest, 'echo repaired > /mnt/rescue/root/repaired');
    await waitForPing(addressOf(server) ?? '', network);
    expect(await passwordOf(guest)).toMatch(/^\$/);
  });

  it('is refused what a stock Nova refuses of it', async () => {
    for (const action of [{ reboot: { type: 'HARD' } }, { 'os-stop': null }, { createImage: { name: 'x' } }]) {
      await expect(cloud.action(server.id, action)).rejects.toMatchObject({ status: 409 });
    }
  });

  it('stays so when compute and engine are started anew', async () => {
    await processes.kill('nova-compute-lxd');
    startCompute(paths, processes);
    await waitForConsumer(processes);

    expect((await cloud.server(server.id))?.status).toBe('RESCUE');
    expect(await run(`rescue-${server.id}`, 'cat /mnt/rescue/root/repaired')).toBe('repaired\n');
  });

  it('has its own guest back, with what was done to it', async () => {
    const { network } = await lab();

    await cloud.action(server.id, { unrescue: null });
    await waitForStatus(cloud, server.id, 'ACTIVE');

    expect(await guestsOf(server)).toEqual([nameOf(server)]);
    expect(await run(nameOf(server), 'cat /root/before /root/repaired')).toBe('before\nrepaired\n');
    await waitForPing(addressOf(server) ?? '', network);
    const actions = await actionsOf(server.id);
    const events = actions.flatMap(({ action, events: list }) => list.map(({ result }) => `${action} ${result}`));
    expect(events.slice(0, 2)).toEqual(['unrescue Success', 'rescue Success']);
  });

  it('is rescued by another image, from being stopped, and goes as a whole when it is deleted', async () => {
    const { image } = await lab();
    await cloud.action(server.id, { 'os-stop': null });
    await waitForStatus(cloud, server.id, 'SHUTOFF');
    await expect(
      rescue(server.id, { rescue_image_ref: 'ffffffff-ffff-4fff-8fff-ffffffffffff' }),
    ).rejects.toBeInstanceOf(OpenStackError);
    await rescue(server.id, { rescue_image_ref: image });
    await waitForStatus(cloud, server.id, 'RESCUE');

    expect(await run(`rescue-${server.id}`, 'cat /mnt/rescue/root/repaired')).toBe('repaired\n');
    await deleteServer(server.id);

    expect(await guestsOf(server)).toEqual([]);
  });
});

describe('after kill -9 of the compute', () => {
  it.each([20, 200, 500, 900])('%i ms into a rescue the server is as before, or rescued', async (moment) => {
    const server = await activeServer({ name: `killed-${moment}`, network: 'none' });
    await run(nameOf(server), 'echo mine > /root/mine');

    await rescue(server.id);
    await sleep(moment);
    await processes.kill('nova-compute-lxd');
    startCompute(paths, processes);
    await waitForConsumer(processes);

    await expect
      .poll(async () => (await cloud.server(server.id))?.['OS-EXT-STS:task_state'], { timeout: 60_000, interval: 300 })
      .toBe(null);
    const status = (await cloud.server(server.id))?.status;
    console.log(`killed ${moment} ms into a rescue: ${status}`);
    expect(['ACTIVE', 'RESCUE']).toContain(status);
    if (status === 'RESCUE') {
      await cloud.action(server.id, { unrescue: null });
      await sleep(moment);
      await processes.kill('nova-compute-lxd');
      startCompute(paths, processes);
      await waitForConsumer(processes);
      await waitForStatus(cloud, server.id, 'ACTIVE');
    }
    expect(await guestsOf(server)).toEqual([nameOf(server)]);
    expect(await run(nameOf(server), 'cat /root/mine')).toBe('mine\n');
    await deleteServer(server.id);
  });
});
