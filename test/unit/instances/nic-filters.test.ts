// Rates, filters, routes and VLANs of nics: what they are in the kernel's words, and what is refused.
import { describe, expect, it } from 'vitest';
import type { NicDevice } from '#drivers/nic/driver.ts';
import { parseBitRate } from '#drivers/nic/common/bit-rate.ts';
import { filterChains } from '#drivers/nic/common/filters.ts';
import { chainName } from '#drivers/nic/common/firewall.ts';
import { NicRoutes } from '#drivers/nic/common/routes.ts';
import { nicDrivers } from '#drivers/nic/registry.ts';
import { KernelError } from '#src/host/kernel.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const signal = AbortSignal.timeout(10_000);

function nicWith(config: Record<string, string>): NicDevice {
  return {
    instance: { project: 'default', name: 'c1' },
    device: 'eth0',
    config: { name: 'eth0', hwaddr: '00:16:3e:00:00:01', parent: 'br0', ...config },
    volatile: { host_name: 'v1' },
  };
}

describe('rates', () => {
  it('are read as LXD writes them', () => {
    expect(['1000', '8bit', '10kbit', '5Mbit', '1Gbit', '2Kibit', '1Mibit'].map(parseBitRate)).toEqual([
      1000, 8, 10_000, 5e6, 1e9, 2048, 1_048_576,
    ]);
    for (const bad of ['', '0', '7', '5MB', '1.5Mbit', '-3', '999Ebit', 'Mbit', '5mbit']) {
      expect(() => parseBitRate(bad)).toThrow(`Invalid value: ${bad}`);
    }
  });
});

describe('names of chains', () => {
  it('are LXD’s, and of different nics never the same', () => {
    const name = (project: string, instance: string, device: string) =>
      chainName('in', { instance: { project, name: instance }, device });

    expect(name('default', 'c1', 'eth0')).toBe('in.c1.eth0');
    expect(name('p1', 'c1', 'eth0')).toBe('in.p1_c1.eth0');
    expect(name('c1.x', 'y', 'eth')).not.toBe(name('default', 'c1', 'x_y.eth'));
    expect(name('default', 'c1', 'a:b')).toBe('in.c1.a/3ab');
    expect(name('default', 'c1', 'a/3ab')).not.toBe(name('default', 'c1', 'a:b'));
  });
});

describe('filters', () => {
  it('allow routes like the own address, by as many bits as they have', () => {
    const [toHost, toOthers] = filterChains(
      nicWith({
        'security.ipv4_filtering': 'yes',
        'ipv4.address': '10.0.0.2',
        'ipv4.routes': '10.1.0.0/16, 10.2.0.0/24',
        'security.ipv6_filtering': '1',
        'ipv6.address': 'fd00::2',
        'ipv6.routes': 'fd01::/62',
      }),
    );

    const prefix = 'iifname "v1" ether type';
    expect(toHost?.rules).toContain(`${prefix} ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 accept`);
    expect(toOthers?.rules.join('\n')).not.toContain('udp dport');
    for (const chain of [toHost, toOthers]) {
      expect(chain?.rules).toContain(`${prefix} ip ip saddr 10.1.0.0/16 accept`);
      expect(chain?.rules).toContain(`${prefix} arp arp saddr ip 10.2.0.0/24 accept`);
      expect(chain?.rules).toContain(`${prefix} ip6 icmpv6 type 136 @nh,384,62 0x3f40400000000000 accept`);
      expect(chain?.rules.at(-1)).toBe(`${prefix} != { arp, ip, ip6 } drop`);
    }
  });

  it('are none without any, and of the frame alone for the MAC address', () => {
    expect(filterChains(nicWith({ 'security.mac_filtering': 'false' }))).toEqual([]);
    const [chain] = filterChains(nicWith({ 'security.mac_filtering': 'true' }));
    expect(chain?.rules.every((rule) => rule.endsWith(' drop'))).toBe(true);
  });
});

describe('routes', () => {
  it('of another are left to it by the nic that could not have them', async () => {
    const host = new FakeHost();
    host.links.addRoute = () => Promise.reject(new KernelError('netlink', 'EEXIST'));
    const routes = new NicRoutes(host);
    const nic = nicWith({});

    await expect(routes.add(nic, 'br0', ['10.0.0.0/24'])).rejects.toThrow('the host has it already');
    await routes.remove(nic, 'br0', ['10.0.0.0/24', '10.1.0.0/24']);

    expect(host.calls).toEqual([expect.stringContaining('10.1.0.0/24')]);
  });
});

describe('VLANs of a bridge', () => {
  const driver = (host: FakeHost) => nicDrivers.bridged.create({ host, log: silentLog });

  it('are joined in place of the preset one', async () => {
    const host = new FakeHost();
    host.links.put('br0', { kind: 'bridge' });
    host.files.set('/sys/class/net/br0/bridge/vlan_filtering', '1\n');
    host.files.set('/sys/class/net/br0/bridge/default_pvid', '1\n');
    const nic = nicWith({ vlan: '7', 'vlan.tagged': '8, 20-21' });

    await driver(host).plan(nic, signal);
    await driver(host).start(nic, signal);

    expect(host.calls.filter((call) => call.startsWith('port '))).toEqual([
      'port v1 vlan remove 1',
      'port v1 vlan {"id":7,"untagged":true}',
      ...[8, 20, 21].map((id) => `port v1 vlan {"id":${id},"untagged":false}`),
    ]);
  });

  it('are refused where the bridge has none, and when they make no sense', async () => {
    const host = new FakeHost();
    host.links.put('br0', { kind: 'bridge' });
    const validate = (config: Record<string, string>) => () =>
      driver(host).validate({ type: 'nic', nictype: 'bridged', parent: 'br0', ...config });

    await expect(driver(host).plan(nicWith({ vlan: '7' }), signal)).rejects.toThrow(
      'VLAN filtering is not enabled in parent bridge "br0"',
    );
    expect(validate({ vlan: '4095' })).toThrow('Out of VLAN ID range (0-4094) "4095"');
    expect(validate({ 'vlan.tagged': '5,9-7' })).toThrow('Item "9-7": Invalid VLAN range boundary');
    expect(validate({ vlan: '5', 'vlan.tagged': '5' })).toThrow('cannot be the same as untagged VLAN ID');
    expect(validate({ vlan: '0' })).toThrow('VLAN ID 0 is not allowed for native Linux bridges');
  });
});
