// Values, limits and id maps of instances.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hostIdRange, idMapFor, idMapJson } from '#src/engine/instances/idmap.ts';
import { instanceTypeLimits } from '#src/engine/instances/instance-type.ts';
import { runtimeLimits } from '#src/engine/instances/limits.ts';
import { parseBoolean, parseCpuAllowance, parseCpuList, parseMemory, parseSize } from '#src/engine/instances/values.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

describe('values', () => {
  it('reads sizes in powers of 1000 and 1024', () => {
    expect(['512MB', '1KiB', '7', '3 bytes', '2GB'].map(parseSize)).toEqual([512_000_000, 1024, 7, 3, 2_000_000_000]);
  });

  it('refuses fractions and unknown units', () => {
    for (const text of ['1.5GB', 'xx', '', '-1MB', '1mb', '1 MB x'])
      expect(() => parseSize(text)).toThrow(/Invalid value/);
  });

  it('reads memory as a share of the host, and never nothing', () => {
    expect(parseMemory('50%', 1000)).toBe(500);
    expect(() => parseMemory('0%', 1000)).toThrow("Memory limit can't be 0%");
    expect(() => parseMemory('0', 1000)).toThrow("Memory limit can't be 0");
  });

  it('reads every list of CPUs that it can write', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(200), { minLength: 1 }), (cpus) => {
        const sorted = cpus.toSorted((left, right) => left - right);
        expect(parseCpuList(cpus.join(','))).toEqual(sorted);
      }),
    );
    expect(parseCpuList('0-2,7,1-1')).toEqual([0, 1, 2, 7]);
    expect(() => parseCpuList('3-1')).toThrow('Invalid CPU limit syntax');
  });

  it('reads booleans as LXD does', () => {
    expect(['yes', 'ON', '1', 'TRUE'].map((word) => parseBoolean(word))).toEqual([true, true, true, true]);
    expect([parseBoolean(''), parseBoolean('', true), parseBoolean(undefined, true)]).toEqual([false, true, true]);
    expect(() => parseBoolean('x')).toThrow('Invalid value for a boolean "x"');
  });

  it('reads shares and slices of CPU time', () => {
    expect(parseCpuAllowance('50%')).toEqual({ percent: 50 });
    expect(parseCpuAllowance('25ms/100ms')).toEqual({ quotaUs: 25_000, periodUs: 100_000 });
    expect(() => parseCpuAllowance('1ms/0ms')).toThrow('Invalid allowance');
  });
});

describe('limits', () => {
  it('translates a configuration', () => {
    const config = {
      'limits.memory': '256MiB',
      'limits.memory.swap': 'false',
      'limits.cpu': '2',
      'limits.cpu.allowance': '50%',
      'limits.cpu.priority': '5',
      'limits.processes': '100',
      'limits.disk.priority': '0',
      'limits.hugepages.2MB': '64MiB',
    };

    expect(runtimeLimits(config, [1, 3])).toEqual({
      memory: { bytes: 268_435_456, enforce: 'hard' },
      swap: false,
      cpuSet: '1,3',
      cpuWeight: 45,
      processes: 100,
      diskPriority: 0,
      hugepages: { '2MB': 67_108_864 },
    });
  });

  it('limits nothing that is not asked for', () => {
    expect(runtimeLimits({ 'limits.cpu': '8', 'limits.memory': '' })).toEqual({});
  });

  it('reads instance types', () => {
    expect(instanceTypeLimits('c0.5-m0.2')).toEqual({
      'limits.cpu': '1',
      'limits.cpu.allowance': '50%',
      'limits.memory': '204MB',
    });
    expect(() => instanceTypeLimits('t2.micro')).toThrow("doesn't exist");
  });
});

describe('id maps', () => {
  const range = { uidBase: 100_000, gidBase: 200_000, size: 1_000_000 };
  const isolated = (base: number) => ({ 'security.idmap.isolated': 'true', 'volatile.idmap.base': String(base) });

  it("takes root's share of the host's ids, or LXD's own", async () => {
    const host = new FakeHost();
    host.files.set('/etc/subuid', 'alice:1:65536\nroot:100000:1000000\n');
    host.files.set('/etc/subgid', 'root:200000:1000000\n');

    expect(await hostIdRange(host)).toEqual(range);
    expect(await hostIdRange(new FakeHost())).toEqual({
      uidBase: 1_000_000,
      gidBase: 1_000_000,
      size: 1_000_000_000,
    });
  });

  it('shares the whole range, unless privileged', () => {
    expect(idMapFor(range, { config: {}, others: () => [] })?.map).toEqual(range);
    expect(idMapFor(range, { config: { 'security.privileged': 'true' }, others: () => [] })).toBeNull();
    expect(idMapJson(range)).toBe(
      '[{"Isuid":true,"Isgid":false,"Hostid":100000,"Nsid":0,"Maprange":1000000},' +
        '{"Isuid":false,"Isgid":true,"Hostid":200000,"Nsid":0,"Maprange":1000000}]',
    );
  });

  it('gives an isolated instance the first hole, and keeps it', () => {
    const others = () => [isolated(100_000 + 65_536), isolated(100_000 + 3 * 65_536)];
    const config = { 'security.idmap.isolated': 'true' };

    expect(idMapFor(range, { config, others })?.map).toEqual({
      uidBase: 100_000 + 2 * 65_536,
      gidBase: 200_000 + 2 * 65_536,
      size: 65_536,
    });
    expect(idMapFor(range, { config: isolated(500_000), others })?.map.uidBase).toBe(500_000);
  });

  it('moves an isolated instance that has grown into another, or whose ids another runs with', () => {
    const first = 100_000 + 65_536;
    const grown = { ...isolated(first), 'security.idmap.size': '100000' };
    const running = { 'volatile.last_state.power': 'RUNNING' };
    const current = idMapJson({ uidBase: first, gidBase: first + 100_000, size: 65_536 });

    const beside = (other: Record<string, string>, config: Record<string, string> = isolated(first)) =>
      idMapFor(range, { config, others: () => [other] })?.map.uidBase;

    expect(beside(isolated(first + 65_536), grown)).toBe(first + 2 * 65_536);
    expect(beside({ ...running, 'volatile.idmap.current': current })).toBe(first + 65_536);
    expect(beside({ 'volatile.idmap.current': current })).toBe(first);
    expect(beside({ ...running, 'volatile.idmap.current': idMapJson(range) })).toBe(first);
    expect(beside({ 'security.idmap.isolated': 'true', 'security.idmap.base': String(first) })).toBe(first + 65_536);
  });

  it('leaves alone what was only claimed, and holds the place of no instance without a range', () => {
    const config = { 'security.idmap.isolated': 'true' };
    const claims = [{ offset: 65_536, size: 65_536 }];
    const without = { ...config, 'security.idmap.size': '400000', 'volatile.idmap.base': '0' };

    expect(idMapFor(range, { config, others: () => [without], claims })?.map.uidBase).toBe(100_000 + 2 * 65_536);
    expect(idMapFor(range, { config, others: () => [without] })?.map.uidBase).toBe(100_000 + 65_536);
  });

  it('takes the base that was asked for, if the host has it', () => {
    const at = (base: number) => ({ 'security.idmap.isolated': 'true', 'security.idmap.base': String(base) });

    expect(idMapFor(range, { config: at(300_000), others: () => [] })?.map).toEqual({
      uidBase: 300_000,
      gidBase: 400_000,
      size: 65_536,
    });
    expect(() => idMapFor(range, { config: at(99_999), others: () => [] })).toThrow('Not enough uid/gid available');
  });

  it('knows automatic sizes, and that none is too small', () => {
    const sized = (size: string) => ({ 'security.idmap.isolated': 'true', 'security.idmap.size': size });

    expect(idMapFor(range, { config: sized('auto'), others: () => [sized('0')] })?.map.size).toBe(65_536);
    expect(() => idMapFor(range, { config: sized('0'), others: () => [] })).toThrow('must be at least 1');
  });

  it('never lets two isolated instances overlap', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 65_536, max: 200_000 }), { maxLength: 6 }), (sizes) => {
        const taken: Record<string, string>[] = [];
        for (const size of sizes) {
          const config = { 'security.idmap.isolated': 'true', 'security.idmap.size': String(size) };
          let map;
          try {
            map = idMapFor(range, { config, others: () => taken })?.map;
          } catch {
            continue; // the range is full
          }
          for (const other of taken) {
            const base = Number(other['volatile.idmap.base']);
            const end = base + Number(other['security.idmap.size']);
            expect((map?.uidBase ?? 0) >= end || (map?.uidBase ?? 0) + size <= base).toBe(true);
          }
          taken.push({ ...config, 'volatile.idmap.base': String(map?.uidBase) });
        }
      }),
    );
  });

  it('says when the host has no ids left', () => {
    const config = { 'security.idmap.isolated': 'true', 'security.idmap.size': '2000000' };

    expect(() => idMapFor(range, { config, others: () => [] })).toThrow(
      'Not enough uid/gid available for the container',
    );
  });
});
