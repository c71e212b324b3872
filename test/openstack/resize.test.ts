// Servers that change while they are there, on a real Nova: another size, confirmed or taken back, and another root disk.
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, waitForPing, waitForStatus } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { actionsOf, activeServer, cloud, deleteServer, engine, lab, paths } from './lab/suite.ts';

/** The lab's c1.tiny is smaller in everything. */
const SMALL = { id: '2', memoryMib: 512 };

let before: Residue;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

describe('a server of another size', () => {
  let id: string;
  let name: string;
  let address: string;

  const memoryLimit = async (): Promise<string | undefined> =>
    (await engine.instances.get(name)).config?.['limits.memory'];
  const mark = async (): Promise<string> => await text((await engine.files.get(name, '/root/mark')).content);
  const resize = async (): Promise<void> => {
    await cloud.action(id, { resize: { flavorRef: SMALL.id } });
    await waitForStatus(cloud, id, 'VERIFY_RESIZE');
    await waitForPing(address, (await lab()).network);
  };

  it('has the new limits, its disk and its address', async () => {
    const server = await activeServer({ name: 'size' });
    id = server.id;
    name = server['OS-EXT-SRV-ATTR:instance_name'];
    address = addressOf(server) ?? '';
    await engine.files.put(name, '/root/mark', { kind: 'file', content: Buffer.from('kept') });

    await resize();

    expect(await memoryLimit()).toBe(`${SMALL.memoryMib}MiB`);
    expect(await mark()).toBe('kept');
  });

  it('is what it was when that is taken back', async () => {
    const now = await memoryLimit();
    await cloud.action(id, { revertResize: null });
    await waitForStatus(cloud, id, 'ACTIVE');

    await waitForPing(address, (await lab()).network);
    expect(await memoryLimit()).not.toBe(now);
    expect(await mark()).toBe('kept');
  });

  it('stays so when that is confirmed, with the allocation of the new flavor', async () => {
    await resize();
    await cloud.action(id, { confirmResize: null });
    await waitForStatus(cloud, id, 'ACTIVE');

    expect(await memoryLimit()).toBe(`${SMALL.memoryMib}MiB`);
    const { allocations } = await cloud.get<{
      allocations: Readonly<Record<string, { resources: Readonly<Record<string, number>> }>>;
    }>(cloud.placement, `/allocations/${id}`);
    expect(Object.values(allocations).map(({ resources }) => resources['MEMORY_MB'])).toEqual([SMALL.memoryMib]);
  });

  it('does not shrink its disk', async () => {
    await cloud.action(id, { resize: { flavorRef: '1' } });
    await waitForStatus(cloud, id, 'ACTIVE');

    const [newest] = await actionsOf(id);
    expect(newest).toMatchObject({ action: 'resize', message: 'Error' });
    expect(await memoryLimit()).toBe(`${SMALL.memoryMib}MiB`);
  });

  it('is built anew from its image, at its address, stopped when it was stopped', async () => {
    await cloud.action(id, { rebuild: { imageRef: (await lab()).image } });
    await waitForStatus(cloud, id, 'ACTIVE');
    await waitForPing(address, (await lab()).network);
    expect(await engine.files.find(name, '/root/mark')).toBeUndefined();

    await cloud.action(id, { 'os-stop': null });
    await waitForStatus(cloud, id, 'SHUTOFF');
    await cloud.action(id, { rebuild: { imageRef: (await lab()).image } });
    await waitForStatus(cloud, id, 'SHUTOFF');
    await deleteServer(id);
  });
});

afterAll(async () => {
  engine[Symbol.dispose]();
  await expectNothingLeft(before, 30_000);
});
