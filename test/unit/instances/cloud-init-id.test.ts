// When cloud-init of an instance runs again.
import { expect, it } from 'vitest';
import { changedCloudInitId, freshCloudInitId } from '#src/engine/instances/cloud-init-id.ts';
import type { ConfigMap, DeviceMap } from '#src/engine/types.ts';

const KEY = 'volatile.cloud-init.instance-id';
const nic: DeviceMap = { eth0: { type: 'nic', nictype: 'p2p', name: 'eth0' } };
const state = (config: ConfigMap, devices: DeviceMap = nic) => ({ config, devices });

it('is another id every time', () => {
  expect(freshCloudInitId()[KEY]).not.toBe(freshCloudInitId()[KEY]);
});

it.each([
  ['user data', state({}), state({ 'cloud-init.user-data': 'blah' })],
  ['the older key of vendor data', state({ 'user.vendor-data': 'a' }), state({ 'user.vendor-data': 'b' })],
  ['a network configuration that is gone', state({ 'cloud-init.network-config': 'a' }), state({})],
  ['the name of a nic', state({}), state({}, { eth0: { type: 'nic', nictype: 'p2p', name: 'foo' } })],
  ['a nic that is gone', state({}), state({}, {})],
])('is new after a change of %s', (_what, before, after) => {
  expect(changedCloudInitId(before, after, {})?.[KEY]).toMatch(/^[0-9a-f-]{36}$/);
});

it.each([
  ['nothing', state({ 'cloud-init.user-data': 'a' }), state({ 'cloud-init.user-data': 'a' })],
  ['what cloud-init does not read', state({}), state({ 'user.foo': 'bar', 'limits.cpu': '1' })],
  ['other options of a nic', state({}), state({}, { eth0: { ...nic['eth0'], 'user.foo': 'bar' } })],
  ['another nic', state({}), state({}, { ...nic, eth1: { type: 'nic', nictype: 'p2p' } })],
  ['a disk', state({}), state({}, { ...nic, d: { type: 'disk', path: '/d', source: '/' } })],
])('stays after a change of %s', (_what, before, after) => {
  expect(changedCloudInitId(before, after, {})).toBeUndefined();
});

it('takes the name that a nic was given at its start', () => {
  const [before, after] = [{ a: { type: 'nic' } }, { a: { type: 'nic', name: 'eth7' } }];

  expect(changedCloudInitId(state({}, before), state({}, after), { 'volatile.a.name': 'eth7' })).toBeUndefined();
  expect(changedCloudInitId(state({}, before), state({}, after), {})).toBeDefined();
});
