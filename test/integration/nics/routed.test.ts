// nictype=routed on real networks: a neighbour on the parent's network, the host between, and containers that are only routed to.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { frame, ipv4Packet, Listener, send } from './frames.ts';

const PARENT = 'ltrt0';
const PEER = 'ltrt1';
const HOST = { ipv4: '198.51.100.1', ipv6: '2001:db8::1' };
const NEIGHBOUR = { ipv4: '198.51.100.9', ipv6: '2001:db8::9' };
const OWN = { ipv4: '198.51.100.50', ipv6: '2001:db8::50' };

/** What routed nics want of the host, in the order in which they ask for it. */
const SETTINGS = [
  'ipv6.conf.all.forwarding',
  'ipv6.conf.all.proxy_ndp',
  `ipv4.conf.${PARENT}.forwarding`,
  `ipv6.conf.${PARENT}.proxy_ndp`,
];

const ip = async (...args: string[]) => (await run('ip', args)).stdout;
const sysctl = (name: string, value: string) => run('sysctl', ['-qw', `net.${name}=${value}`]);

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip', 'nft', 'ping', 'python3'] }, 'routed nics', () => {
  let daemon: TestDaemon;
  let neighbour: number;

  beforeAll(async () => {
    await ip('link', 'add', PARENT, 'type', 'veth', 'peer', 'name', PEER);
    await ip('link', 'set', PARENT, 'up');
    for (const [family, address] of Object.entries(HOST)) {
      await ip('address', 'add', address + (family === 'ipv4' ? '/24' : '/64'), 'dev', PARENT, ...nodad(family));
    }
    // whatever else has run on this host
    for (const setting of SETTINGS) await sysctl(setting, '0');
    daemon = await TestDaemon.start();
    await daemon.addImage();
    await daemon.launch('neighbour', { devices: { eth0: { type: 'nic', nictype: 'physical', parent: PEER } } });
    await daemon.ready('neighbour');
    neighbour = (await daemon.state('neighbour')).pid;
    for (const [family, address] of Object.entries(NEIGHBOUR)) {
      const cidr = address + (family === 'ipv4' ? '/24' : '/64');
      await inside(neighbour, 'ip', 'address', 'add', cidr, 'dev', 'eth0', ...nodad(family));
    }
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await ip('link', 'delete', PARENT).catch(() => undefined);
  });

  const nodad = (family: string) => (family === 'ipv6' ? ['nodad'] : []);
  const inside = async (pid: number, ...argv: string[]) =>
    (await run('nsenter', ['-t', String(pid), '-n', ...argv])).stdout;
  const ping = (pid: number, address: string) => inside(pid, 'ping', '-c', '1', '-W', '3', address);

  /** Not eth0: for that the image's init asks for a lease, and takes off what it has. */
  function device(options: Record<string, string> = {}): Record<string, string> {
    const addresses = { 'ipv4.address': OWN.ipv4, 'ipv6.address': OWN.ipv6 };
    return {
      type: 'nic',
      nictype: 'routed',
      parent: PARENT,
      name: 'net0',
      host_name: 'ltrted',
      ...addresses,
      ...options,
    };
  }

  /** IPv6 addresses are not used before the kernel has looked for others with them. */
  async function settled(name: string): Promise<number> {
    const { pid } = await daemon.state(name);
    const usable = async () => {
      const text = await inside(pid, 'ip', '-6', 'address', 'show', 'dev', 'net0');
      return text.includes('inet6') && !text.includes('tentative') ? true : undefined;
    };
    await poll(usable, 100, AbortSignal.timeout(10_000));
    return pid;
  }

  it('wants the host to forward, and says which setting is missing', async () => {
    const start = () => daemon.launch('routed', { devices: { eth0: device() } });
    const remove = () => daemon.operate('DELETE', '/1.0/instances/routed');
    const missing: string[] = [];
    for (const setting of SETTINGS) {
      await start().catch((error: Error) => missing.push(error.message));
      await remove();
      await sysctl(setting, '1');
    }

    expect(missing).toEqual(
      SETTINGS.map((setting) =>
        expect.stringContaining(`Failed to start device "eth0": Routed mode requires sysctl net.${setting}=1`),
      ),
    );
  });

  it('is reached from the network of its parent by both families, and reaches it', async () => {
    await daemon.launch('routed', { devices: { eth0: device({ 'limits.max': '100Mbit' }) } });
    const pid = await settled('routed');

    await ping(neighbour, OWN.ipv4);
    await ping(neighbour, OWN.ipv6);
    await ping(pid, NEIGHBOUR.ipv4);
    await ping(pid, NEIGHBOUR.ipv6);
    const { network } = await daemon.state('routed');
    expect(network.net0).toMatchObject({ host_name: 'ltrted', mtu: 1500, state: 'up' });
    expect(network.net0.addresses).toContainEqual({
      family: 'inet',
      address: OWN.ipv4,
      netmask: '32',
      scope: 'global',
    });
    expect(network.net0.counters.packets_received).toBeGreaterThan(0);
    expect(await inside(pid, 'ip', 'route')).toContain('default via 169.254.0.1 dev net0');
    expect(await inside(pid, 'ip', '-6', 'route')).toContain('default via fe80::1 dev net0');
    expect(await ip('neigh', 'show', 'proxy')).toContain(`${OWN.ipv4} dev ${PARENT}`);
    expect(await ip('address', 'show', 'dev', 'ltrted')).toContain('169.254.0.1/32');
  });

  it('is as it was after a reboot from within', async () => {
    const since = daemon.events.length;
    process.kill((await daemon.state('routed')).pid, 'SIGINT');
    await daemon.seen('instance-restarted', since);
    await daemon.ready('routed', 2);
    const pid = await settled('routed');

    await ping(neighbour, OWN.ipv4);
    await ping(pid, NEIGHBOUR.ipv6);
    expect(await ip('neigh', 'show', 'proxy')).toContain(`${OWN.ipv4} dev ${PARENT}`);
  });

  it('drops what comes under addresses that are not the container’s', async () => {
    const { pid } = await daemon.state('routed');
    const gateway = JSON.parse(await ip('-j', 'link', 'show', 'dev', 'ltrted'))[0].address as string;
    const from = { hwaddr: (await daemon.state('routed')).network.net0.hwaddr as string, ipv4: '', ipv6: '' };
    const to = (source: string, marker: number) => ipv4Packet(from, source, gateway, marker, NEIGHBOUR.ipv4);
    const listener = await Listener.start(neighbour, 'eth0');
    await send(pid, 'net0', [to(OWN.ipv4, 1), to('198.51.100.77', 2), frame(from.hwaddr, gateway, 0x0800, '00')]);
    await sleep(300);
    const seen = [...(await listener.stop())].join('\n');

    expect(seen).toContain('0fa00fa1000c000000000001');
    expect(seen).not.toContain('0fa00fa1000c000000000002');
  });

  it('has routes to networks behind the container, and refuses addresses that others have', async () => {
    const stopped = { start: false };
    const other = (options: Record<string, string>) => ({ devices: { eth0: device({ host_name: '', ...options }) } });
    await daemon.operate('POST', '/1.0/instances', {
      name: 'other',
      source: { type: 'image', alias: 'bb' },
      ...stopped,
      ...other({ 'ipv4.address': NEIGHBOUR.ipv4, 'ipv6.address': '' }),
    });
    const start = () => daemon.operate('PUT', '/1.0/instances/other/state', { action: 'start' });
    const set = async (options: Record<string, string>) => {
      const before = (await daemon.call('GET', '/1.0/instances/other')).metadata;
      await daemon.operate('PUT', '/1.0/instances/other', { ...before, ...other(options) });
    };

    await expect(start()).rejects.toThrow(`IP address "${NEIGHBOUR.ipv4}" in use on parent network "${PARENT}"`);
    await set({ 'ipv4.address': OWN.ipv4, 'ipv6.address': '', 'ipv4.neighbor_probe': 'false' });
    await expect(start()).rejects.toThrow('EEXIST');
    expect(await ip('neigh', 'show', 'proxy')).toContain(`${OWN.ipv4} dev ${PARENT}`);

    await set({ 'ipv4.address': '198.51.100.60', 'ipv6.address': '', 'ipv4.routes': '203.0.113.0/24' });
    await start();
    expect(await ip('route')).toContain('203.0.113.0/24 via 198.51.100.60');
    const { pid } = await daemon.state('other');
    await poll(
      () =>
        ping(pid, OWN.ipv4).then(
          () => true,
          () => undefined,
        ),
      100,
      AbortSignal.timeout(5000),
    );
    await daemon.operate('PUT', '/1.0/instances/other/state', { action: 'stop', force: true });
    expect(await ip('neigh', 'show', 'proxy')).not.toContain('198.51.100.60');
    await daemon.operate('DELETE', '/1.0/instances/other');
  });

  it('comes and goes under a running container', async () => {
    await daemon.launch('plugged');
    const eth0 = device({ host_name: 'ltplug', 'ipv4.address': '198.51.100.70', 'ipv6.address': '2001:db8::70' });
    const { metadata } = await daemon.call('GET', '/1.0/instances/plugged');
    await daemon.operate('PUT', '/1.0/instances/plugged', { ...metadata, devices: { ...metadata.devices, eth0 } });
    const pid = await settled('plugged');

    await ping(neighbour, '198.51.100.70');
    await ping(pid, NEIGHBOUR.ipv6);
    await daemon.operate('PUT', '/1.0/instances/plugged', metadata);
    expect((await daemon.state('plugged')).network.net0).toBeUndefined();
    expect(await ip('neigh', 'show', 'proxy')).not.toContain('198.51.100.70');
    expect((await run('nft', ['list', 'chains'])).stdout).not.toContain('prert.plugged.eth0');
  });

  it('leaves nothing of a container that died with the daemon', async () => {
    const { pid } = await daemon.state('routed');
    await daemon.kill();
    await run('kill', ['-9', String(pid)]);
    await sleep(500);
    await daemon.boot();

    expect(await daemon.status('routed')).toBe('Stopped');
    expect(await ip('neigh', 'show', 'proxy')).not.toContain(OWN.ipv4);
    expect(await ip('route')).not.toContain(OWN.ipv4);
    expect((await run('nft', ['list', 'chains'])).stdout).not.toContain('routed.eth0');
  });

  it('says in LXD’s words what cannot be', async () => {
    const complaint = (devices: Record<string, Record<string, string>>) =>
      daemon
        .call('POST', '/1.0/instances', { name: 'bad', source: { type: 'image', alias: 'bb' }, devices })
        .then(async (answer) => {
          if (answer.type === 'error') return answer.error;
          const ended = await daemon.call('GET', `${answer.operation}/wait?timeout=60`);
          return ended.metadata.err as string;
        });

    const duplicate = device({ 'ipv4.address': '198.51.100.1, 198.51.100.1' });
    expect(await complaint({ eth0: duplicate })).toContain('Duplicate address "198.51.100.1" in "ipv4.address"');
    const routes = device({ 'ipv4.address': '', 'ipv4.routes': '10.0.0.0/8' });
    expect(await complaint({ eth0: routes })).toContain('ipv4.routes requires ipv4.address to be set');
    expect(await complaint({ eth0: device({ parent: '', vlan: '5' }) })).toContain(
      'The vlan setting can only be used when combined with a parent interface',
    );
    expect(await complaint({ eth0: device(), eth1: device({ name: 'net1' }) })).toContain(
      'Existing NIC "eth0" already uses "ipv4.gateway" in auto mode',
    );
    for (const nictype of ['sriov', 'ovn']) {
      expect(await complaint({ eth0: { type: 'nic', nictype, parent: PARENT } })).toContain('Unsupported device type');
    }
    const infiniband = { type: 'infiniband', nictype: 'physical', parent: PARENT };
    expect(await complaint({ ib0: infiniband })).toContain('Unsupported device type');
  });

  it('has ipvlan beside it where the kernel has', async () => {
    const eth0 = { type: 'nic', nictype: 'ipvlan', parent: PARENT, name: 'net0', 'ipv4.address': '198.51.100.80' };
    const started = daemon.launch('ipvlan', { devices: { eth0 } }).then(() => settled4('ipvlan'));
    const hasKind = await ip('link', 'add', 'ltipv', 'link', PARENT, 'type', 'ipvlan').then(
      () => true,
      () => false,
    );

    if (!hasKind) {
      await expect(started).rejects.toThrow('The kernel of this host has no ipvlan interfaces');
      expect(await ip('route')).not.toContain('198.51.100.80');
      return;
    }
    await ip('link', 'delete', 'ltipv');
    await ping(neighbour, '198.51.100.80');
    await ping(await started, NEIGHBOUR.ipv4);
    await daemon.operate('PUT', '/1.0/instances/ipvlan/state', { action: 'stop', force: true });
    expect(await ip('neigh', 'show', 'proxy')).not.toContain('198.51.100.80');
    expect(await ip('route')).not.toContain('198.51.100.80');
  });

  async function settled4(name: string): Promise<number> {
    await daemon.ready(name);
    return (await daemon.state(name)).pid as number;
  }
});
