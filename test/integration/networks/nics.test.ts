// Instances on a managed network: leases from a real DHCP client, names, NAT to a second host, and all of it without the daemon.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { Resolver } from 'node:dns/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { notedPid } from '#drivers/network/bridge/dnsmasq-note.ts';
import { poll } from '#src/lib/wait.ts';
import { StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const NETWORK = 'ltnic0';
const OUTSIDE = '192.0.2.2';

const commands = ['lxc', 'lxc-start', 'busybox', 'ip', 'nft', 'dnsmasq', 'unshare'];

describeWith({ root: true, commands }, 'instances on managed networks', () => {
  let daemon: TestDaemon;
  let client: StockClient;
  let outside: ReturnType<typeof spawn>;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    // Another host behind a cable, that knows no way to the network: only NAT brings answers back.
    outside = spawn('unshare', ['--net', 'sleep', 'infinity'], { stdio: 'ignore' });
    const pid = String(outside.pid);
    const there = (...args: string[]) => run('nsenter', ['-t', pid, '-n', 'ip', ...args]);
    await poll(
      async () => ((await there('-o', 'link')).stdout.trim().split('\n').length === 1 ? true : undefined),
      20,
      AbortSignal.timeout(5000),
    );
    await run('ip', ['link', 'add', 'ltout0', 'type', 'veth', 'peer', 'name', 'ltout1', 'netns', pid]);
    await run('ip', ['address', 'add', '192.0.2.1/24', 'dev', 'ltout0']);
    await run('ip', ['link', 'set', 'ltout0', 'up']);
    await there('link', 'set', 'lo', 'up');
    await there('address', 'add', `${OUTSIDE}/24`, 'dev', 'ltout1');
    await there('link', 'set', 'ltout1', 'up');
    await client.run('network', 'create', NETWORK, 'ipv4.address=10.172.1.1/24', 'ipv4.nat=true', 'ipv6.address=none');
  });

  afterAll(async () => {
    // Its cable goes with it.
    outside.kill('SIGKILL');
    const { metadata } = await daemon.call('GET', '/1.0/instances?recursion=1');
    for (const { name, status } of metadata as { name: string; status: string }[]) {
      if (status !== 'Stopped')
        await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
      await daemon.operate('DELETE', `/1.0/instances/${name}`);
    }
    await daemon.call('DELETE', `/1.0/networks/${NETWORK}`);
    await daemon[Symbol.asyncDispose]();
  });

  const launch = (name: string, options: object = {}) =>
    daemon.launch(name, { devices: { eth0: { type: 'nic', network: NETWORK, ...options } } });
  const hosts = () => readdirSync(join(daemon.root, 'networks', NETWORK, 'dnsmasq.hosts')).sort();
  const hostLine = (file: string) =>
    readFileSync(join(daemon.root, 'networks', NETWORK, 'dnsmasq.hosts', file), 'utf8').trim();
  const serverPid = () => notedPid(readFileSync(join(daemon.root, 'networks', NETWORK, 'dnsmasq.pid'), 'utf8'));

  /** Its IPv4 address, as soon as it has one. */
  async function addressOf(name: string): Promise<string> {
    const ask = async () => {
      const addresses = ((await daemon.state(name)).network?.eth0?.addresses ?? []) as Record<string, string>[];
      return addresses.find(({ family, scope }) => family === 'inet' && scope === 'global')?.['address'];
    };
    return poll(ask, 100, AbortSignal.timeout(30_000));
  }

  async function dns(name: string): Promise<readonly string[]> {
    const resolver = new Resolver({ timeout: 2000, tries: 2 });
    resolver.setServers(['10.172.1.1']);
    return resolver.resolve4(name);
  }

  it('get an address, a name and a way out', async () => {
    await launch('c1');
    const address = await addressOf('c1');
    const { metadata: instance } = await daemon.call('GET', '/1.0/instances/c1');

    expect(address).toMatch(/^10\.172\.1\.\d+$/u);
    expect(hostLine('c1.eth0')).toBe(`${instance.config['volatile.eth0.hwaddr']},c1`);
    expect(await dns('c1.lxd')).toEqual([address]);
    expect(await dns('_gateway.lxd')).toEqual(['10.172.1.1']);
    const leases = (await daemon.call('GET', `/1.0/networks/${NETWORK}/leases`)).metadata;
    expect(leases).toEqual([
      { hostname: `${NETWORK}.gw`, hwaddr: '', address: '10.172.1.1', type: 'gateway', location: '' },
      { hostname: 'c1', hwaddr: instance.config['volatile.eth0.hwaddr'], address, type: 'dynamic', location: 'none' },
    ]);
    expect((await daemon.call('GET', `/1.0/networks/${NETWORK}`)).metadata.used_by).toEqual(['/1.0/instances/c1']);
    expect(await client.run('exec', 'c1', '--', 'ping', '-c', '1', '-W', '3', OUTSIDE)).toContain('1 packets received');
  });

  it('get the address that is fixed for them, and another one when it changes', async () => {
    await launch('c2', { 'ipv4.address': '10.172.1.77' });
    const first = await addressOf('c2');

    const device = { type: 'nic', network: NETWORK, 'ipv4.address': '10.172.1.78' };
    const changed = await daemon.call('PATCH', '/1.0/instances/c2', { devices: { eth0: device } });
    const line = hostLine('c2.eth0');
    await daemon.operate('PUT', '/1.0/instances/c2/state', { action: 'restart', force: true });
    const second = await addressOf('c2');

    expect(changed.error).toBe('');
    expect([first, second]).toEqual(['10.172.1.77', '10.172.1.78']);
    expect(line).toMatch(/^00:16:3e:[0-9a-f:]+,10\.172\.1\.78,c2$/u);
    const leases = await client.run('network', 'list-leases', NETWORK, '--format', 'csv');
    expect(leases).toMatch(/^c2,00:16:3e:[0-9a-f:]+,10\.172\.1\.78,STATIC$/imu);
  });

  it('are one of a name, one of an address', async () => {
    const create = (name: string, options: object) =>
      daemon.operate('POST', '/1.0/instances', {
        name,
        source: { type: 'image', alias: 'bb' },
        devices: { eth0: { type: 'nic', network: NETWORK, ...options } },
      });
    await create('twin', { 'ipv4.address': '10.172.1.78' });

    const started = daemon.operate('PUT', '/1.0/instances/twin/state', { action: 'start' });

    await expect(started).rejects.toThrow(
      'Failed start validation for device "eth0": IP address "10.172.1.78" already defined on another NIC',
    );
    const begin =
      'Failed creating instance record: Failed initialising instance: Invalid devices: Device validation failed for "eth0": ';
    await expect(create('x1', { 'ipv4.address': '10.99.0.1' })).rejects.toThrow(
      `${begin}Device IP address "10.99.0.1" not within network "${NETWORK}" subnet`,
    );
    await expect(create('x1', { network: 'nosuch' })).rejects.toThrow(
      `${begin}Failed loading device "eth0": Failed to load network "nosuch" for project "default": Network not found`,
    );
    await expect(create('x1', { nictype: 'bridged' })).rejects.toThrow(
      `${begin}Cannot use "nictype" property in conjunction with "network" property`,
    );
    expect(hosts()).not.toContain('twin.eth0');
    await daemon.operate('DELETE', '/1.0/instances/twin');
  });

  it('give their leases back when they go, or become another card', async () => {
    const file = () => readFileSync(join(daemon.root, 'networks', NETWORK, 'dnsmasq.leases'), 'utf8');
    const gone = (hwaddr: string) =>
      poll(async () => !file().includes(hwaddr) || undefined, 50, AbortSignal.timeout(5000));
    const hwaddrOf = async () => {
      const { metadata } = await daemon.call('GET', '/1.0/instances/lease');
      return String(metadata.config['volatile.eth0.hwaddr']);
    };
    await launch('lease');
    await addressOf('lease');
    const first = await hwaddrOf();
    expect(file()).toContain(first);

    await daemon.operate('PUT', '/1.0/instances/lease/state', { action: 'stop', force: true });
    expect(file()).toContain(first);
    const device = { type: 'nic', network: NETWORK, hwaddr: '00:16:3e:77:00:01' };
    expect((await daemon.call('PATCH', '/1.0/instances/lease', { devices: { eth0: device } })).error).toBe('');
    await gone(first);
    await daemon.operate('PUT', '/1.0/instances/lease/state', { action: 'start' });
    await addressOf('lease');
    expect(file()).toContain(device.hwaddr);
    await daemon.operate('PUT', '/1.0/instances/lease/state', { action: 'stop', force: true });
    // An empty one is none: the card has one of its own.
    const empty = { devices: { eth0: { ...device, hwaddr: '' } } };
    expect((await daemon.call('PATCH', '/1.0/instances/lease', empty)).error).toBe('');
    expect(hostLine('lease.eth0')).toBe(`${await hwaddrOf()},lease`);
    await gone(device.hwaddr);
    await daemon.operate('DELETE', '/1.0/instances/lease');
  });

  it('are given an address where a filter needs one, and keep it while the daemon is away', async () => {
    const chosen = () => /,(10\.172\.1\.\d+),/u.exec(hostLine('filt.eth0'))?.[1] ?? '';
    await launch('filt', { 'security.ipv4_filtering': 'true' });
    const address = await addressOf('filt');
    expect(chosen()).toBe(address);
    const rules = async () => (await run('nft', ['-nn', 'list', 'chain', 'bridge', 'lxd', 'in.filt.eth0'])).stdout;
    expect(await rules()).toContain(`ip saddr ${address} accept`);

    await daemon.kill();
    await daemon.boot();
    expect(chosen()).toBe(address);
    expect(await rules()).toContain(`ip saddr ${address} accept`);

    const device = { type: 'nic', network: NETWORK };
    expect((await daemon.call('PATCH', '/1.0/instances/filt', { devices: { eth0: device } })).error).toBe('');
    expect(chosen()).toBe('');
    const filtered = { ...device, 'security.ipv4_filtering': 'true' };
    expect((await daemon.call('PATCH', '/1.0/instances/filt', { devices: { eth0: filtered } })).error).toBe('');
    expect(chosen()).toBe(address); // its lease
    await daemon.operate('PUT', '/1.0/instances/filt/state', { action: 'stop', force: true });
    await daemon.operate('DELETE', '/1.0/instances/filt');
    expect(hosts()).not.toContain('filt.eth0');
  });

  it('are forgotten when they are renamed or deleted', async () => {
    await daemon.operate('POST', '/1.0/instances', {
      name: 'old',
      source: { type: 'image', alias: 'bb' },
      devices: { eth0: { type: 'nic', network: NETWORK } },
    });
    const before = hosts();

    await daemon.operate('POST', '/1.0/instances/old', { name: 'new' });
    const renamed = hosts();
    await daemon.operate('DELETE', '/1.0/instances/new');

    expect(before).toContain('old.eth0');
    expect(renamed).toContain('new.eth0');
    expect(renamed).not.toContain('old.eth0');
    expect(hosts()).toEqual(['c1.eth0', 'c2.eth0']);
  });

  it('keep the network from being deleted and renamed, by profile as well', async () => {
    await client.run('profile', 'create', 'netted');
    await client.run('network', 'attach-profile', NETWORK, 'netted', 'eth0');

    const deleted = await daemon.call('DELETE', `/1.0/networks/${NETWORK}`);
    const renamed = await daemon.call('POST', `/1.0/networks/${NETWORK}`, { name: 'ltnic1' });

    expect(deleted).toMatchObject({ status: 400, error: 'The network is currently in use' });
    expect(renamed).toMatchObject({ status: 400, error: 'Network is currently in use' });
    expect(await client.run('profile', 'show', 'netted')).toMatch(new RegExp(`(network|parent): ${NETWORK}`, 'u'));
    await client.run('network', 'detach-profile', NETWORK, 'netted');
    await client.run('profile', 'delete', 'netted');
  });

  it('keep their network while the daemon is away, and it knows them when it is back', async () => {
    const address = await addressOf('c1');
    const pid = serverPid();
    await daemon.kill();
    // Asked of the container's own namespace: there is no daemon to ask.
    const [init] = (
      await run('lxc-info', ['-P', join(daemon.root, 'containers'), '-n', 'c1', '-p', '-H'])
    ).stdout.split('\n');
    const ping = await run('nsenter', ['-t', init ?? '', '-n', 'ping', '-c', '1', '-W', '3', OUTSIDE]).catch(async () =>
      run('nsenter', ['-t', init ?? '', '-n', 'busybox', 'ping', '-c', '1', '-W', '3', OUTSIDE]),
    );

    await daemon.boot();

    expect(ping.stdout).toMatch(/1 (packets )?received/u);
    expect(serverPid()).toBe(pid);
    expect(await addressOf('c1')).toBe(address);
    expect(hosts()).toEqual(['c1.eth0', 'c2.eth0']);
    expect(await dns('c1.lxd')).toEqual([address]);
    await launch('c3');
    expect(await addressOf('c3')).toMatch(/^10\.172\.1\./u);
    expect(hosts()).toContain('c3.eth0');
  });

  it('can be put on a network and taken off while they run', async () => {
    await daemon.launch('c4');
    await client.run('network', 'attach', NETWORK, 'c4', 'eth0', 'eth0');
    const attached = (await daemon.call('GET', '/1.0/instances/c4')).metadata;
    const line = hostLine('c4.eth0');
    await client.run('network', 'detach', NETWORK, 'c4');

    expect(attached.devices.eth0).toEqual({ type: 'nic', network: NETWORK, name: 'eth0' });
    expect(line).toBe(`${attached.config['volatile.eth0.hwaddr']},c4`);
    expect(hosts()).not.toContain('c4.eth0');
  });
});
