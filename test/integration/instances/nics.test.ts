// Nics of instances on a real host: what a container gets, what the host keeps, and what is left after.
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const BRIDGE = 'ltbr0';
const PORT = 'ltport0';
const PEER = 'ltpeer0';

const ip = (...args: string[]) => run('ip', args);
const exists = (name: string) => existsSync(`/sys/class/net/${name}`);

async function removeLink(name: string): Promise<void> {
  if (exists(name)) await ip('link', 'delete', 'dev', name);
}

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip'] }, 'nics of instances', () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    for (const name of [BRIDGE, PORT, PEER]) await removeLink(name);
    await ip('link', 'add', BRIDGE, 'type', 'bridge');
    await ip('link', 'set', BRIDGE, 'up', 'mtu', '1450');
    daemon = await TestDaemon.start();
    await daemon.addImage();
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    for (const name of [BRIDGE, PORT, PEER]) await removeLink(name);
  });

  async function end(name: string): Promise<void> {
    await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
    await daemon.operate('DELETE', `/1.0/instances/${name}`);
  }

  it('moves a physical interface in, keeps it over a reboot, and takes it back', async () => {
    await ip('link', 'add', PORT, 'type', 'veth', 'peer', 'name', PEER);
    const hwaddr = '00:16:3e:00:00:42';
    const devices = { eth0: { type: 'nic', nictype: 'physical', parent: PORT, name: 'eth0', hwaddr, mtu: '1400' } };
    await daemon.launch('phys', { devices });
    await daemon.ready('phys');
    const first = await daemon.state('phys');
    const onHost = exists(PORT);

    const since = daemon.events.length;
    process.kill(first.pid, 'SIGINT');
    await daemon.seen('instance-restarted', since);
    const second = await daemon.state('phys');
    await daemon.operate('PUT', '/1.0/instances/phys/state', { action: 'stop', force: true });

    for (const state of [first, second])
      expect(state.network.eth0).toMatchObject({ hwaddr, mtu: 1400, host_name: PORT });
    expect(onHost).toBe(false);
    expect(second.pid).not.toBe(first.pid);
    expect(exists(PORT)).toBe(true);
    await daemon.operate('PUT', '/1.0/instances/phys/state', { action: 'start' });
    expect((await daemon.state('phys')).network.eth0.hwaddr).toBe(hwaddr);
    await end('phys');
    await removeLink(PEER);
  });

  it('accepts that a physical interface vanishes with its other end, and says so at the next start', async () => {
    await ip('link', 'add', PORT, 'type', 'veth', 'peer', 'name', PEER);
    const devices = { eth0: { type: 'nic', nictype: 'physical', parent: PORT, hwaddr: '00:16:3e:00:00:43' } };
    await daemon.launch('vanish', { devices });
    await removeLink(PEER);

    await daemon.operate('PUT', '/1.0/instances/vanish/state', { action: 'stop', force: true });

    expect(exists(PORT)).toBe(false);
    await expect(daemon.operate('PUT', '/1.0/instances/vanish/state', { action: 'start' })).rejects.toThrow(
      `Failed to start device "eth0": Parent device '${PORT}' doesn't exist`,
    );
    await daemon.operate('DELETE', '/1.0/instances/vanish');
  });

  it('joins a bridge with a pair whose host end is known and goes away', async () => {
    await daemon.launch('bridged', { devices: { eth0: { type: 'nic', nictype: 'bridged', parent: BRIDGE } } });
    const { metadata } = await daemon.call('GET', '/1.0/instances/bridged?recursion=1');
    const hostName = metadata.config['volatile.eth0.host_name'] as string;
    const { stdout } = await ip('-j', 'link', 'show', 'dev', hostName);

    expect(hostName).toMatch(/^veth[0-9a-f]{8}$/);
    expect(JSON.parse(stdout)[0]).toMatchObject({ master: BRIDGE, mtu: 1450 });
    expect(metadata.config['volatile.eth0.hwaddr']).toMatch(/^00:16:3e(:[0-9a-f]{2}){3}$/);
    expect(metadata.config['volatile.eth0.name']).toBe('eth0');
    expect(metadata.state.network.eth0).toMatchObject({
      host_name: hostName,
      hwaddr: metadata.config['volatile.eth0.hwaddr'],
      mtu: 1450,
      type: 'broadcast',
      state: 'up',
    });
    await daemon.operate('PUT', '/1.0/instances/bridged/state', { action: 'stop', force: true });
    expect(exists(hostName)).toBe(false);
    const after = (await daemon.call('GET', '/1.0/instances/bridged')).metadata.config;
    expect(after['volatile.eth0.host_name']).toBeUndefined();
    expect(after['volatile.eth0.hwaddr']).toBe(metadata.config['volatile.eth0.hwaddr']);
    await daemon.operate('DELETE', '/1.0/instances/bridged');
  });

  it('makes p2p and macvlan interfaces, with addresses read from outside', async () => {
    const devices = {
      eth0: { type: 'nic', nictype: 'p2p', host_name: 'ltp2p0', mtu: '1300' },
      wan: { type: 'nic', nictype: 'macvlan', parent: BRIDGE, name: 'wan0' },
    };
    await daemon.launch('both', { devices });
    await daemon.ready('both');
    const linkLocal = async () => {
      const { network } = await daemon.state('both');
      const addresses = network.eth0.addresses as { scope: string }[];
      return addresses.some(({ scope }) => scope === 'link') ? network : undefined;
    };
    const network = await poll(linkLocal, 50, AbortSignal.timeout(5000));

    expect(network.eth0).toMatchObject({ host_name: 'ltp2p0', mtu: 1300 });
    expect(network.wan0.hwaddr).toMatch(/^00:16:3e/);
    expect(exists('ltp2p0')).toBe(true);
    await end('both');
    expect(exists('ltp2p0')).toBe(false);
  });

  it('gives a nic to a running instance, and refuses unknown options', async () => {
    await daemon.launch('fixed');
    const add = (device: object) => daemon.call('PATCH', '/1.0/instances/fixed', { devices: { e0: device } });

    const hot = await add({ type: 'nic', nictype: 'p2p' });
    const config = async () => (await daemon.call('GET', '/1.0/instances/fixed')).metadata.config;
    expect(await config()).toHaveProperty(['volatile.e0.name'], 'eth0');
    const unknown = await add({ type: 'nic', nictype: 'p2p', foo: 'bar' });
    const type = await add({ type: 'nic', nictype: 'zzz' });

    expect(hot.error).toBe('');
    expect((await daemon.state('fixed')).network.eth0.host_name).toMatch(/^veth/u);
    expect(unknown.error).toBe('Invalid devices: Device validation failed for "e0": Invalid device option "foo"');
    expect(type.error).toBe(
      'Invalid devices: Device validation failed for "e0": Failed loading device "e0": Unsupported device type',
    );
    expect((await add({ type: 'nic', nictype: 'p2p', name: 'lan0' })).error).toBe('');
    expect((await daemon.state('fixed')).network).toHaveProperty('lan0');
    expect(await config()).not.toHaveProperty(['volatile.e0.name']);
    await end('fixed');
  });
});
