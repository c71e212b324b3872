// What a container may not send into its bridge: frames of other addresses, made by hand in its network, do not arrive anywhere.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import {
  advertisement,
  arpReply,
  frame,
  hidden,
  ipv4Packet,
  ipv6Packet,
  Listener,
  routerAdvertisement,
  send,
  type Sender,
} from './frames.ts';

const BRIDGE = 'ltflt0';
const OTHER_MAC = '00:16:3e:99:99:99';
const OWN: Sender = {
  hwaddr: '00:16:3e:00:aa:01',
  ipv4: '10.99.0.2',
  ipv6: 'fd990000000000000000000000000002',
};
const OTHER_IPV6 = 'fd990000000000000000000000000066';
const TO = '00:16:3e:00:aa:02';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

const nft = async (...args: string[]) => (await run('nft', ['-nn', ...args])).stdout;

/** What may pass with which filter. */
const HONEST = {
  arp: arpReply(OWN, OWN, BROADCAST),
  ipv4: ipv4Packet(OWN, OWN.ipv4, BROADCAST, 1),
  advertisement: ipv6Packet(OWN, OWN.ipv6, BROADCAST, advertisement(OWN.ipv6, OWN.hwaddr)),
};
const SPOOFED = {
  mac: {
    'a foreign address in the frame': frame(OTHER_MAC, BROADCAST, 0x0806, arpReply(OWN, OWN, TO).slice(28)),
    'a foreign hardware address in ARP': arpReply(OWN, { ...OWN, hwaddr: OTHER_MAC }, BROADCAST),
    'a foreign hardware address in an advertisement': ipv6Packet(
      OWN,
      OWN.ipv6,
      BROADCAST,
      advertisement(OWN.ipv6, OTHER_MAC),
    ),
    'an advertisement behind another header': ipv6Packet(
      OWN,
      OWN.ipv6,
      BROADCAST,
      hidden(advertisement(OTHER_IPV6, OTHER_MAC)),
    ),
  },
  ipv4: {
    'a foreign address in ARP': arpReply(OWN, { ...OWN, ipv4: '10.99.0.66' }, BROADCAST),
    'a foreign source': ipv4Packet(OWN, '10.99.0.66', BROADCAST, 2),
    'another protocol': frame(OWN.hwaddr, BROADCAST, 0x88cc, '00'.repeat(46)),
    'a VLAN of its own': frame(OWN.hwaddr, BROADCAST, 0x8100, `00050800${ipv4Packet(OWN, OWN.ipv4, TO, 3).slice(28)}`),
  },
  ipv6: {
    'a foreign source': ipv6Packet(OWN, OTHER_IPV6, BROADCAST, { header: 59, body: '' }),
    'an advertisement of a foreign address': ipv6Packet(
      OWN,
      OWN.ipv6,
      BROADCAST,
      advertisement(OTHER_IPV6, OWN.hwaddr),
    ),
    'an advertisement as a router': ipv6Packet(OWN, OWN.ipv6, BROADCAST, routerAdvertisement),
  },
};

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip', 'nft', 'python3'] }, 'filters of nics', () => {
  let daemon: TestDaemon;
  let pids: { sender: number; receiver: number };

  beforeAll(async () => {
    await run('ip', ['link', 'add', BRIDGE, 'type', 'bridge']);
    await run('ip', ['link', 'set', BRIDGE, 'up']);
    daemon = await TestDaemon.start();
    await daemon.addImage();
    await daemon.launch('sender', { devices: { eth0: device({}) } });
    await daemon.launch('receiver', {
      devices: { eth0: { type: 'nic', nictype: 'bridged', parent: BRIDGE, hwaddr: TO } },
    });
    pids = { sender: (await daemon.state('sender')).pid, receiver: (await daemon.state('receiver')).pid };
    for (const name of ['sender', 'receiver']) await daemon.ready(name);
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await run('ip', ['link', 'delete', BRIDGE]);
  });

  function device(options: Record<string, string>): Record<string, string> {
    return { type: 'nic', nictype: 'bridged', parent: BRIDGE, hwaddr: OWN.hwaddr, ...options };
  }

  async function set(options: Record<string, string>): Promise<void> {
    const before = (await daemon.call('GET', '/1.0/instances/sender')).metadata;
    const body = { ...before, devices: { ...before.devices, eth0: device(options) } };
    await daemon.operate('PUT', '/1.0/instances/sender', body);
  }

  const hostName = async () =>
    (await daemon.call('GET', '/1.0/instances/sender')).metadata.config['volatile.eth0.host_name'] as string;

  /** Names of the frames that arrived, at the other container and at the host. */
  async function arriving(frames: Readonly<Record<string, string>>) {
    const listeners = [await Listener.start(pids.receiver, 'eth0'), await Listener.start(undefined, BRIDGE)];
    await send(pids.sender, 'eth0', Object.values(frames));
    await sleep(150);
    const [container, host] = await Promise.all(listeners.map((listener) => listener.stop()));
    const named = (seen: ReadonlySet<string> | undefined) =>
      Object.keys(frames).filter((name) => seen?.has(frames[name] ?? ''));
    return { container: named(container), host: named(host) };
  }

  const all = (frames: object) => ({ container: Object.keys(frames), host: Object.keys(frames) });
  const NONE = { container: [], host: [] };
  const everything = { ...HONEST, ...SPOOFED.mac, ...SPOOFED.ipv4, ...SPOOFED.ipv6 };

  it('lets everything pass without filters', async () => {
    const { 'a VLAN of its own': _tagged, ...plain } = everything;

    expect(await arriving(plain)).toEqual(all(plain));
  });

  it('holds a container to its MAC address, from one frame to the next', async () => {
    await set({ 'security.mac_filtering': 'true' });
    const chains = await nft('list', 'table', 'bridge', 'lxd');
    const veth = await hostName();

    expect(await arriving({ ...HONEST, ...SPOOFED.ipv6 })).toEqual(all({ ...HONEST, ...SPOOFED.ipv6 }));
    expect(await arriving(SPOOFED.mac)).toEqual(NONE);
    for (const chain of ['in.sender.eth0', 'fwd.sender.eth0']) expect(chains).toContain(`chain ${chain} {`);
    expect(chains).toContain(`iifname "${veth}" ether saddr != ${OWN.hwaddr} drop`);
    expect(chains).toContain(`iifname "${veth}" arp saddr ether != ${OWN.hwaddr} drop`);
    await set({});
    expect(await nft('list', 'table', 'bridge', 'lxd')).not.toContain('chain');
    expect(await arriving(SPOOFED.mac)).toEqual(all(SPOOFED.mac));
  });

  it('holds it to its IPv4 address and its routes', async () => {
    await set({ 'security.ipv4_filtering': 'true', 'ipv4.address': OWN.ipv4, 'ipv4.routes': '10.98.0.0/24' });
    const routed = { routed: ipv4Packet(OWN, '10.98.0.7', BROADCAST, 9) };

    expect(await arriving({ ...HONEST, ...routed })).toEqual(all({ ...HONEST, ...routed }));
    expect(await arriving({ ...SPOOFED.mac, ...SPOOFED.ipv4 })).toEqual(NONE);
    expect((await run('ip', ['route', 'show', 'dev', BRIDGE])).stdout).toContain('10.98.0.0/24');

    await set({ 'security.ipv4_filtering': 'true', 'ipv4.address': 'none' });
    expect(await arriving({ arp: HONEST.arp, ipv4: HONEST.ipv4, ...routed })).toEqual(NONE);
    expect((await run('ip', ['route', 'show', 'dev', BRIDGE])).stdout).not.toContain('10.98.0.0/24');
  });

  it('holds it to its IPv6 address, and lets it be no router', async () => {
    const address = 'fd99::2';
    const both = { 'security.ipv4_filtering': 'true', 'ipv4.address': OWN.ipv4 };
    await set({ ...both, 'security.ipv6_filtering': 'true', 'ipv6.address': address });

    expect(await arriving(HONEST)).toEqual(all(HONEST));
    expect(await arriving({ ...SPOOFED.mac, ...SPOOFED.ipv4, ...SPOOFED.ipv6 })).toEqual(NONE);
    expect(await nft('list', 'table', 'bridge', 'lxd')).toContain('ip6 saddr fd99::2 accept');
  });

  it('is there again after a crash and a flush, goes with the container, and comes with its next start', async () => {
    await set({ 'security.ipv4_filtering': 'true', 'ipv4.address': OWN.ipv4 });
    await daemon.kill();
    await run('nft', ['flush', 'ruleset']);
    await daemon.boot();

    expect(await arriving(SPOOFED.ipv4)).toEqual(NONE);
    await daemon.operate('PUT', '/1.0/instances/sender/state', { action: 'stop', force: true });
    expect(await nft('list', 'table', 'bridge', 'lxd')).not.toContain('chain');
    await daemon.operate('PUT', '/1.0/instances/sender/state', { action: 'start' });
    pids = { ...pids, sender: (await daemon.state('sender')).pid };
    await daemon.ready('sender');
    expect(await arriving(SPOOFED.ipv4)).toEqual(NONE);
    expect(await arriving(HONEST)).toEqual(all(HONEST));

    await daemon.kill();
    await run('kill', ['-9', String(pids.sender)]);
    await sleep(500);
    await daemon.boot();
    expect(await daemon.status('sender')).toBe('Stopped');
    expect(await nft('list', 'table', 'bridge', 'lxd')).not.toContain('chain');
    await daemon.operate('PUT', '/1.0/instances/sender/state', { action: 'start' });
    pids = { ...pids, sender: (await daemon.state('sender')).pid };
    await daemon.ready('sender');
  });

  it('keeps isolated ports from each other, not from the host', async () => {
    const isolate = async (value: string) => {
      await set({ 'security.port_isolation': value });
      const other = { type: 'nic', nictype: 'bridged', parent: BRIDGE, hwaddr: TO, 'security.port_isolation': value };
      await daemon.operate('PATCH', '/1.0/instances/receiver', { devices: { eth0: other } }).catch(async () => {
        const answer = await daemon.call('PATCH', '/1.0/instances/receiver', { devices: { eth0: other } });
        if (answer.error !== '') throw new Error(answer.error);
      });
    };
    await isolate('true');

    expect(await arriving({ arp: HONEST.arp })).toEqual({ container: [], host: ['arp'] });
    await isolate('false');
    expect(await arriving({ arp: HONEST.arp })).toEqual({ container: ['arp'], host: ['arp'] });
  });

  it('says in LXD’s words what does not go together', async () => {
    const complaint = async (options: Record<string, string>) => {
      return set(options).then(
        () => '',
        (error: Error) => error.message,
      );
    };

    expect(await complaint({ 'security.ipv4_filtering': 'true' })).toContain(
      'IPv4 filtering requires a manually specified ipv4.address when using an unmanaged parent bridge',
    );
    expect(await complaint({ 'ipv6.address': 'fd99::2' })).toContain(
      'Cannot use manually specified ipv6.address when using unmanaged parent bridge',
    );
    expect(await complaint({ 'security.ipv4_filtering': 'true', 'ipv4.address': OWN.ipv4, vlan: '7' })).toContain(
      'IP filtering cannot be used with VLAN filtering',
    );
    expect(await complaint({ 'ipv4.routes': '10.1.2.3/24' })).toContain('Not an IPv4 network address "10.1.2.3/24"');
    expect(await complaint({ vlan: '7' })).toContain(`VLAN filtering is not enabled in parent bridge "${BRIDGE}"`);
  });
});
