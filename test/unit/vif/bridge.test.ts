import { describe, expect, it } from 'vitest';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { BoundVif, VifDriver } from '#drivers/vif/driver.ts';
import { simulatedVifDrivers, vifDrivers } from '#drivers/vif/registry.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { OVS_OPTIONS, TEST_VIF } from '#test/fakes/fake-vif.ts';

const VIF: BoundVif = { ...TEST_VIF, type: 'bridge' };
const [TAP, PEER, BRIDGE] = ['tap6c3fc145-99', 'tin6c3fc145-99', 'brq70515443-18'];
const signal = AbortSignal.timeout(5000);

/** A machine on which `ip` makes the files that the driver looks at. */
function machine({ ipv6 = true, links = [] as readonly string[] } = {}): FakeHost {
  const host = new FakeHost();
  const add = (name: string, isBridge = false): void => {
    host.files.set(`/sys/class/net/${name}`, null);
    if (isBridge) host.files.set(`/sys/class/net/${name}/bridge`, null);
    if (ipv6) host.files.set(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '0');
  };
  if (ipv6) host.files.set('/proc/sys/net/ipv6/conf/all', null);
  for (const name of links) add(name, name.startsWith('brq'));
  return host
    .on(/^ip -batch/, ({ input }) => {
      for (const [, tap = '', peer = ''] of input.matchAll(/link add name (\S+).* peer name (\S+)/g)) {
        add(tap);
        add(peer);
      }
      return '';
    })
    .on(/^ip link add name (\S+) type bridge/, ({ argv }) => {
      add(argv[4] ?? '', true);
      return '';
    })
    .on(/^ip link delete dev/, ({ argv }) => {
      host.files.delete(`/sys/class/net/${argv[4]}`);
      return '';
    });
}

function driverOn(host: FakeHost): VifDriver {
  return vifDrivers.bridge.create({ host, log: silentLog, ovs: OVS_OPTIONS });
}

function batch(host: FakeHost): string {
  return host.commands.find(({ line }) => line.startsWith('ip -batch'))?.input ?? '';
}

describe('plugging a port of the linuxbridge agent', () => {
  it('makes the pair with the names, MAC and MTU that Neutron expects', async () => {
    const host = machine({ links: [BRIDGE] });

    const nic = await driverOn(host).plug(VIF, 'eth0', signal);

    expect(nic).toEqual({
      vifId: VIF.id,
      macAddress: VIF.macAddress,
      mtu: 1450,
      hostInterface: PEER,
      guestInterface: 'eth0',
    });
    expect(batch(host)).toBe(
      `link add name ${TAP} address fe:16:3e:9c:26:2c mtu 1450 type veth peer name ${PEER} address fa:16:3e:9c:26:2c mtu 1450\n` +
        `link set dev ${TAP} addrgenmode none\nlink set dev ${TAP} master ${BRIDGE} mtu 1450 up\n`,
    );
    expect(host.files.get(`/proc/sys/net/ipv6/conf/${TAP}/disable_ipv6`)).toBe('1');
  });

  it('takes one process when the agent has made the bridge', async () => {
    const host = machine({ links: [BRIDGE] });
    const driver = driverOn(host);
    await driver.plug({ ...VIF, id: `f${VIF.id.slice(1)}` }, 'eth0', signal);
    host.commands.length = 0;

    await driver.plug(VIF, 'eth0', signal);

    expect(host.commands.map(({ line }) => line)).toEqual(['ip -batch -']);
  });

  it('limits the end in the bridge, and undoes all when that fails', async () => {
    const host = machine({ links: [BRIDGE] });
    const rate = { averageBytes: 1000, peakBytes: null, burstBytes: null };
    host.fail(/^nft -f/, 'Operation not supported');

    const plugging = driverOn(host).plug({ ...VIF, rates: { inbound: rate, outbound: rate } }, 'eth0', signal);

    await expect(plugging).rejects.toThrow('Operation not supported');
    expect(host.calls).toContain('tc -batch -');
    expect(host.files.has(`/sys/class/net/${TAP}`)).toBe(false);
  });

  it('makes a bridge that forwards at once when the agent has not', async () => {
    const host = machine();

    await driverOn(host).plug(VIF, 'eth0', signal);

    expect(host.calls).toContain(`ip link add name ${BRIDGE} type bridge stp_state 0 forward_delay 0`);
    expect(host.files.get(`/proc/sys/net/ipv6/conf/${BRIDGE}/disable_ipv6`)).toBe('1');
  });

  it('is content when the agent makes the bridge at the same moment', async () => {
    const host = machine();
    host.on(/type bridge/, () => {
      host.files.set(`/sys/class/net/${BRIDGE}/bridge`, null);
      return { exitCode: 2, stderr: 'RTNETLINK answers: File exists' };
    });

    await driverOn(host).plug(VIF, 'eth0', signal);

    expect(host.calls.filter((line) => line.startsWith('ip link delete'))).toEqual([]);
  });

  it('uses the bridge that the network cache names', async () => {
    const host = machine();

    await driverOn(host).plug({ ...VIF, bridge: 'brq-other', mtu: null }, 'eth0', signal);

    expect(batch(host)).toContain(`link set dev ${TAP} master brq-other up`);
  });

  it('works without IPv6', async () => {
    const host = machine({ ipv6: false });

    await driverOn(host).plug(VIF, 'eth0', signal);

    expect(batch(host)).not.toContain('addrgenmode');
  });

  it('leaves the end alone that is in a container', async () => {
    const host = machine({ links: [BRIDGE, TAP] });

    await driverOn(host).plug(VIF, 'eth0', signal);

    expect(batch(host)).toBe(
      `link set dev ${TAP} addrgenmode none\nlink set dev ${TAP} master ${BRIDGE} mtu 1450 up\n`,
    );
  });

  it('corrects a pair that is there', async () => {
    const host = machine({ links: [BRIDGE, TAP, PEER] });

    await driverOn(host).plug(VIF, 'eth0', signal);

    expect(batch(host)).toContain(`link set dev ${PEER} address fa:16:3e:9c:26:2c mtu 1450\n`);
    expect(batch(host)).not.toContain('link add');
  });
});

describe('when plugging fails', () => {
  it('nothing that was made stays', async () => {
    const host = machine();
    host.on(/^ip -batch/, () => {
      host.files.set(`/sys/class/net/${TAP}`, null);
      return { exitCode: 1, stderr: 'RTNETLINK answers: Device or resource busy' };
    });

    await expect(driverOn(host).plug(VIF, 'eth0', signal)).rejects.toThrow('busy');

    const deletions = host.calls.filter((line) => line.startsWith('ip link delete'));
    expect(deletions).toEqual([`ip link delete dev ${TAP}`, `ip link delete dev ${BRIDGE}`]);
  });

  it('what was there before stays', async () => {
    const host = machine({ links: [BRIDGE, TAP, PEER] });
    host.fail(/^ip -batch/, 'busy');

    await expect(driverOn(host).plug(VIF, 'eth0', signal)).rejects.toThrow('busy');

    expect(host.calls.filter((line) => line.startsWith('ip link delete'))).toEqual([]);
  });

  it('a bridge that somebody uses meanwhile stays', async () => {
    const host = machine();
    host.on(/^ip -batch/, () => {
      host.files.set(`/sys/class/net/${BRIDGE}/brif`, null).set(`/sys/class/net/${BRIDGE}/brif/tapother`, '');
      return { exitCode: 1, stderr: 'no' };
    });

    await expect(driverOn(host).plug(VIF, 'eth0', signal)).rejects.toThrow('no');

    expect(host.calls.filter((line) => line.startsWith('ip link delete'))).toEqual([]);
  });

  it.each([
    ['a name that is no interface name', { bridge: 'br x\nlink del eth0' }],
    ['a MAC address that is none', { macAddress: 'fa:16:3e:9c:26:2c\nlink del eth0' }],
  ])('because of %s, no command ran', async (_what, change) => {
    const host = machine({ links: [BRIDGE] });

    await expect(driverOn(host).plug({ ...VIF, ...change }, 'eth0', signal)).rejects.toMatchObject({ kind: 'invalid' });

    expect(host.calls).toEqual([]);
  });

  it('because another program has the tap, it says so', async () => {
    const host = machine({ links: [BRIDGE, TAP] });
    host.files.set(`/sys/class/net/${TAP}/tun_flags`, '0x1002');

    await expect(driverOn(host).plug(VIF, 'eth0', signal)).rejects.toMatchObject({ kind: 'conflict' });
  });
});

describe('unplugging', () => {
  it('removes the pair, and is content when there is none', async () => {
    const host = machine({ links: [BRIDGE, TAP, PEER] });

    await driverOn(host).unplug(VIF, signal);
    await driverOn(host).unplug(VIF, signal);

    expect(host.calls.filter((line) => line.startsWith('ip '))).toEqual([`ip link delete dev ${TAP}`]);
  });

  it('is content when the pair goes away meanwhile', async () => {
    const host = machine({ links: [TAP] });
    host.on(/^ip link delete/, () => {
      host.files.delete(`/sys/class/net/${TAP}`);
      return { exitCode: 1, stderr: 'Cannot find device' };
    });

    await expect(driverOn(host).unplug(VIF, signal)).resolves.toBeUndefined();
  });
});

describe('a port that is bound to nothing', () => {
  const unbound = vifDrivers.unbound.create({ host: new FakeHost(), log: silentLog, ovs: OVS_OPTIONS });

  it.each(['unbound', 'binding_failed'])('%s cannot be plugged, and the error says why', async (type) => {
    await expect(unbound.plug({ ...VIF, type }, 'eth0', signal)).rejects.toMatchObject({
      kind: 'conflict',
      message: expect.stringContaining(VIF.id) as string,
    });
    await expect(unbound.unplug({ ...VIF, type }, signal)).resolves.toBeUndefined();
  });
});

it('the registries have all drivers', () => {
  const folder = join(import.meta.dirname, '../../../drivers/vif');
  const folders = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && entry.name !== 'common',
  );

  const known = new Set(Object.keys({ ...vifDrivers, ...simulatedVifDrivers }));

  expect([...known].sort()).toEqual(folders.map(({ name }) => name).sort());
});
