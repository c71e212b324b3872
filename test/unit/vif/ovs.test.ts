import { describe, expect, it } from 'vitest';
import type { BoundVif, OvsVifOptions, VifDriver } from '#drivers/vif/driver.ts';
import { vifDrivers } from '#drivers/vif/registry.ts';
import { silentLog } from '#src/lib/log.ts';
import type { FakeHost } from '#test/fakes/fake-host.ts';
import { OVS_OPTIONS, TEST_VIF } from '#test/fakes/fake-vif.ts';
import { FakeVifMachine } from '#test/fakes/fake-vif-machine.ts';

const VIF: BoundVif = { ...TEST_VIF, bridge: 'br-int', details: { datapath_type: 'system', port_filter: true } };
const HYBRID: BoundVif = { ...VIF, details: { ovs_hybrid_plug: true } };
const [TAP, PEER] = ['tap6c3fc145-99', 'tin6c3fc145-99'];
const [QBR, QVB, QVO] = ['qbr6c3fc145-99', 'qvb6c3fc145-99', 'qvo6c3fc145-99'];
const RATE = { averageBytes: 1000, peakBytes: null, burstBytes: null };
const LIMITED: BoundVif = { ...VIF, rates: { inbound: RATE, outbound: null } };
const signal = AbortSignal.timeout(5000);

function driverOn(host: FakeHost, options: Partial<OvsVifOptions> = {}): VifDriver {
  return vifDrivers.ovs.create({ host, log: silentLog, ovs: { ...OVS_OPTIONS, ...options } });
}

const vsctl = (host: FakeHost): readonly string[] => host.calls.filter((line) => line.startsWith('ovs-vsctl '));

describe('plugging a port of Open vSwitch', () => {
  it('makes the pair, and its end a port of the integration bridge by which Neutron knows it, in one transaction', async () => {
    const host = new FakeVifMachine();

    const nic = await driverOn(host).plug(VIF, 'eth0', signal);

    expect(nic).toMatchObject({ hostInterface: PEER, guestInterface: 'eth0', mtu: 1450 });
    expect(vsctl(host).filter((line) => !line.includes(' find '))).toHaveLength(1);
    expect(host.switch.ports.get(TAP)).toEqual({
      bridge: 'br-int',
      mtu: 1450,
      externalIds: new Map([
        ['iface-id', VIF.id],
        ['iface-status', 'active'],
        ['attached-mac', VIF.macAddress],
        ['vm-uuid', VIF.instanceUuid],
      ]),
    });
    expect(host.files.get(`/proc/sys/net/ipv6/conf/${TAP}/disable_ipv6`)).toBe('1');
  });

  it('goes by the id that the binding has for Open vSwitch', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug({ ...VIF, interfaceId: 'another-id' }, 'eth0', signal);

    expect(host.switch.ports.get(TAP)?.externalIds.get('iface-id')).toBe('another-id');
  });

  it('asks the database that is configured, for as long as is configured', async () => {
    const host = new FakeVifMachine();
    const connection = { database: 'tcp:127.0.0.1:6640', timeoutSeconds: 7 };

    await driverOn(host, { connection }).plug(VIF, 'eth0', signal);

    expect(vsctl(host).at(-1)).toMatch(/^ovs-vsctl --timeout=7 --db=tcp:127\.0\.0\.1:6640 --no-wait -- /);
    expect(host.commands.findLast(({ line }) => line.startsWith('ovs-vsctl'))?.options.timeoutMs).toBe(12_000);
  });

  it('makes the bridge that the binding names, with its datapath, when it is not there', async () => {
    const host = new FakeVifMachine();
    const details = { bridge_name: 'tbr-12345678-9', datapath_type: 'netdev' };

    await driverOn(host).plug({ ...VIF, details }, 'eth0', signal);

    expect(host.switch.bridges.get('tbr-12345678-9')).toBe('netdev');
    expect(host.switch.ports.get(TAP)?.bridge).toBe('tbr-12345678-9');
    // Neutron's agent needs it to find what it has joined to it, and removes it
    await driverOn(host).unplug({ ...VIF, details }, signal);
    expect([...host.switch.bridges.keys()]).toEqual(['br-int', 'tbr-12345678-9']);
  });

  it('does not change the datapath of a bridge that is there', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug({ ...VIF, details: { datapath_type: 'netdev' } }, 'eth0', signal);

    expect(host.switch.bridges.get('br-int')).toBe('system');
  });

  it('isolates a new port when that is configured, and no port that is there', async () => {
    const host = new FakeVifMachine();
    const driver = driverOn(host, { isolates: true });

    await driver.plug(VIF, 'eth0', signal);
    expect(host.switch.ports.get(TAP)?.tag).toBe(4095);
    await driver.plug(VIF, 'eth0', signal);

    expect(vsctl(host).at(-1)).not.toContain('tag=');
  });

  it('takes the configured MTU where the network has none', async () => {
    const host = new FakeVifMachine();

    const nic = await driverOn(host, { defaultMtu: 9000 }).plug({ ...VIF, mtu: null }, 'eth0', signal);

    expect(nic.mtu).toBe(9000);
    expect(host.switch.ports.get(TAP)?.mtu).toBe(9000);
  });

  it('joins a port anew whose device is another one', async () => {
    const host = new FakeVifMachine();
    await driverOn(host, { isolates: true }).plug(VIF, 'eth0', signal);
    host.removeLink(TAP);

    await driverOn(host).plug(VIF, 'eth0', signal);

    // an ovs-vswitchd that sees both in one step goes on with the old device
    const removals = host.calls.findIndex((line) => line === `ovs-vsctl --timeout=5 --if-exists del-port ${TAP}`);
    expect(removals).toBeGreaterThan(0);
    expect(vsctl(host).at(-1)).toContain(`add-port br-int ${TAP}`);
    expect(host.switch.ports.get(TAP)?.tag).toBeUndefined();
  });

  it.each([
    ['a bridge', { bridge: 'br int' }],
    ['a bridge', { details: { bridge_name: '--all' } }],
    ['an id', { interfaceId: 'x" qos=@y' }],
    ['an instance', { instanceUuid: '' }],
  ])('runs no command for %s that is none', async (_what, change) => {
    const host = new FakeVifMachine();

    await expect(driverOn(host).plug({ ...VIF, ...change }, 'eth0', signal)).rejects.toMatchObject({ kind: 'invalid' });

    expect(host.calls).toEqual([]);
  });
});

describe('a datapath of a daemon', () => {
  const netdev = { datapath_type: 'netdev' };

  it('gets packets with their checksums', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug({ ...VIF, details: netdev }, 'eth0', signal);
    await driverOn(host).plug({ ...VIF, details: netdev }, 'eth0', signal);

    expect(host.calls.filter((line) => line.includes('checksums'))).toEqual([`port ${PEER} leaves checksums false`]);
  });

  it('gets them from the Linux bridge of a hybrid port', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug({ ...HYBRID, details: { ...HYBRID.details, ...netdev } }, 'eth0', signal);

    expect(host.calls).toContain(`port ${QVB} leaves checksums false`);
  });

  it('is asked for where the binding does not say, once', async () => {
    const host = new FakeVifMachine();
    host.on(/ get Bridge br-int datapath_type$/, 'netdev\n');
    const driver = driverOn(host);

    await driver.plug({ ...VIF, details: {} }, 'eth0', signal);
    await driver.plug({ ...VIF, details: {} }, 'eth0', signal);

    expect(host.calls).toContain(`port ${PEER} leaves checksums false`);
    expect(vsctl(host).filter((line) => line.includes(' get '))).toHaveLength(1);
  });

  it('is the only one that does', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug(VIF, 'eth0', signal);

    expect(host.calls.filter((line) => line.includes('checksums'))).toEqual([]);
  });
});

describe('when Open vSwitch does not answer', () => {
  it('plugging says so, and leaves nothing', async () => {
    const host = new FakeVifMachine();
    host.fail(/^ovs-vsctl .*add-port/, 'ovs-vsctl: unix:/run/openvswitch/db.sock: database connection failed');

    const plugging = driverOn(host).plug(VIF, 'eth0', signal);

    await expect(plugging).rejects.toThrow(
      'Open vSwitch: ovs-vsctl: unix:/run/openvswitch/db.sock: database connection',
    );
    expect(host.linkNames()).toEqual(['br-int']);
  });

  it('unplugging takes the interfaces away all the same, and says so', async () => {
    const host = new FakeVifMachine();
    await driverOn(host).plug(HYBRID, 'eth0', signal);
    host.fail(/^ovs-vsctl /, 'database connection failed');

    await expect(driverOn(host).unplug(HYBRID, signal)).rejects.toThrow('database connection failed');

    expect(host.linkNames()).toEqual(['br-int']);
  });
});

describe('hybrid plug', () => {
  it('puts a Linux bridge between the guest and Open vSwitch', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug(HYBRID, 'eth0', signal);

    const lines = host.commands.map(({ input }) => input).join('');
    expect(lines).toContain(`link add name ${QBR} mtu 1450 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n`);
    expect(lines).toContain(`link set dev ${QVB} master ${QBR} mtu 1450 promisc on up\n`);
    expect(lines).toContain(`link set dev ${TAP} master ${QBR} mtu 1450 up\n`);
    expect([...host.switch.ports.keys()]).toEqual([QVO]);
    for (const name of [QBR, QVB, QVO, TAP]) {
      expect(host.files.get(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`)).toBe('1');
    }
  });

  it('leaves the port alone when only the pair of the container is new', async () => {
    const host = new FakeVifMachine();
    await driverOn(host, { isolates: true }).plug(HYBRID, 'eth0', signal);
    host.removeLink(TAP);

    await driverOn(host, { isolates: true }).plug(HYBRID, 'eth0', signal);

    expect(vsctl(host).at(-1)).not.toContain('del-port');
  });
});

describe('limits of bandwidth', () => {
  it('make Open vSwitch leave the queue alone, once', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug(LIMITED, 'eth0', signal);
    await driverOn(host).plug(LIMITED, 'eth0', signal);

    expect([...host.switch.queues.keys()]).toEqual([host.switch.ports.get(TAP)?.qos]);
  });

  it('that are lifted give the queues back to it', async () => {
    const host = new FakeVifMachine();
    const driver = driverOn(host);
    await driver.plug(LIMITED, 'eth0', signal);

    await driver.plug(VIF, 'eth0', signal);

    expect(host.switch.queues.size).toBe(0);
    expect(host.switch.ports.get(TAP)?.qos).toBeUndefined();
  });

  it('leave no record when the port goes', async () => {
    const host = new FakeVifMachine();
    const driver = driverOn(host);
    await driver.plug(LIMITED, 'eth0', signal);

    await driver.unplug(LIMITED, signal);

    expect(host.switch.queues.size).toBe(0);
  });

  it('cost ports without any one question in the life of the process', async () => {
    const host = new FakeVifMachine();
    const driver = driverOn(host);

    await driver.plug(VIF, 'eth0', signal);
    await driver.unplug(VIF, signal);

    expect(vsctl(host).map((line) => / find | add-port | del-port /.exec(line)?.[0].trim())).toEqual([
      'find',
      'add-port',
      'del-port',
    ]);
  });

  it('of what guests send are refused where nothing would hold them', async () => {
    const host = new FakeVifMachine();
    const details = { datapath_type: 'netdev' };
    const rates = { inbound: null, outbound: RATE };

    const plugging = driverOn(host).plug({ ...VIF, details, rates }, 'eth0', signal);

    await expect(plugging).rejects.toMatchObject({ kind: 'unsupported' });
    await driverOn(host).plug({ ...HYBRID, details: { ...HYBRID.details, ...details }, rates }, 'eth0', signal);
  });

  it('in a Linux bridge are none of its business', async () => {
    const host = new FakeVifMachine();

    await driverOn(host).plug({ ...HYBRID, rates: LIMITED.rates }, 'eth0', signal);

    expect(host.switch.queues.size).toBe(0);
  });
});
