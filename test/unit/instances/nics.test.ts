// Nics of instances: names, addresses and what the drivers ask of the host.
import { describe, expect, it } from 'vitest';
import type { NicDevice } from '#drivers/nic/driver.ts';
import { nicDrivers } from '#drivers/nic/registry.ts';
import { hasTraces, InstanceNics, missingVolatile, type NicOwner, withoutLife } from '#src/engine/instances/nics.ts';
import { silentLog } from '#src/lib/log.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';
import { noNetworks } from '#test/fakes/no-networks.ts';

const signal = AbortSignal.timeout(10_000);
const instance = { project: 'default', name: 'c1' };

function hostWith(...interfaces: readonly string[]): FakeHost {
  const host = new FakeHost();
  for (const name of interfaces) host.links.put(name);
  return host;
}

function nicsOn(host: FakeHost, inside: readonly { name: string; hwaddr: string }[] = []): InstanceNics {
  const drivers = Object.entries(nicDrivers).map(([name, module]) => [name, module.create({ host, log: silentLog })]);
  const parts = { drivers: Object.fromEntries(drivers), host, log: silentLog };
  return new InstanceNics({ networks: noNetworks, ...parts, readInterfaces: () => inside });
}

const ownerOf = (devices: NicOwner['devices'], config: NicOwner['config'] = {}): NicOwner => ({
  ...instance,
  devices,
  config,
});

describe('names and addresses', () => {
  it('gives every nic a name and an address, and keeps them', () => {
    const devices = {
      b: { type: 'nic', nictype: 'p2p' },
      a: { type: 'nic', nictype: 'bridged', parent: 'br0' },
      c: { type: 'nic', nictype: 'p2p', name: 'eth1', hwaddr: '00:16:3e:00:00:01' },
      root: { type: 'disk', path: '/', pool: 'p' },
    };

    const volatile = missingVolatile(devices, {});

    expect(volatile).toMatchObject({ 'volatile.a.name': 'eth0', 'volatile.b.name': 'eth2' });
    expect(volatile['volatile.a.hwaddr']).toMatch(/^00:16:3e(:[0-9a-f]{2}){3}$/);
    expect(Object.keys(volatile).filter((key) => key.startsWith('volatile.c.'))).toEqual([]);
    expect(missingVolatile(devices, volatile)).toEqual({});
  });

  it('leaves the address of an interface that moves in to it', () => {
    const volatile = missingVolatile({ eth0: { type: 'nic', nictype: 'physical', parent: 'tap0' } }, {});

    expect(volatile).toEqual({ 'volatile.eth0.name': 'eth0' });
  });

  it('forgets with a life what belongs to it', () => {
    const config = {
      'volatile.eth0.host_name': 'veth1',
      'volatile.eth0.last_state.mtu': '1500',
      'volatile.eth0.hwaddr': '00:16:3e:00:00:01',
      'volatile.last_state.power': 'RUNNING',
      'user.host_name': 'x',
    };

    expect(Object.keys(withoutLife(config))).toEqual([
      'volatile.eth0.hwaddr',
      'volatile.last_state.power',
      'user.host_name',
    ]);
  });
});

describe('starting and stopping', () => {
  it('hands the runtime what it needs, and notes what stop needs before it makes anything', async () => {
    const host = hostWith('tap0', 'br0');
    host.links.put('br0', { kind: 'bridge', mtu: 1450 });
    await using revert = new Reverter(silentLog);
    const devices = {
      eth0: { type: 'nic', nictype: 'physical', parent: 'tap0', hwaddr: '00:16:3e:00:00:09', mtu: '1400' },
      eth1: { type: 'nic', nictype: 'bridged', parent: 'br0', hwaddr: '00:16:3e:00:00:0a', host_name: 'v1' },
    };
    let noted: Record<string, string> = {};
    let madeBefore = -1;

    const nics = await nicsOn(host).start(
      ownerOf(devices),
      (volatile) => {
        noted = volatile;
        madeBefore = host.calls.length;
      },
      revert,
      signal,
    );
    revert.commit();

    expect(nics).toEqual([
      { link: 'tap0', name: 'eth0', hwaddr: '00:16:3e:00:00:09', mtu: 1400 },
      { link: expect.stringMatching(/^veth/), name: 'eth1', hwaddr: '00:16:3e:00:00:0a', mtu: 1450 },
    ]);
    expect(madeBefore).toBe(0);
    expect(noted).toEqual({
      'volatile.eth0.name': 'eth0',
      'volatile.eth0.host_name': 'tap0',
      'volatile.eth0.last_state.created': 'false',
      'volatile.eth0.last_state.hwaddr': '00:11:22:33:44:55',
      'volatile.eth0.last_state.mtu': '1500',
      'volatile.eth1.name': 'eth1',
      'volatile.eth1.host_name': 'v1',
    });
    expect(hasTraces(noted)).toBe(true);
    expect(hasTraces(withoutLife(noted))).toBe(false);
    expect(await host.links.find('v1')).toMatchObject({ kind: 'veth', up: true, mtu: 1450 });
  });

  it('undoes the nics that it started when a later one fails', async () => {
    const host = hostWith('ens3', 'taken');
    host.links.put('br0', { kind: 'bridge' });
    const devices = {
      a: { type: 'nic', nictype: 'macvlan', parent: 'ens3', vlan: '7' },
      b: { type: 'nic', nictype: 'bridged', parent: 'br0', host_name: 'v1' },
    };

    const starting = (async () => {
      await using revert = new Reverter(silentLog);
      const steal = () => void host.links.put('v1');
      await nicsOn(host).start(ownerOf(devices), steal, revert, signal);
      revert.commit();
    })();

    await expect(starting).rejects.toThrow(/^Failed to start device "b": /);
    const removed = host.calls.filter((call) => call.startsWith('link remove'));
    expect(removed).toEqual(['link remove v1', expect.stringMatching(/^link remove mac/), 'link remove ens3.7']);
  });

  it('touches nothing when a nic cannot be planned', async () => {
    const host = hostWith('ens3', 'taken');
    const start = async (devices: NicOwner['devices']) => {
      await using revert = new Reverter(silentLog);
      await nicsOn(host).start(ownerOf(devices), () => undefined, revert, signal);
    };

    await expect(start({ a: { type: 'nic', nictype: 'bridged', parent: 'absent' } })).rejects.toThrow(
      `Failed to start device "a": Parent device "absent" doesn't exist`,
    );
    await expect(start({ a: { type: 'nic', nictype: 'bridged', parent: 'ens3' } })).rejects.toThrow(
      'Parent device "ens3" is not a bridge',
    );
    await expect(start({ a: { type: 'nic', nictype: 'p2p', host_name: 'taken' } })).rejects.toThrow(
      'Network interface "taken" already exists',
    );
    expect(host.calls).toEqual([]);
  });

  const physical = (volatile: NicDevice['volatile']): NicDevice => {
    return { instance, device: 'eth0', config: { parent: 'tap0', name: 'eth0' }, volatile };
  };

  it('puts back the address and MTU of an interface that is back, and shrugs at one that is gone', async () => {
    const back = new FakeHost();
    back.links.put('tap0', { mtu: 1400 });
    const nic = physical({
      host_name: 'tap0',
      'last_state.hwaddr': '00:11:22:33:44:55',
      'last_state.mtu': '1500',
    });
    const gone = hostWith();

    await nicDrivers.physical.create({ host: back, log: silentLog }).stop(nic, signal);
    await nicDrivers.physical.create({ host: gone, log: silentLog }).stop(nic, signal);

    expect(back.calls).toEqual(['link change tap0 {"up":false,"mtu":1500}']);
    expect(gone.calls).toEqual([]);
  });

  it('finds an interface again that the kernel gave back under another name', async () => {
    const host = new FakeHost();
    host.links.put('eth0', { hwaddr: '02:00:00:00:00:99' });
    host.links.put('dev7', { hwaddr: '00:11:22:33:44:55' });
    const nic = physical({ host_name: 'tap0', 'last_state.hwaddr': '00:11:22:33:44:55', 'last_state.mtu': '1500' });

    await nicDrivers.physical.create({ host, log: silentLog }).stop(nic, signal);

    expect(host.calls).toEqual(['link change dev7 {"up":false,"name":"tap0"}']);
  });

  it('removes a pair by its host end, and is content when it is gone', async () => {
    const host = hostWith('veth1');
    const nic = { instance, device: 'eth0', config: { name: 'eth0' }, volatile: { host_name: 'veth1' } };
    const gone = hostWith();

    await nicDrivers.p2p.create({ host, log: silentLog }).stop(nic, signal);
    await nicDrivers.p2p.create({ host: gone, log: silentLog }).stop(nic, signal);

    expect(host.calls).toEqual(['link remove veth1']);
    expect(gone.calls).toEqual([]);
  });
});

describe('under a running container', () => {
  it('adds a nic by moving its end in, and removes it by its host end', async () => {
    const host = hostWith();
    const devices = { eth1: { type: 'nic', nictype: 'p2p', host_name: 'v1', hwaddr: '00:16:3e:00:00:01' } };
    let noted: Record<string, string> = {};

    const remember = (volatile: Record<string, string>) => {
      noted = volatile;
    };
    await nicsOn(host).plug(ownerOf(devices), 'eth1', remember, { pid: 77, signal });
    await nicsOn(host).unplug(ownerOf(devices, noted), 'eth1', { pid: 77, signal });

    expect(host.calls.slice(2)).toEqual([
      expect.stringMatching(/^link give \{"link":"veth\w+","name":"eth0","hwaddr":"00:16:3e:00:00:01"\} 77$/),
      'link remove v1',
    ]);
  });

  it('takes an interface of the host back, whatever it is called inside', async () => {
    const host = new FakeHost();
    const devices = { eth1: { type: 'nic', nictype: 'physical', parent: 'tap0', name: 'eth1' } };
    const volatile = { 'volatile.eth1.host_name': 'tap0', 'volatile.eth1.last_state.hwaddr': '00:11:22:33:44:55' };
    const nics = nicsOn(host, [{ name: 'renamed', hwaddr: '00:11:22:33:44:55' }]);

    await nics.unplug(ownerOf(devices, volatile), 'eth1', { pid: 77, signal });

    expect(host.calls).toEqual(['link take back {"link":"tap0","name":"renamed"} 77']);
  });

  it('leaves nothing of a nic that could not be moved in', async () => {
    const host = hostWith();
    host.links.give = () => Promise.reject(new Error('no such process'));
    const devices = { eth1: { type: 'nic', nictype: 'p2p', host_name: 'v1' } };

    const adding = nicsOn(host).plug(ownerOf(devices), 'eth1', () => undefined, { pid: 77, signal });

    await expect(adding).rejects.toThrow('Failed to add device "eth1": no such process');
    expect(await host.links.find('v1')).toBeUndefined();
  });
});
