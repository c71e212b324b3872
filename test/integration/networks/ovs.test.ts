// Bridges of Open vSwitch: as managed networks, and as parents of nics. Its daemons run here for the test alone.
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { OvsDaemons } from '../switches.ts';

const NETWORK = 'ltovs0';
const FOREIGN = 'ltovs1';
const commands = ['lxc', 'lxc-start', 'busybox', 'dnsmasq', 'nft', 'ovs-vsctl', 'ovs-vswitchd', 'ovsdb-server'];

describeWith({ root: true, commands }, 'bridges of Open vSwitch', () => {
  let daemon: TestDaemon;
  let client: StockClient;
  let switches: OvsDaemons;
  const vsctl = async (...args: string[]): Promise<string> => (await run('ovs-vsctl', args)).stdout.trim();
  const hostName = async (name: string) => {
    const { metadata } = await daemon.call('GET', `/1.0/instances/${name}`);
    return String(metadata.config['volatile.eth0.host_name']);
  };

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    switches = await OvsDaemons.start(join(daemon.root, 'ovs'));
  }, 60_000);
  afterAll(async () => {
    await run('ovs-vsctl', ['--if-exists', 'del-br', FOREIGN]);
    await switches[Symbol.asyncDispose]();
    await daemon[Symbol.asyncDispose]();
  }, 60_000);

  it('are managed networks, with DHCP, and go away with them', async () => {
    const addresses = ['ipv4.address=10.173.1.1/24', 'ipv6.address=none', 'bridge.hwaddr=00:16:3e:00:00:77'];
    await client.run('network', 'create', NETWORK, 'bridge.driver=openvswitch', ...addresses);
    expect(await vsctl('list-br')).toContain(NETWORK);
    await daemon.launch('o1', { devices: { eth0: { type: 'nic', network: NETWORK } } });
    const port = await hostName('o1');
    expect(await vsctl('list-ports', NETWORK)).toBe(port);
    const ask = async () => {
      const addresses = ((await daemon.state('o1')).network?.eth0?.addresses ?? []) as Record<string, string>[];
      return addresses.find(({ family, scope }) => family === 'inet' && scope === 'global')?.['address'];
    };
    expect(await poll(ask, 100, AbortSignal.timeout(30_000))).toMatch(/^10\.173\.1\.\d+$/u);
    expect(await client.run('exec', 'o1', '--', 'ping', '-c', '1', '-W', '3', '10.173.1.1')).toContain(
      '1 packets received',
    );
    expect((await run('cat', [`/sys/class/net/${NETWORK}/address`])).stdout.trim()).toBe('00:16:3e:00:00:77');

    await daemon.kill();
    await daemon.boot();
    expect(await vsctl('list-ports', NETWORK)).toBe(port);
    await client.run('delete', '-f', 'o1');
    expect(await vsctl('list-ports', NETWORK)).toBe('');
    await client.run('network', 'delete', NETWORK);
    expect(await vsctl('list-br')).not.toContain(NETWORK);
  }, 60_000);

  it('are parents of nics with VLANs, and refuse filters', async () => {
    await run('ovs-vsctl', ['add-br', FOREIGN, '--', 'set', 'bridge', FOREIGN, 'datapath_type=netdev']);
    const device = { type: 'nic', nictype: 'bridged', parent: FOREIGN };
    await daemon.launch('o2', { devices: { eth0: { ...device, vlan: '7', 'vlan.tagged': '8,10-11' } } });
    const port = await hostName('o2');

    expect(await vsctl('get', 'port', port, 'vlan_mode', 'tag', 'trunks')).toBe(
      '"native-untagged"\n7\n[8, 10, 11]'.replaceAll('"', ''),
    );
    const filtered = { ...device, 'ipv4.address': '10.9.9.9', 'security.ipv4_filtering': 'true' };
    await expect(daemon.launch('o3', { devices: { eth0: filtered } })).rejects.toThrow(
      `Cannot use "security.ipv4_filtering" on "${FOREIGN}": it is a bridge of Open vSwitch`,
    );
    await client.run('stop', '-f', 'o2');
    expect(await vsctl('list-ports', FOREIGN)).toBe('');
    await client.run('delete', 'o2', 'o3');
  }, 60_000);
});
