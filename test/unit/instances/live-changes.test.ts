// Changes of a running instance: what it is given at once, and that row and container agree when that fails.
import { describe, expect, it } from 'vitest';
import { applyLimits } from '#drivers/runtime/lxc/live-limits.ts';
import type { CgroupLayout, CgroupSetting } from '#drivers/runtime/lxc/cgroups.ts';
import { differences } from '#src/engine/instances/live-changes.ts';
import { MetricSet } from '#src/engine/metrics/open-metrics.ts';
import type { DeviceMap } from '#src/engine/types.ts';
import { startInstances, type InstancesUnderTest } from './engine-support.ts';

const MB = 1024 * 1024;

async function reconfigure(under: InstancesUnderTest, name: string, config: Record<string, string>): Promise<void> {
  const info = under.instances.get('default', name);
  await under.done(under.instances.replace(info, { ...info.record, config: { ...info.record.config, ...config } }));
}

const pidOf = async (under: InstancesUnderTest, name: string) =>
  (await under.runtime.initPid({ name, configPath: '', logPath: '', consoleLogPath: '' })) ?? 0;

describe('limits of a running instance', () => {
  it('are given to it at once', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });

    await reconfigure(under, 'c1', { 'limits.memory': '64MiB', 'limits.processes': '40' });

    expect(under.runtime.limits.get(await pidOf(under, 'c1'))).toEqual({
      memory: { bytes: 64 * MB, enforce: 'hard' },
      processes: 40,
    });
  });

  it('stay as they are, in the record too, when the kernel refuses', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    under.runtime.refusal = 'Device or resource busy';

    await expect(reconfigure(under, 'c1', { 'limits.memory': '1MiB' })).rejects.toThrow('Device or resource busy');

    expect(under.instances.get('default', 'c1').record.config['limits.memory']).toBeUndefined();
  });

  it('of a profile reach every running instance that uses it, and those that fail are named', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    await under.create('c2', { start: true });
    const profile = under.engine.profiles.get('default', 'default');
    under.runtime.refusal = 'no room';

    const change = under.engine.profiles.update(
      profile,
      { ...profile, config: { 'limits.processes': '9' } },
      AbortSignal.timeout(5000),
    );

    await expect(change).rejects.toThrow(
      /The following instances failed to update \(profile change still saved\):\n - Project: default, Instance: c1: .*no room/,
    );
    expect(under.runtime.limits.get(await pidOf(under, 'c2'))).toEqual({ processes: 9 });
  });
});

it('a profile that brought a second root can be put right again', async () => {
  await using under = await startInstances();
  const { profiles, instances } = under.engine;
  const content = { description: '', config: {}, devices: {} };
  const root = { type: 'disk', path: '/', pool: 'default' };
  profiles.create('default', 'p', content);
  await under.create('c1', { profiles: ['p'], devices: { own: root }, start: true });
  const update = (devices: DeviceMap) =>
    profiles.update(profiles.get('default', 'p'), { ...content, devices }, AbortSignal.timeout(5000));

  await expect(update({ other: root })).rejects.toThrow('More than one root device found');
  await instances.addMetrics(new MetricSet(), undefined, AbortSignal.timeout(5000));
  await update({});

  expect(Object.keys(under.instances.get('default', 'c1').expanded.devices)).toEqual(['own']);
});

it('what was remembered of a nic goes with it, and gives way to what it is told', async () => {
  await using under = await startInstances();
  const nic = { type: 'nic', nictype: 'p2p' };
  await under.create('c1', { devices: { eth0: nic, eth1: nic } });
  const volatile = () => {
    const { config } = under.instances.get('default', 'c1').record;
    return Object.keys(config)
      .filter((key) => key.startsWith('volatile.eth'))
      .toSorted();
  };
  const give = async (devices: DeviceMap) => {
    const info = under.instances.get('default', 'c1');
    await under.done(under.instances.replace(info, { ...info.record, devices }));
  };
  const both = ['hwaddr', 'name'].flatMap((key) => [`volatile.eth0.${key}`, `volatile.eth1.${key}`]);
  expect(volatile()).toEqual(both.toSorted());

  await give({ eth0: { ...nic, hwaddr: '00:16:3e:00:00:01' }, eth1: { type: 'none' } });

  expect(volatile()).toEqual(['volatile.eth0.name']);
});

describe('security.devlxd', () => {
  it('is switched on and off in a running instance', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true, config: { 'security.devlxd': 'false' } });

    expect(under.runtime.specs.get('c1')?.mounts.map(({ target }) => target)).not.toContain('dev/lxd');
    await reconfigure(under, 'c1', { 'security.devlxd': 'true' });
    expect(under.runtime.attached.get('c1')).toEqual(['dev/lxd']);
    await reconfigure(under, 'c1', { 'security.devlxd': 'false' });
    expect(under.runtime.attached.get('c1')).toEqual([]);
  });
});

describe('differences of devices', () => {
  const live = () => ['limits.read'];

  it('tell what goes, comes, and changes in place', () => {
    const before = {
      a: { type: 'disk', path: '/a' },
      b: { type: 'disk', path: '/b' },
      c: { type: 'disk', path: '/c' },
    };
    const after = {
      b: { type: 'disk', path: '/other' },
      c: { type: 'disk', path: '/c', 'limits.read': '1MB' },
      d: { type: 'none' },
    };

    expect(differences(before, after, live)).toEqual({ removed: ['a', 'b'], added: ['b', 'd'], updated: ['c'] });
  });

  it('take an empty option for an absent one, and never change a type in place', () => {
    const disk = { type: 'disk', path: '/a' };

    const noted = differences({ a: disk }, { a: { ...disk, 'user.foo': 'bar' } }, live);
    expect(noted).toEqual({ removed: [], added: [], updated: [] });
    expect(differences({ a: disk }, { a: { ...disk, source: '' } }, live).updated).toEqual([]);
    expect(differences({ a: disk }, { a: { ...disk, type: 'none' } }, () => ['type']).removed).toEqual(['a']);
  });
});

describe('limits in control groups', () => {
  const v1: CgroupLayout = {
    unified: false,
    controllers: new Map(['memory', 'memory.memsw', 'pids', 'blkio'].map((name) => [name, `/cg/${name}`])),
    mountPoints: [],
  };
  const unified: CgroupLayout = { ...v1, unified: true };
  const memory = (mb: number) => ({ memory: { bytes: mb * MB, enforce: 'hard' } }) as const;

  async function written(
    layout: CgroupLayout,
    change: Parameters<typeof applyLimits>[2],
    failing?: string,
  ): Promise<string[]> {
    const lines: string[] = [];
    const write = async ({ file, value }: CgroupSetting): Promise<void> => {
      lines.push(`${file} ${value}`);
      if (failing !== undefined && `${file} ${value}` === failing) throw new Error('EBUSY');
    };
    await applyLimits(write, layout, change).catch((error: unknown) => lines.push(String(error)));
    return lines;
  }

  it('raise memory with swap first, and lower memory first', async () => {
    expect(await written(v1, { before: memory(1), after: memory(2) })).toEqual([
      `memory.memsw.limit_in_bytes ${2 * MB}`,
      `memory.limit_in_bytes ${2 * MB}`,
      `memory.soft_limit_in_bytes ${Math.floor(2 * MB * 0.9)}`,
    ]);
    expect((await written(v1, { before: memory(2), after: memory(1) }))[0]).toBe(`memory.limit_in_bytes ${MB}`);
    expect((await written(v1, { before: memory(2), after: {} }))[0]).toBe('memory.memsw.limit_in_bytes -1');
  });

  it('are put back when one is refused', async () => {
    const lines = await written(v1, { before: memory(2), after: memory(1) }, `memory.memsw.limit_in_bytes ${MB}`);

    expect(lines.slice(0, 3)).toEqual([
      `memory.limit_in_bytes ${MB}`,
      `memory.memsw.limit_in_bytes ${MB}`,
      `memory.limit_in_bytes ${2 * MB}`,
    ]);
    expect(lines.at(-1)).toContain('Failed to set memory.memsw.limit_in_bytes');
  });

  it('of a block device are lifted when they go', async () => {
    const before = { throttles: { '8:0': { readBytes: 5 }, '8:16': { writeOperations: 7 } } };
    const after = { throttles: { '8:16': { writeOperations: 7 } } };

    expect(await written(v1, { before, after })).toEqual(['blkio.throttle.read_bps_device 8:0 0']);
    expect(await written(unified, { before, after })).toEqual(['io.max 8:0 rbps=max wbps=max riops=max wiops=max']);
  });
});
