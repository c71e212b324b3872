// The network model: defaults, unknown keys and names.
import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  bridgeNameOf,
  deviceNameOf,
  fixedIpsOf,
  parseNetworkInfo,
  parseVif,
  serializeNetworkInfo,
} from '#src/nova/network-model.ts';

it('an empty cache is no interface', () => {
  expect(parseNetworkInfo(null)).toEqual([]);
  expect(parseNetworkInfo('')).toEqual([]);
  expect(parseNetworkInfo('[]')).toEqual([]);
});

it('what is missing gets Nova’s default, and all keys are written', () => {
  const vif = parseVif('{"id": "p"}');

  expect(vif).toMatchObject({ network: null, details: {}, active: false, vnicType: 'normal', profile: null });
  expect(Object.keys(JSON.parse(serializeNetworkInfo([vif]))[0])).toEqual([
    'id',
    'address',
    'network',
    'type',
    'details',
    'devname',
    'ovs_interfaceid',
    'qbh_params',
    'qbg_params',
    'active',
    'vnic_type',
    'profile',
    'preserve_on_delete',
    'delegate_create',
    'meta',
  ]);
});

it('unknown keys go into meta on every level', () => {
  const subnet = {
    cidr: '10.0.0.0/24',
    ips: [{ address: '10.0.0.5', label: 'l' }],
    routes: [{ cidr: 'x', r: 1 }],
    s: 2,
  };
  const [vif] = parseNetworkInfo(
    JSON.stringify([{ id: 'p', v: 1, meta: { a: 1 }, network: { id: 'n', n: 3, subnets: [subnet] } }]),
  );

  expect(vif?.meta).toEqual({ a: 1, v: 1 });
  expect(vif?.network?.meta).toEqual({ n: 3 });
  expect(vif?.network?.subnets[0]).toMatchObject({ version: 4, meta: { s: 2 }, routes: [{ meta: { r: 1 } }] });
  expect(vif === undefined ? [] : fixedIpsOf(vif)).toEqual([
    { address: '10.0.0.5', type: 'fixed', version: 4, meta: { label: 'l' }, floatingIps: [] },
  ]);
});

it('a broken cache is refused', () => {
  expect(() => parseNetworkInfo('{')).toThrow('not JSON');
  expect(() => parseNetworkInfo('{"id": "p"}')).toThrow(expect.objectContaining({ kind: 'invalid' }));
  expect(() => parseNetworkInfo('[5]')).toThrow('no dict');
  expect(() => parseNetworkInfo('[{}]')).toThrow('without id');
});

it('names of devices are cut to 14 characters', () => {
  expect(deviceNameOf('13749e04-266d-45e2')).toBe('tap13749e04-26');
  expect(bridgeNameOf('29403907-0365-4577')).toBe('brq29403907-03');
});

it('what was written is read back the same', () => {
  const text = fc.option(fc.string());
  const meta = fc.dictionary(fc.string({ minLength: 1, unit: fc.constantFrom('a', 'b', 'z') }), fc.string());
  const ip = fc.record({ address: text, type: text, version: fc.constantFrom(4, 6), meta });
  const fixed = fc.record({
    address: text,
    type: fc.string(),
    version: fc.constantFrom(4, 6),
    meta,
    floatingIps: fc.array(ip),
  });
  const route = fc.record({ cidr: text, gateway: fc.option(ip), interface: text, meta });
  const subnet = fc.record({
    cidr: text,
    dns: fc.array(ip, { maxLength: 2 }),
    gateway: fc.option(ip),
    ips: fc.array(fixed, { maxLength: 2 }),
    routes: fc.array(route, { maxLength: 2 }),
    version: fc.constantFrom(4, 6),
    meta,
  });
  const network = fc.record({ id: text, bridge: text, label: text, subnets: fc.array(subnet, { maxLength: 2 }), meta });
  const vif = fc.record({
    id: fc.string(),
    address: text,
    network: fc.option(network),
    type: text,
    details: meta,
    devname: text,
    ovsInterfaceId: text,
    qbhParams: fc.constant(null),
    qbgParams: fc.constant(null),
    active: fc.boolean(),
    vnicType: fc.string(),
    profile: fc.option(meta),
    preserveOnDelete: fc.boolean(),
    delegateCreate: fc.boolean(),
    meta,
  });

  fc.assert(
    fc.property(fc.array(vif, { maxLength: 2 }), (vifs) => {
      const read = parseNetworkInfo(serializeNetworkInfo(vifs));

      expect(JSON.stringify(read)).toBe(JSON.stringify(vifs));
    }),
    { numRuns: 200 },
  );
});
