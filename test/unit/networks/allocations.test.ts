// Which address a filtered nic gets that names none.
import { expect, it } from 'vitest';
import { allocate, type AllocationRequest } from '#src/engine/networks/allocations.ts';

const FOUR: AllocationRequest = {
  config: { 'ipv4.address': '192.0.2.1/24' },
  family: 4,
  hwaddr: '00:16:3e:00:00:0a',
  hostname: 'c1',
  previous: '',
  fixed: new Set(),
  leases: [],
};
const SIX: AllocationRequest = { ...FOUR, family: 6, config: { 'ipv6.address': '2001:db8::1/64' } };
const lease = (hwaddr: string, address: string, hostname = 'other') => {
  return { hwaddr, address, hostname, type: 'dynamic' } as const;
};

it('is the first that neither the network, nor another nic, nor a lease has', () => {
  const leases = [lease('00:16:3e:00:00:0b', '192.0.2.3')];

  expect(allocate({ ...FOUR, fixed: new Set(['192.0.2.2']), leases })).toBe('192.0.2.4');
});

it('is the one before, or what its card has leased', () => {
  const leases = [lease(FOUR.hwaddr, '192.0.2.9')];

  expect(allocate({ ...FOUR, previous: '192.0.2.77', leases })).toBe('192.0.2.77');
  expect(allocate({ ...FOUR, leases })).toBe('192.0.2.9');
  expect(allocate({ ...FOUR, previous: '192.0.2.77', fixed: new Set(['192.0.2.77']) })).toBe('192.0.2.2');
});

it('is within the ranges of the network', () => {
  const config = { ...FOUR.config, 'ipv4.dhcp.ranges': '192.0.2.100-192.0.2.101' };

  expect(allocate({ ...FOUR, config, previous: '192.0.2.7' })).toBe('192.0.2.100');
  expect(allocate({ ...FOUR, config, fixed: new Set(['192.0.2.100', '192.0.2.101']) })).toBeUndefined();
});

it('is what an instance gives itself, where IPv6 lets it', () => {
  const itself = '2001:db8::216:3eff:fe00:a';

  expect(allocate(SIX)).toBe(itself);
  expect(allocate({ ...SIX, leases: [lease('', itself)] })).toBe('2001:db8::2');
  expect(allocate({ ...SIX, leases: [lease('', itself, 'c1')] })).toBe(itself);
  const config = { ...SIX.config, 'ipv6.dhcp.stateful': 'true', 'ipv6.dhcp.ranges': '2001:db8::10-2001:db8::20' };
  expect(allocate({ ...SIX, config })).toBe('2001:db8::10');
});

it('is none where nothing is given out', () => {
  expect(allocate({ ...FOUR, config: { ...FOUR.config, 'ipv4.dhcp': 'false' } })).toBeUndefined();
  expect(allocate({ ...FOUR, config: { 'ipv4.address': 'none' } })).toBeUndefined();
});
