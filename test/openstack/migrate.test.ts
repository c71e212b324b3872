// Servers that move between two hosts on a real Nova: migrated, resized, confirmed, taken back, evacuated; and computes that
// are killed on the way.
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Server } from './lab/cloud.ts';
import { addressOf, services, waitForCompute, waitForPing, waitForStatus } from './lab/first-server.ts';
import { startCompute } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { SecondNode } from './lab/second-node.ts';
import { actionsOf, activeServer, cloud, deleteServer, engine, lab, paths, processes } from './lab/suite.ts';
import type { EngineClient } from '#src/client/client.ts';

const FIRST = 'node1';
/** A new name each time: nova-api finds the deleted service of an earlier host of the name, and takes the host for down. */
const SECOND = `second-${Date.now().toString(36)}`;
const SMALL = { id: '2', memoryMib: 512 };

let before: Residue;
let second: SecondNode;
const created: string[] = [];

const engineOf = (host: string): EngineClient => (host === FIRST ? engine : second.engine);
const hostOf = ({ 'OS-EXT-SRV-ATTR:host': host }: Server): string | null => host;
const nameOf = ({ 'OS-EXT-SRV-ATTR:instance_name': name }: Server): string => name;

async function newServer(name: string, host: string, network: 'port' | 'none'): Promise<Server> {
  const server = await activeServer({ name, host, network });
  created.push(server.id);
  return server;
}

async function writeMark(server: Server, content: string): Promise<void> {
  const { files } = engineOf(hostOf(server) ?? FIRST);
  await files.put(nameOf(server), '/root/mark', { kind: 'file', content: Buffer.from(content) });
}

async function markOn(host: string, server: Server): Promise<string> {
  return await text((await engineOf(host).files.get(nameOf(server), '/root/mark')).content);
}

async function expectStatus(id: string, status: string): Promise<Server> {
  const server = await waitForStatus(cloud, id, status);
  if (!server) throw new Error('the server disappeared');
  return server;
}

async function expectPing(server: Server): Promise<void> {
  await waitForPing(addressOf(server) ?? '', (await lab()).network);
}

interface Allocations {
  readonly allocations: Readonly<Record<string, { readonly resources: Readonly<Record<string, number>> }>>;
}

/** MEMORY_MB of each allocation, by the name of the provider. */
async function memoryOf(consumer: string): Promise<Readonly<Record<string, number | undefined>>> {
  const { resource_providers: providers } = await cloud.get<{
    resource_providers: readonly { uuid: string; name: string }[];
  }>(cloud.placement, '/resource_providers');
  const names = new Map(providers.map(({ uuid, name }) => [uuid, name]));
  const { allocations } = await cloud.get<Allocations>(cloud.placement, `/allocations/${consumer}`);
  return Object.fromEntries(
    Object.entries(allocations).map(([uuid, { resources }]) => [names.get(uuid) ?? uuid, resources['MEMORY_MB']]),
  );
}

async function changeService(host: string, changes: object): Promise<void> {
  const row = (await services(cloud)).find((one) => one.host === host && one.binary === 'nova-compute');
  const path = `/os-services/${row?.id}`;
  await cloud.compute.request({
    method: 'PUT',
    path,
    body: changes,
    headers: { 'X-OpenStack-Nova-API-Version': '2.92' },
  });
}

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  second = new SecondNode(cloud, { paths, processes }, SECOND);
  await second.start({ gibibytes: 20, hasAgent: true });
});

afterEach(async () => {
  await Promise.all(created.splice(0).map((id) => deleteServer(id)));
});

afterAll(async () => {
  const left = await second.engine.instances.list();
  await second.forget();
  await second[Symbol.asyncDispose]();
  expect(left).toEqual([]);
  await expectNothingLeft(before, 60_000);
  engine[Symbol.dispose]();
});

describe('a server that runs', () => {
  it.each([
    ['the scheduler takes', null],
    ['is named', SECOND],
  ])('is not moved so to a host that %s, and is as it was', async (_which, host) => {
    const server = await newServer('live', FIRST, 'none');
    const memory = await memoryOf(server.id);

    await cloud.action(server.id, { 'os-migrateLive': { host, block_migration: 'auto' } });

    const newest = async () => (await actionsOf(server.id))[0];
    await expect.poll(newest, { timeout: 60_000 }).toMatchObject({ action: 'live-migration', message: 'Error' });
    const after = await expectStatus(server.id, 'ACTIVE');
    expect(hostOf(after)).toBe(FIRST);
    expect(await memoryOf(server.id)).toEqual(memory);
    const { migrations } = await cloud.get<{ migrations: readonly object[] }>(
      cloud.compute,
      `/os-migrations?instance_uuid=${server.id}`,
    );
    expect(migrations).toMatchObject([{ migration_type: 'live-migration', status: 'error' }]);
    expect((await engine.instances.get(nameOf(server))).status).toBe('Running');
    expect(await second.engine.instances.find(nameOf(server))).toBeUndefined();
  });
});

describe('a server that is migrated', () => {
  it('runs on the other host with its disk and its address, and is gone here when that is confirmed', async () => {
    const server = await newServer('migrated', FIRST, 'port');
    await writeMark(server, 'kept');

    await cloud.action(server.id, { migrate: { host: SECOND } });
    const moved = await expectStatus(server.id, 'VERIFY_RESIZE');

    expect(hostOf(moved)).toBe(SECOND);
    expect(await markOn(SECOND, server)).toBe('kept');
    await expectPing(moved);
    expect((await engine.instances.get(nameOf(server))).status).toBe('Stopped');
    const [memory] = Object.values(await memoryOf(server.id));
    expect(await memoryOf(server.id)).toEqual({ [SECOND]: memory });

    await cloud.action(server.id, { confirmResize: null });
    const confirmed = await expectStatus(server.id, 'ACTIVE');
    await expect.poll(() => engine.instances.find(nameOf(server)), { timeout: 20_000 }).toBeUndefined();
    expect(hostOf(confirmed)).toBe(SECOND);
    await expectPing(confirmed);
  });

  it('is back with what it had when that is taken back', async () => {
    const server = await newServer('reverted', FIRST, 'port');
    await writeMark(server, 'before');
    await cloud.action(server.id, { migrate: { host: SECOND } });
    const moved = await expectStatus(server.id, 'VERIFY_RESIZE');
    await writeMark(moved, 'after');

    await cloud.action(server.id, { revertResize: null });
    const back = await expectStatus(server.id, 'ACTIVE');

    expect(hostOf(back)).toBe(FIRST);
    expect(await markOn(FIRST, server)).toBe('before');
    await expectPing(back);
    expect(await second.engine.instances.find(nameOf(server))).toBeUndefined();
    expect(Object.keys(await memoryOf(server.id))).toEqual([FIRST]);
  });

  it('goes to the other host by itself, from a host that cannot take it again', async () => {
    const server = await newServer('scheduled', SECOND, 'none');

    await cloud.action(server.id, { migrate: null });
    const moved = await expectStatus(server.id, 'VERIFY_RESIZE');

    expect(hostOf(moved)).toBe(FIRST);
    await deleteServer(server.id);
    expect(await second.engine.instances.find(nameOf(server))).toBeUndefined();
  });

  it('stays stopped when it was stopped', async () => {
    const server = await newServer('stopped', FIRST, 'none');
    await cloud.action(server.id, { 'os-stop': null });
    await expectStatus(server.id, 'SHUTOFF');

    await cloud.action(server.id, { migrate: { host: SECOND } });
    await expectStatus(server.id, 'VERIFY_RESIZE');
    expect((await second.engine.instances.get(nameOf(server))).status).toBe('Stopped');
    await cloud.action(server.id, { confirmResize: null });
    await expectStatus(server.id, 'SHUTOFF');
  });

  it('goes on where it was when the other engine is down', async () => {
    const server = await newServer('refused', FIRST, 'none');
    await processes.kill(second.engineName);
    try {
      await cloud.action(server.id, { migrate: { host: SECOND } });
      const still = await expectStatus(server.id, 'ACTIVE');

      expect(hostOf(still)).toBe(FIRST);
      expect((await engine.instances.get(nameOf(server))).status).toBe('Running');
      const [newest] = await actionsOf(server.id);
      expect(newest).toMatchObject({ action: 'migrate', message: 'Error' });
      expect(Object.keys(await memoryOf(server.id))).toEqual([FIRST]);
    } finally {
      await second.startEngine();
    }
  });
});

describe('a server of another size', () => {
  it('moves when its host takes no more, with the allocation of the new flavor', async () => {
    const server = await newServer('resized', SECOND, 'port');
    await writeMark(server, 'kept');
    await changeService(SECOND, { status: 'disabled' });
    try {
      await cloud.action(server.id, { resize: { flavorRef: SMALL.id } });
      const moved = await expectStatus(server.id, 'VERIFY_RESIZE');

      expect(hostOf(moved)).toBe(FIRST);
      expect((await engine.instances.get(nameOf(server))).config['limits.memory']).toBe(`${SMALL.memoryMib}MiB`);
      expect(await markOn(FIRST, server)).toBe('kept');
      await expectPing(moved);
      await cloud.action(server.id, { confirmResize: null });
      await expectStatus(server.id, 'ACTIVE');
      expect(await memoryOf(server.id)).toEqual({ [FIRST]: SMALL.memoryMib });
    } finally {
      await changeService(SECOND, { status: 'enabled' });
    }
  });
});

describe('a host that is down', () => {
  it('loses its servers to the other one, and removes them when it is back', async () => {
    const server = await newServer('evacuated', SECOND, 'none');
    await writeMark(server, 'lost');
    await processes.kill(second.computeName);
    await changeService(SECOND, { forced_down: true });

    await cloud.action(server.id, { evacuate: {} });
    // as with a stock compute, it is active a moment before its record names the new host
    await expect
      .poll(async () => hostOf(await expectStatus(server.id, 'ACTIVE')), { timeout: 60_000, interval: 500 })
      .toBe(FIRST);
    expect((await engine.instances.get(nameOf(server))).status).toBe('Running');
    expect(await engine.files.find(nameOf(server), '/root/mark')).toBeUndefined();
    second.startCompute();
    await expect
      .poll(() => second.engine.instances.find(nameOf(server)), { timeout: 60_000, interval: 500 })
      .toBeUndefined();
    // Nova refuses it until the host has cleaned up
    await expect
      .poll(() => changeService(SECOND, { forced_down: false }).then(() => 'up'), { timeout: 60_000, interval: 500 })
      .toBe('up');
    await waitForCompute(cloud, SECOND);
    await expect.poll(async () => Object.keys(await memoryOf(server.id)), { timeout: 30_000 }).toEqual([FIRST]);
  });
});

const ROUNDS = Number(process.env['MOVE_ROUNDS'] ?? 4);
/** After what was asked for. */
const KILLED_WITHIN_MS = Number(process.env['MOVE_KILLED_WITHIN_MS'] ?? 2500);

/** Waits until that compute takes work again. */
async function waitForReport(host: string): Promise<void> {
  const since = Date.now();
  const reports = async (): Promise<boolean> =>
    (await services(cloud)).some(
      (row) => row.host === host && row.binary === 'nova-compute' && Date.parse(`${row.updated_at}Z`) >= since - 1000,
    );
  await expect.poll(reports, { timeout: 60_000, interval: 500 }).toBe(true);
}

/** Neither in the middle of something, nor gone. */
async function settled(id: string): Promise<Server> {
  let last: Server | undefined;
  await expect
    .poll(
      async () => {
        last = await cloud.server(id);
        return last?.['OS-EXT-STS:task_state'] === null && last.status !== 'MIGRATING' && last.status !== 'RESIZE';
      },
      { timeout: 180_000, interval: 500 },
    )
    .toBe(true);
  if (!last) throw new Error('the server disappeared');
  return last;
}

describe('after kill -9 on the way', () => {
  it.each(Array.from({ length: ROUNDS }, (_none, round) => round))(
    'round %i: the server is somewhere, once',
    async (round) => {
      const isSource = round % 2 === 0;
      const end = round % 4 < 2 ? 'confirmResize' : 'revertResize';
      const isAtEnd = round % 8 >= 4;
      const server = await newServer(`killed-${round}`, FIRST, 'none');
      await writeMark(server, 'kept');
      if (isAtEnd) {
        await cloud.action(server.id, { migrate: { host: SECOND } });
        await expectStatus(server.id, 'VERIFY_RESIZE');
      }

      await cloud.action(server.id, isAtEnd ? { [end]: null } : { migrate: { host: SECOND } });
      const moment = Math.random() * KILLED_WITHIN_MS;
      await sleep(moment);
      const victim = isSource ? 'nova-compute-lxd' : second.computeName;
      await processes.kill(victim);
      await sleep(500);
      if (isSource) startCompute(paths, processes);
      else second.startCompute();
      await waitForReport(isSource ? FIRST : SECOND);

      let now = await settled(server.id);
      console.log(
        `round ${round}: ${victim} killed ${moment.toFixed(0)} ms after ${isAtEnd ? end : 'migrate'}: ${now.status}`,
      );
      if (now.status === 'VERIFY_RESIZE') {
        await cloud.action(server.id, { [end]: null });
        now = await expectStatus(server.id, 'ACTIVE');
      }
      expect(now.status).toBe('ACTIVE');
      const host = hostOf(now) ?? '';
      expect(await markOn(host, server)).toBe('kept');
      expect((await engineOf(host).instances.get(nameOf(server))).status).toBe('Running');
      const other = host === FIRST ? SECOND : FIRST;
      await expect.poll(() => engineOf(other).instances.find(nameOf(server)), { timeout: 60_000 }).toBeUndefined();
      await expect.poll(async () => Object.keys(await memoryOf(server.id)), { timeout: 30_000 }).toEqual([host]);
    },
  );
});
