// The main way, on a real Nova: a server is created, used and deleted, and nothing of it is left behind.
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { addressOf, consoleLog, ping, waitForPing, waitForStatus } from './lab/first-server.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { labEngine } from './lab/stock-engines.ts';
import { actionsOf, activeServer, cloud, deleteServer, engine, lab, newServer, paths } from './lab/suite.ts';

let before: Residue;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});

describe('a server with a port', () => {
  let id: string;
  let address: string;

  it('becomes ACTIVE and answers ping at its address', async () => {
    const server = await activeServer({ name: 'lifecycle' });
    id = server.id;
    address = addressOf(server) ?? '';

    await waitForPing(address, (await lab()).network);

    expect(server['OS-EXT-STS:vm_state']).toBe('active');
    const [create] = await actionsOf(id);
    expect(create?.events.map(({ event, result }) => [event, result])).toContainEqual([
      'compute__do_build_and_run_instance',
      'Success',
    ]);
  });

  it('has an ACTIVE port bound to the node', async () => {
    const { ports } = await cloud.get<{ ports: readonly Record<string, unknown>[] }>(
      cloud.network,
      `/v2.0/ports?device_id=${id}`,
    );

    expect(ports).toHaveLength(1);
    const type = paths.network === 'linuxbridge' ? 'bridge' : 'ovs';
    expect(ports[0]).toMatchObject({ status: 'ACTIVE', 'binding:host_id': 'node1', 'binding:vif_type': type });
  });

  it('shows its console log', async () => {
    expect(await consoleLog(cloud, id, 1000)).toContain('lightervisor-test: up as instance-');
    expect((await consoleLog(cloud, id, 1)).trimEnd().split('\n')).toHaveLength(1);
  });

  it('stops and starts, with its address again', async () => {
    await cloud.action(id, { 'os-stop': null });
    await waitForStatus(cloud, id, 'SHUTOFF');
    expect(await ping(address, (await lab()).network)).toBe(false);
    expect(await consoleLog(cloud, id, 5)).not.toBe('');

    await cloud.action(id, { 'os-start': null });
    await waitForStatus(cloud, id, 'ACTIVE');
    await waitForPing(address, (await lab()).network);
  });

  it.each(['SOFT', 'HARD'])('reboots (%s)', async (type) => {
    await cloud.action(id, { reboot: { type } });
    await waitForStatus(cloud, id, 'ACTIVE');

    await waitForPing(address, (await lab()).network);
    const [newest] = await actionsOf(id);
    expect(newest).toMatchObject({ action: 'reboot', message: null });
  });

  it.each([
    ['pause', 'PAUSED', 'unpause'],
    ['suspend', 'SUSPENDED', 'resume'],
  ])('is frozen by %s, and goes on', async (freeze, status, thaw) => {
    await cloud.action(id, { [freeze]: null });
    const frozen = await waitForStatus(cloud, id, status);
    expect(frozen).toMatchObject({ 'OS-EXT-STS:power_state': 3 });
    // with a stock engine the kernel answers
    if (labEngine() === 'lighterd') expect(await ping(address, (await lab()).network)).toBe(false);

    await cloud.action(id, { [thaw]: null });
    await waitForStatus(cloud, id, 'ACTIVE');
    await waitForPing(address, (await lab()).network);
  });

  it('is given a password for root', async () => {
    const { 'OS-EXT-SRV-ATTR:instance_name': name = '' } = (await cloud.server(id)) ?? {};
    const shadow = async () => await text((await engine.files.get(name, '/etc/shadow')).content);
    expect(await shadow()).toContain('root:*:');

    await cloud.action(id, { changePassword: { adminPass: 'a new:one' } });
    await waitForStatus(cloud, id, 'ACTIVE');

    expect(await shadow()).toMatch(/^root:\$[^:]+:/mu);
  });

  it('tells what it has used', async () => {
    const { memory_details: memory, nic_details: nics } = await cloud.get<{
      memory_details: { used: number };
      nic_details: readonly { rx_octets: number }[];
    }>(cloud.compute, `/servers/${id}/diagnostics`);

    expect(memory.used).toBeGreaterThan(0);
    expect(nics[0]?.rx_octets).toBeGreaterThan(0);
  });

  it('is given a second interface, which goes again', async () => {
    const path = `/servers/${id}/os-interface`;
    const { network } = await lab();
    const { interfaceAttachment: made } = await cloud.post<{
      interfaceAttachment: { port_id: string; fixed_ips: readonly { ip_address: string }[] };
    }>(cloud.compute, path, { interfaceAttachment: { net_id: network } });
    expect(made.fixed_ips).toHaveLength(1);
    const attachments = async () =>
      (await cloud.get<{ interfaceAttachments: readonly { port_id: string }[] }>(cloud.compute, path))
        .interfaceAttachments;
    expect((await attachments()).map(({ port_id: port }) => port)).toContain(made.port_id);

    await cloud.delete(cloud.compute, `${path}/${made.port_id}`);
    await poll(async () => ((await attachments()).length === 1 ? true : undefined), 500, AbortSignal.timeout(60_000));
    await waitForPing(address, network);
  });

  it('is deleted', async () => {
    await deleteServer(id);

    expect(await cloud.server(id)).toBeUndefined();
  });
});

describe('a server without a network', () => {
  it('becomes ACTIVE, and goes', async () => {
    const server = await activeServer({ name: 'no-network', network: 'none' });

    expect(server.addresses).toEqual({});
    expect(await consoleLog(cloud, server.id, 100)).toContain('lightervisor-test: up as');
    await deleteServer(server.id);
  });
});

describe('several servers', () => {
  it('are created at once from one image', async () => {
    const ids = await Promise.all(Array.from({ length: 6 }, (_none, index) => newServer({ name: `many-${index}` })));

    const servers = await Promise.all(ids.map((id) => waitForStatus(cloud, id, 'ACTIVE')));

    const addresses = servers.map((server) => server && addressOf(server));
    expect(new Set(addresses).size).toBe(6);
    await Promise.all(ids.map((id) => deleteServer(id)));
  });

  it('may be deleted while they are built', async () => {
    const ids = await Promise.all(Array.from({ length: 4 }, (_none, index) => newServer({ name: `short-${index}` })));

    await Promise.all(ids.map((id) => deleteServer(id)));

    expect(await Promise.all(ids.map((id) => cloud.server(id)))).toEqual(ids.map(() => undefined));
  });
});

afterAll(async () => {
  engine[Symbol.dispose]();
  // the agents tidy up in their own time
  await expectNothingLeft(before, 30_000);
});
