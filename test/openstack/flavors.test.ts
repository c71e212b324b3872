// Extra specs of flavors, on a real Nova: what they limit, and what a host refuses.
import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from './lab/commands.ts';
import { addressOf, waitForPing, waitForStatus } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, lab, newServer, paths } from './lab/suite.ts';

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

describe('limit the bandwidth of interfaces', () => {
  let id: string;
  let network: string;

  const portsOf = async (): Promise<readonly string[]> => {
    const path = `/v2.0/ports?device_id=${id}`;
    const { ports } = await cloud.get<{ ports: readonly { id: string }[] }>(cloud.network, path);
    return ports.map((port) => `tap${port.id.slice(0, 11)}`);
  };
  const limitsOf = async (end: string) => ({
    inbound: await run(['tc', 'class', 'show', 'dev', end]),
    outbound: await run(['nft', 'list', 'chain', 'netdev', 'nova', end]).catch(() => ''),
  });
  const isLimited = { inbound: /rate 8192Kbit ceil 16384Kbit/, outbound: /limit rate over 2 mbytes\/second/ };

  it('from the boot on, of those that are attached later, and after a reboot', async () => {
    network = (await lab()).network;
    const limits = {
      'quota:vif_inbound_average': '1000',
      'quota:vif_inbound_peak': '2000',
      'quota:vif_outbound_average': '2048',
    };
    const server = await activeServer({ name: 'narrow', flavor: await newFlavor(limits) });
    id = server.id;
    await waitForPing(addressOf(server) ?? '', network);
    await cloud.post(cloud.compute, `/servers/${id}/os-interface`, { interfaceAttachment: { net_id: network } });
    await cloud.action(id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, id, 'ACTIVE');

    const ends = await portsOf();
    expect(ends).toHaveLength(2);
    for (const end of ends) {
      const { inbound, outbound } = await limitsOf(end);
      expect(inbound).toMatch(isLimited.inbound);
      expect(outbound).toMatch(isLimited.outbound);
    }
  });

  it('until it has a flavor without them', async () => {
    await cloud.action(id, { resize: { flavorRef: await newFlavor({}, { ram: 192 }) } });
    await waitForStatus(cloud, id, 'VERIFY_RESIZE');

    for (const end of await portsOf()) expect(await limitsOf(end)).toEqual({ inbound: '', outbound: '' });
    await deleteServer(id);
  });
});

describe('have ephemeral disks', () => {
  let id: string;
  let name: string;

  const write = async (path: string): Promise<void> =>
    await engine.files.put(name, path, { kind: 'file', content: Buffer.from('kept') });
  const read = async (path: string): Promise<string> => await text((await engine.files.get(name, path)).content);
  const volumes = async (): Promise<readonly string[]> => {
    const all = await engine.storageVolumes.list('default');
    return all.map((volume) => volume.name).filter((volume) => volume.startsWith('ephemeral'));
  };
  const ephemeral = async (gib: number): Promise<string> =>
    await newFlavor({}, { 'OS-FLV-EXT-DATA:ephemeral': gib, ram: 128 + gib });

  it('as its user divided them, counted by Placement', async () => {
    const { image } = await lab();
    const blank = { source_type: 'blank', destination_type: 'local', boot_index: -1, volume_size: 1 };
    const server = {
      name: 'disks',
      flavorRef: await ephemeral(2),
      imageRef: image,
      networks: 'none',
      block_device_mapping_v2: [
        { source_type: 'image', destination_type: 'local', boot_index: 0, uuid: image, delete_on_termination: true },
        blank,
        blank,
      ],
    };
    id = await cloud.createServer(server);
    const active = await waitForStatus(cloud, id, 'ACTIVE');
    name = active?.['OS-EXT-SRV-ATTR:instance_name'] ?? '';

    await write('/mnt/mark');
    await write('/mnt/ephemeral1/mark');

    expect(await volumes()).toEqual([`ephemeral0-${id}`, `ephemeral1-${id}`]);
    const { allocations } = await cloud.get<{
      allocations: Readonly<Record<string, { resources: Readonly<Record<string, number>> }>>;
    }>(cloud.placement, `/allocations/${id}`);
    expect(Object.values(allocations).map(({ resources }) => resources['DISK_GB'])).toEqual([3]);
  });

  it('which a hard reboot keeps, a rebuild makes anew, and a deletion removes', async () => {
    await cloud.action(id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, id, 'ACTIVE');
    expect([await read('/mnt/mark'), await read('/mnt/ephemeral1/mark')]).toEqual(['kept', 'kept']);

    await cloud.action(id, { rebuild: { imageRef: (await lab()).image } });
    await waitForStatus(cloud, id, 'ACTIVE');
    expect(await engine.files.find(name, '/mnt/mark')).toBeUndefined();
    await write('/mnt/ephemeral1/mark');
    await deleteServer(id);
    expect(await volumes()).toEqual([]);
  });

  it('which grow with another flavor, and are as before when that is taken back', async () => {
    const server = await activeServer({ name: 'grows', network: 'none', flavor: await ephemeral(0) });
    id = server.id;
    name = server['OS-EXT-SRV-ATTR:instance_name'];
    await cloud.action(id, { resize: { flavorRef: await ephemeral(1) } });
    await waitForStatus(cloud, id, 'VERIFY_RESIZE');
    await write('/mnt/mark');
    expect(await volumes()).toEqual([`ephemeral0-${id}`]);
    await cloud.action(id, { revertResize: null });
    await waitForStatus(cloud, id, 'ACTIVE');
    expect(await volumes()).toEqual([]);

    await cloud.action(id, { resize: { flavorRef: await ephemeral(1) } });
    await waitForStatus(cloud, id, 'VERIFY_RESIZE');
    await write('/mnt/mark');
    await cloud.action(id, { confirmResize: null });
    await waitForStatus(cloud, id, 'ACTIVE');
    await cloud.action(id, { resize: { flavorRef: await ephemeral(2) } });
    await waitForStatus(cloud, id, 'VERIFY_RESIZE');
    expect(await read('/mnt/mark')).toBe('kept');
    await deleteServer(id);
    expect(await volumes()).toEqual([]);
  });
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
    'limits of interfaces without an average',
    { 'quota:vif_inbound_peak': '100' },
    {},
    /without quota:vif_inbound_average/,
  ],
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
