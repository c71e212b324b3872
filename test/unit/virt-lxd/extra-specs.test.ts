// Extra specs of flavors: what of them becomes a setting, what is refused and why.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FlavorPolicy, flavorSettings } from '#drivers/virt/lxd/extra-specs.ts';
import { rootDisk, withFlavor } from '#drivers/virt/lxd/instance-body.ts';
import { AppError } from '#src/lib/errors.ts';

const STRICT: FlavorPolicy = { allowNesting: true, allowPrivileged: false };
const LAX: FlavorPolicy = { allowNesting: true, allowPrivileged: true };

const flavorOf = (extraSpecs: Readonly<Record<string, string>>, vcpus = 2) => ({
  vcpus,
  memoryMib: 512,
  rootGib: 10,
  cpuIds: null,
  ephemeralsGib: [],
  swapMib: 0,
  extraSpecs,
});
const settings = (extraSpecs: Readonly<Record<string, string>>, policy = STRICT) =>
  flavorSettings(flavorOf(extraSpecs), policy);

describe('the nature of a container', () => {
  it.each([
    ['lxd:nested_allowed', 'true', { 'security.nesting': 'true' }],
    ['lxd:nested_allowed', 'Yes', { 'security.nesting': 'true' }],
    ['lxd:nested_allowed', '1', { 'security.nesting': 'true' }],
    ['lxd:isolated', 'on', { 'security.idmap.isolated': 'true' }],
    ['lxd:privileged_allowed', 'true', { 'security.privileged': 'true' }],
    // any text was true once
    ['lxd:nested_allowed', 'false', {}],
    ['lxd:privileged_allowed', 'False', {}],
    ['lxd:isolated', '0', {}],
    ['lxd:isolated', '', {}],
  ])('with %s=%s is %j', (key, value, config) => {
    expect(settings({ [key]: value }, LAX).config).toEqual(config);
  });

  it('is not what the operator does not allow', () => {
    expect(() => settings({ 'lxd:privileged_allowed': 'true' })).toThrow(
      'lxd:privileged_allowed of the flavor is not allowed',
    );
    expect(() => settings({ 'lxd:nested_allowed': 'true' }, { ...STRICT, allowNesting: false })).toThrow('not allowed');
    expect(settings({ 'lxd:privileged_allowed': 'false' }).config).toEqual({});
  });

  it('is not guessed', () => {
    expect(() => settings({ 'lxd:nested_allowed': 'maybe' })).toThrow('neither true nor false');
    expect(() => settings({ 'lxd:suspend_to_disk': 'perhaps' })).toThrow('neither true nor false');
    expect(settings({ 'lxd:suspend_to_disk': 'yes' }).config).toEqual({});
    expect(() => settings({ 'lxd:privileged_allowed': 'true', 'lxd:isolated': 'true' }, LAX)).toThrow('ids of its own');
  });
});

describe('processor time', () => {
  it.each([
    [{ 'quota:cpu_shares': '2048' }, '200%'],
    [{ 'quota:cpu_shares': '1' }, '1%'],
    // of each of the two processors
    [{ 'quota:cpu_quota': '25000' }, '50ms/100ms'],
    [{ 'quota:cpu_quota': '5000', 'quota:cpu_period': '20000' }, '50ms/100ms'],
    [{ 'quota:cpu_quota': '1500', 'quota:cpu_period': '100000' }, '3ms/100ms'],
    [{ 'quota:cpu_quota': '-1' }, undefined],
    [{ 'quota:cpu_quota': '-1', 'quota:cpu_shares': '512' }, '50%'],
    [{ 'quota:cpu_period': '20000' }, undefined],
  ])('of %j is %s', (specs, allowance) => {
    expect(settings(specs).config['limits.cpu.allowance']).toBe(allowance);
  });

  it.each([
    [{ 'quota:cpu_shares': '10', 'quota:cpu_quota': '25000' }, 'one is possible'],
    [{ 'quota:cpu_shares': 'many' }, 'no number'],
    [{ 'quota:cpu_quota': '1000', 'quota:cpu_period': '0' }, 'not positive'],
  ])('of %j is refused', (specs, complaint) => {
    expect(() => settings(specs)).toThrow(complaint);
  });
});

describe('the root disk', () => {
  it.each([
    [{ 'quota:disk_read_bytes_sec': '1048576' }, { 'limits.read': '1048576B' }],
    [{ 'quota:disk_write_iops_sec': '30' }, { 'limits.write': '30iops' }],
    [
      { 'quota:disk_read_iops_sec': '30', 'quota:disk_write_bytes_sec': '5' },
      { 'limits.read': '30iops', 'limits.write': '5B' },
    ],
    [{ 'quota:disk_total_iops_sec': '7' }, { 'limits.max': '7iops' }],
    [{ 'quota:disk_total_bytes_sec': '0' }, {}],
  ])('with %j has %j', (specs, options) => {
    expect(settings(specs).rootDisk).toEqual(options);
    const disk = rootDisk(flavorOf(specs), { pool: 'p', rootQuota: true, policy: STRICT });
    expect(disk).toEqual({ type: 'disk', path: '/', pool: 'p', size: '10GiB', ...options });
  });

  it.each([
    [{ 'quota:disk_total_iops_sec': '7', 'quota:disk_read_iops_sec': '7' }, 'in all and by direction'],
    [{ 'quota:disk_read_bytes_sec': '7', 'quota:disk_read_iops_sec': '7' }, 'one is possible'],
    [{ 'quota:disk_read_bytes_sec': '-7' }, 'negative'],
    [{ 'quota:disk_read_bytes_sec': '1e9' }, 'no number'],
  ])('with %j is refused', (specs, complaint) => {
    expect(() => settings(specs)).toThrow(complaint);
  });
});

it('keeps a guest to processors of its own', () => {
  const flavor = { ...flavorOf({}), cpuIds: [2, 5] };

  expect(withFlavor({ 'limits.cpu': '2' }, flavor, STRICT)).toMatchObject({ 'limits.cpu': '2-2,5-5' });
});

it('leaves what it does not know to others', () => {
  expect(settings({ 'hw:mem_page_size': 'large', 'trait:CUSTOM_X': 'required' })).toEqual({ config: {}, rootDisk: {} });
});

it('takes away what another flavor had set, and nothing else', () => {
  const config = {
    'limits.cpu.allowance': '50%',
    'security.nesting': 'true',
    'user.x': '1',
    'security.devlxd': 'false',
  };

  expect(withFlavor(config, flavorOf({ 'lxd:isolated': 'true' }), STRICT)).toEqual({
    'user.x': '1',
    'security.devlxd': 'false',
    'limits.cpu': '2',
    'limits.memory': '512MiB',
    'security.idmap.isolated': 'true',
  });
});

it('gives settings or says why not, whatever a flavor has', () => {
  const keys = ['quota:cpu_shares', 'quota:cpu_quota', 'quota:cpu_period', 'quota:disk_read_bytes_sec', 'lxd:isolated'];

  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...keys), fc.string()), (specs) => {
      try {
        const { config, rootDisk: disk } = settings(specs);
        for (const value of Object.values({ ...config, ...disk }))
          expect(value).toMatch(/^(true|\d+(%|B|iops|ms\/100ms))$/);
      } catch (error) {
        if (!(error instanceof AppError)) throw error;
      }
    }),
  );
});
