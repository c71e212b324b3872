// What the port of a nic on Open vSwitch is told, and what is refused there.
import { expect, it } from 'vitest';
import { ovsVlans, requireOvsOptions } from '#drivers/nic/bridged/ovs-ports.ts';
import type { NicDevice } from '#drivers/nic/driver.ts';

const nic = (config: Record<string, string>): NicDevice => ({
  instance: { project: 'default', name: 'c1' },
  device: 'eth0',
  config: { parent: 'ovs0', ...config },
  volatile: {},
});
const complaint = (config: Record<string, string>): string => {
  try {
    requireOvsOptions(nic(config));
    return '';
  } catch (error) {
    return (error as Error).message;
  }
};

it('says nothing of VLANs, one, several, or several alone', () => {
  expect(ovsVlans(nic({}))).toEqual([]);
  expect(ovsVlans(nic({ vlan: '7' }))).toEqual(['vlan_mode=access', 'tag=7']);
  expect(ovsVlans(nic({ vlan: '7', 'vlan.tagged': '8-10,12' }))).toEqual([
    'vlan_mode=native-untagged',
    'tag=7',
    'trunks=8,9,10,12',
  ]);
  expect(ovsVlans(nic({ vlan: 'none', 'vlan.tagged': '8' }))).toEqual(['vlan_mode=trunk', 'trunks=8']);
});

it('refuses what only bridges of the kernel do', () => {
  expect(complaint({ 'security.mac_filtering': 'false' })).toBe('');
  expect(complaint({ 'security.ipv4_filtering': 'true' })).toBe(
    'Cannot use "security.ipv4_filtering" on "ovs0": it is a bridge of Open vSwitch',
  );
  expect(complaint({ 'security.port_isolation': 'true' })).toContain('security.port_isolation');
  expect(complaint({ vlan: 'none' })).toContain('vlan=none is not supported');
});
