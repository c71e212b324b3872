// Managed networks as users of the stock tools meet them: `lxd init --auto`, then `lxc network …`.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ended, StockClient } from '../engine/stock-client.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const commands = ['lxc', 'lxd', 'lxc-start', 'busybox', 'ip', 'nft', 'dnsmasq'];

describeWith({ root: true, commands }, 'managed networks and the stock tools', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start('none');
    client = await StockClient.for(daemon);
  });

  afterAll(async () => {
    for (const name of ['lxdbr0', 'ltcli0', 'ltcli1']) await daemon.call('DELETE', `/1.0/networks/${name}`);
    await daemon[Symbol.asyncDispose]();
  });

  const network = (...args: readonly string[]) => client.run('network', ...args);

  it('set up a server at once', async () => {
    const { code, stderr } = await ended(client.command('lxd', 'init', '--auto'));

    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const profile = (await daemon.call('GET', '/1.0/profiles/default')).metadata;
    expect(profile.devices).toEqual({
      eth0: { name: 'eth0', network: 'lxdbr0', type: 'nic' },
      root: { path: '/', pool: 'default', type: 'disk' },
    });
    expect(await network('list', '--format', 'csv')).toMatch(
      /^lxdbr0,bridge,YES,10\.[\d.]+\/24,fd42:[0-9a-f:]+\/64,,1,CREATED$/mu,
    );
    await client.run('profile', 'device', 'remove', 'default', 'eth0');
    await network('delete', 'lxdbr0');
    expect(await network('list', '--format', 'csv')).not.toContain('lxdbr0');
  });

  it('make, show, change, rename and delete a network', async () => {
    await network('create', 'ltcli0', 'ipv4.address=10.175.1.1/24', 'ipv6.address=none');

    await network('set', 'ltcli0', 'ipv4.nat=true', 'ipv4.dhcp.expiry=2h');
    await network('unset', 'ltcli0', 'ipv4.dhcp.expiry');
    const shown = await network('show', 'ltcli0');
    const edited = await client.ends(['network', 'edit', 'ltcli0'], shown.replaceAll('10.175.1.1', '10.175.2.1'));
    const info = await network('info', 'ltcli0');
    await network('rename', 'ltcli0', 'ltcli1');

    expect(edited).toMatchObject({ code: 0, stderr: '' });
    expect(shown).toContain('ipv4.nat: "true"');
    expect(shown).not.toContain('expiry');
    expect(info).toContain('inet\t10.175.2.1/24 (global)');
    expect(await network('get', 'ltcli1', 'ipv4.address')).toBe('10.175.2.1/24\n');
    expect(await network('list-leases', 'ltcli1')).toContain('10.175.2.1');
    await network('delete', 'ltcli1');
    await expect(network('show', 'ltcli1')).rejects.toThrow('Network not found');
  });
});
