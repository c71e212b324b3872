// Processors that are one server's alone, on a real Nova: scheduled by Placement, chosen by the claim, given once, and given back.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { waitForStatus } from './lab/first-server.ts';
import { overrideFile, startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, newServer, paths, processes } from './lab/suite.ts';

let before: Residue;
let flavor: string;

async function restartCompute(extra: readonly string[] = []): Promise<void> {
  await processes.stop('nova-compute-lxd');
  startCompute(paths, processes, extra);
  await waitForConsumer(processes);
}

interface Provider {
  readonly uuid: string;
  readonly name: string;
}

/** Totals of the first node in Placement. */
async function totals(): Promise<Readonly<Record<string, { readonly total: number }>>> {
  const path = '/resource_providers?name=node1';
  const { resource_providers: providers } = await cloud.get<{ resource_providers: readonly Provider[] }>(
    cloud.placement,
    path,
  );
  const inventories = `/resource_providers/${providers[0]?.uuid}/inventories`;
  return (await cloud.get<{ inventories: Record<string, { total: number }> }>(cloud.placement, inventories))
    .inventories;
}

async function untilOffered(what: string, isThere: boolean): Promise<void> {
  const isSo = async () => (what in (await totals()) === isThere ? true : undefined);
  await poll(isSo, 500, AbortSignal.timeout(60_000));
}

async function cpusOf(id: string): Promise<string | undefined> {
  const server = await cloud.server(id);
  return (await engine.instances.get(server?.['OS-EXT-SRV-ATTR:instance_name'] ?? '')).config['limits.cpu'];
}

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  const text = '[compute]\ncpu_dedicated_set = 1\ncpu_shared_set = 0\n';
  await restartCompute([overrideFile(paths, 'cpu-sets', text)]);
  await untilOffered('PCPU', true);
  const body = { flavor: { name: `dedicated-${randomUUID()}`, ram: 128, vcpus: 1, disk: 1 } };
  flavor = (await cloud.post<{ flavor: { id: string } }>(cloud.compute, '/flavors', body)).flavor.id;
  const specs = { extra_specs: { 'hw:cpu_policy': 'dedicated' } };
  await cloud.post(cloud.compute, `/flavors/${flavor}/os-extra_specs`, specs);
}, 120_000);

afterAll(async () => {
  await cloud.delete(cloud.compute, `/flavors/${flavor}`);
  await restartCompute();
  await untilOffered('PCPU', false);
  engine[Symbol.dispose]();
  await expectNothingLeft(before, 30_000);
}, 180_000);

describe('a server with dedicated CPUs', () => {
  it('has its own, as Placement knows, and others have the rest', async () => {
    const [own, other] = await Promise.all([
      activeServer({ name: 'own', network: 'none', flavor }),
      activeServer({ name: 'other', network: 'none' }),
    ]);

    expect([await cpusOf(own.id), await cpusOf(other.id)]).toEqual(['1-1', '0-0']);
    const { allocations } = await cloud.get<{
      allocations: Readonly<Record<string, { resources: Readonly<Record<string, number>> }>>;
    }>(cloud.placement, `/allocations/${own.id}`);
    expect(Object.values(allocations)[0]?.resources).toMatchObject({ PCPU: 1 });
    expect(await totals()).toMatchObject({ PCPU: { total: 1 }, VCPU: { total: 1 } });
    await Promise.all([own, other].map(({ id }) => deleteServer(id)));
  });

  it('keeps them when it is built anew and restarted, and nobody else gets them meanwhile', async () => {
    const own = await activeServer({ name: 'own', network: 'none', flavor });
    const { image } = await cloud
      .get<{ server: { image: { id: string } } }>(cloud.compute, `/servers/${own.id}`)
      .then(({ server }) => server);
    await cloud.action(own.id, { rebuild: { imageRef: image.id } });
    await waitForStatus(cloud, own.id, 'ACTIVE');
    await cloud.action(own.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, own.id, 'ACTIVE');
    expect(await cpusOf(own.id)).toBe('1-1');

    // Nova asks Placement for shared ones when no dedicated ones are left: then it is the claim that refuses
    const second = await newServer({ name: 'second', network: 'none', flavor });
    const failed = await waitForStatus(cloud, second, 'ERROR');
    expect(failed?.fault?.message).toMatch(/No valid host|Exceeded maximum number of retries/);

    await Promise.all([own.id, second].map(deleteServer));
    const next = await activeServer({ name: 'next', network: 'none', flavor });
    expect(await cpusOf(next.id)).toBe('1-1');
    await deleteServer(next.id);
  });
});
