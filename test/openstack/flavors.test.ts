// Extra specs of flavors, on a real Nova: what they limit, and what a host refuses.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { waitForStatus } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, newServer, paths } from './lab/suite.ts';

let before: Residue;
const flavors: string[] = [];

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

async function newFlavor(extraSpecs: Readonly<Record<string, string>>, more: object = {}): Promise<string> {
  const flavor = { name: `extra-${randomUUID()}`, ram: 128, vcpus: 1, disk: 1, ...more };
  const { flavor: made } = await cloud.post<{ flavor: { id: string } }>(cloud.compute, '/flavors', { flavor });
  flavors.push(made.id);
  if (Object.keys(extraSpecs).length > 0) {
    await cloud.post(cloud.compute, `/flavors/${made.id}/os-extra_specs`, { extra_specs: extraSpecs });
  }
  return made.id;
}

it('limit processor time and disk, and let containers run containers', async () => {
  const flavor = await newFlavor({
    'quota:cpu_quota': '20000',
    'quota:disk_total_iops_sec': '500',
    'lxd:nested_allowed': 'true',
    'lxd:isolated': 'true',
    'lxd:privileged_allowed': 'false',
  });

  const server = await activeServer({ name: 'extra', network: 'none', flavor });

  const { config, devices } = await engine.instances.get(server['OS-EXT-SRV-ATTR:instance_name']);
  expect(config).toMatchObject({
    'limits.cpu.allowance': '20ms/100ms',
    'security.nesting': 'true',
    'security.idmap.isolated': 'true',
  });
  expect(config).not.toHaveProperty('security.privileged');
  expect(devices['root']).toMatchObject({ 'limits.max': '500iops' });
  await deleteServer(server.id);
});

it.each([
  [
    'privileged containers',
    { 'lxd:privileged_allowed': 'true' },
    {},
    /lxd:privileged_allowed of the flavor is not allowed/,
  ],
  ['what is neither true nor false', { 'lxd:isolated': 'perhaps' }, {}, /neither true nor false/],
  [
    'limits of interfaces',
    { 'quota:vif_inbound_average': '100' },
    {},
    /quota:vif_inbound_average of the flavor is not supported/,
  ],
  ['ephemeral disks', {}, { 'OS-FLV-EXT-DATA:ephemeral': 1 }, /phemeral.* disks are not supported/],
  ['swap disks', {}, { swap: 64 }, /wap disks are not supported/],
])('are refused for %s', async (_what, extraSpecs, more, reason) => {
  const id = await newServer({ name: 'refused', network: 'none', flavor: await newFlavor(extraSpecs, more) });

  const server = await waitForStatus(cloud, id, 'ERROR');

  expect(`${server?.fault?.message} ${server?.fault?.details}`).toMatch(reason);
  await deleteServer(id);
});

afterAll(async () => {
  for (const id of flavors) await cloud.delete(cloud.compute, `/flavors/${id}`);
  engine[Symbol.dispose]();
  await expectNothingLeft(before, 30_000);
});
