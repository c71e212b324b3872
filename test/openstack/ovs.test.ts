// Ports that Neutron's Open vSwitch agent wires, on a lab that was made with it: npm run up -- --ovs.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { execIn } from '../integration/guest-exec.ts';
import type { Server } from './lab/cloud.ts';
import { run } from './lab/commands.ts';
import { addressOf, waitForPing, waitForStatus } from './lab/first-server.ts';
import { startCompute, waitForConsumer } from './lab/node.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { activeServer, cloud, deleteServer, engine, lab, paths, processes } from './lab/suite.ts';
import { switchPorts } from './lab/switches.ts';

interface Port {
  readonly id: string;
  readonly status: string;
  readonly mac_address: string;
  readonly 'binding:vif_type': string;
  readonly 'binding:vif_details': Readonly<Record<string, unknown>>;
}

const nameOf = (server: Server): string => server['OS-EXT-SRV-ATTR:instance_name'];
const vsctl = async (...words: readonly string[]): Promise<string> =>
  (await run(['ovs-vsctl', '--timeout=10', ...words])).trim();

async function portsOf(server: Server): Promise<readonly Port[]> {
  const path = `/v2.0/ports?device_id=${server.id}`;
  return (await cloud.get<{ ports: readonly Port[] }>(cloud.network, path)).ports;
}

async function make<T>(
  kind: 'network' | 'subnet' | 'port' | 'trunk',
  body: Readonly<Record<string, unknown>>,
): Promise<T> {
  return (await cloud.post<Record<string, T>>(cloud.network, `/v2.0/${kind}s`, { [kind]: body }))[kind] as T;
}

/** The end that is Open vSwitch's, whichever firewall there is. */
function switchPortOf({ id, 'binding:vif_details': details }: Port): string {
  return `${details['ovs_hybrid_plug'] === true ? 'qvo' : 'tap'}${id.slice(0, 11)}`;
}

async function inGuest(server: Server, command: string): Promise<string> {
  return (await execIn(engine, nameOf(server), ['sh', '-c', command])).stdout;
}

describe.skipIf(paths.network !== 'ovs')('ports of Open vSwitch (npm run up -- --ovs)', () => {
  let before: Residue;
  let server: Server;
  let address: string;
  let network: string;

  beforeAll(async () => {
    before = await takeResidue(cloud, paths);
    ({ network } = await lab());
    server = await activeServer({ name: 'switched' });
    address = addressOf(server) ?? '';
  }, 180_000);

  afterAll(async () => {
    engine[Symbol.dispose]();
    await expectNothingLeft(before, 30_000);
  });

  it('are ACTIVE when the server is, with what Neutron looks for', async () => {
    const [port] = await portsOf(server);
    if (!port) throw new Error('no port');

    expect(port).toMatchObject({ status: 'ACTIVE', 'binding:vif_type': 'ovs' });
    expect(await switchPorts()).toContain(switchPortOf(port));
    const ids = await vsctl('get', 'Interface', switchPortOf(port), 'external_ids');
    expect(ids).toContain(`iface-id="${port.id}"`);
    expect(ids).toContain(`vm-uuid="${server.id}"`);
    expect(ids).toContain(`attached-mac="${port.mac_address}"`);
    expect(await vsctl('get', 'Port', switchPortOf(port), 'tag')).toMatch(/^[1-9]\d*$/);
    await waitForPing(address, network);
  });

  it('carry as much as the kernel sends, with sums that are right', async () => {
    const serving = inGuest(server, 'timeout 20 nc -l -p 22 -e md5sum');
    await expect.poll(() => inGuest(server, 'netstat -ltn | grep -c :22 || true'), { timeout: 10_000 }).toContain('1');
    const send = `head -c 3000000 /dev/zero | timeout 15 busybox nc ${address} 22`;
    const sum = await run(['ip', 'netns', 'exec', `qdhcp-${network}`, 'sh', '-c', send]);
    await serving;

    expect(sum).toBe(await run(['sh', '-c', 'head -c 3000000 /dev/zero | md5sum']));
  });

  it('work again after stop and start, and reboots', async () => {
    await cloud.action(server.id, { 'os-stop': null });
    await waitForStatus(cloud, server.id, 'SHUTOFF');
    await cloud.action(server.id, { 'os-start': null });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    await waitForPing(address, network);

    await cloud.action(server.id, { reboot: { type: 'HARD' } });
    await waitForStatus(cloud, server.id, 'ACTIVE');
    await waitForPing(address, network);
  });

  it('are mended when the compute starts', async () => {
    const [port] = await portsOf(server);
    if (!port) throw new Error('no port');
    await processes.kill('nova-compute-lxd');
    await vsctl('del-port', switchPortOf(port));

    startCompute(paths, processes);
    await waitForConsumer(processes);

    expect(await switchPorts()).toContain(switchPortOf(port));
    await waitForPing(address, network);
  });

  it('come and go while the server runs, with IPv6 and the MTU of their network', async () => {
    const { id: second } = await make<{ id: string }>('network', { name: 'second', mtu: 1300 });
    await make('subnet', { network_id: second, ip_version: 4, cidr: '10.78.0.0/24' });
    const v6 = { ip_version: 6, cidr: 'fd78::/64', ipv6_ra_mode: 'slaac', ipv6_address_mode: 'slaac' };
    await make('subnet', { network_id: second, ...v6 });
    const path = `/servers/${server.id}/os-interface`;
    const { interfaceAttachment: made } = await cloud.post<{
      interfaceAttachment: { port_id: string; fixed_ips: readonly { ip_address: string }[] };
    }>(cloud.compute, path, { interfaceAttachment: { net_id: second } });
    expect(made.fixed_ips.map(({ ip_address: ip }) => ip.replace(/^(fd78|10\.78).*/, '$1')).toSorted()).toEqual([
      '10.78',
      'fd78',
    ]);
    const v4 = made.fixed_ips.find(({ ip_address: ip }) => ip.startsWith('10.'))?.ip_address ?? '';

    const isActive = async () => (await portsOf(server)).find(({ id }) => id === made.port_id)?.status;
    await expect.poll(isActive, { timeout: 30_000, interval: 300 }).toBe('ACTIVE');
    expect(await inGuest(server, 'cat /sys/class/net/eth1/mtu')).toBe('1300\n');
    await inGuest(server, `ip address add ${v4}/24 dev eth1`);
    await waitForPing(v4, second);

    await cloud.delete(cloud.compute, `${path}/${made.port_id}`);
    await expect.poll(async () => (await portsOf(server)).length, { timeout: 60_000, interval: 300 }).toBe(1);
    await expect.poll(switchPorts, { timeout: 10_000 }).toHaveLength(before.switchPorts.length + 1);
    await cloud.delete(cloud.network, `/v2.0/networks/${second}`);
  });

  it('leave nothing in Open vSwitch when the server goes', async () => {
    await deleteServer(server.id);

    expect(await switchPorts()).toEqual(before.switchPorts);
  });

  it('may be parents of trunks, in a bridge of their own, and nothing of it stays', async () => {
    const wiring = async () => `${await vsctl('list-br')} ${await vsctl('list-ports', 'br-int')}`;
    const untouched = await wiring();
    const [{ id: parent }, { id: child }] = await Promise.all([
      make<{ id: string }>('port', { network_id: network, name: 'parent' }),
      make<{ id: string }>('port', { network_id: network, name: 'child' }),
    ]);
    const subports = [{ port_id: child, segmentation_type: 'vlan', segmentation_id: 101 }];
    const { id: trunk } = await make<{ id: string }>('trunk', { port_id: parent, sub_ports: subports });
    const { image, flavor } = await lab();
    const id = await cloud.createServer({
      name: 'trunked',
      imageRef: image,
      flavorRef: flavor,
      networks: [{ port: parent }],
    });
    const trunked = await waitForStatus(cloud, id, 'ACTIVE');
    if (!trunked) throw new Error('the server is gone');

    const [port] = await portsOf(trunked);
    const bridge = String(port?.['binding:vif_details']['bridge_name']);
    expect(bridge).toBe(`tbr-${trunk}`.slice(0, 14));
    expect(await vsctl('port-to-br', port ? switchPortOf(port) : '')).toBe(bridge);
    await waitForPing(addressOf(trunked) ?? '', network);

    await deleteServer(id);
    await expect.poll(wiring, { timeout: 40_000, interval: 300 }).toBe(untouched);
    await cloud.delete(cloud.network, `/v2.0/trunks/${trunk}`);
    for (const name of [parent, child]) await cloud.delete(cloud.network, `/v2.0/ports/${name}`);
  });
});
