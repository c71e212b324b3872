// Many at once: simulated hosts in one process, instances on one host, builds that come together. Limits are those of the
// specification; on the machine they were written on everything takes a small part of them.
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Readable } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ComputeConfig } from '#src/compute/config/config.ts';
import { type ComputeParts, createComputeService } from '#src/compute/service/compute-service.ts';
import { createSimulatedHosts } from '#src/compute/service/simulated-hosts.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import type { RpcTransport } from '#src/messaging/types.ts';
import { POWER_STATE, type SpawnSpec } from '#drivers/virt/driver.ts';
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import { buildArgs, ComputeHarness, HOST, instanceOf, testConfig } from '#test/fakes/compute-harness.ts';
import { FakeCinder } from '#test/fakes/fake-cinder.ts';
import { FakeHostVolumes } from '#test/fakes/fake-host-volumes.ts';
import { FakeGlance } from '#test/fakes/fake-glance.ts';
import { FakeNeutron } from '#test/fakes/fake-neutron.ts';
import { MemoryPlacement } from '#test/fakes/memory-placement.ts';
import { PlaneOfHosts } from '#test/fakes/plane-of-hosts.ts';

type Json = Readonly<Record<string, any>>;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'compute-scale-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

function partsOn(
  { host }: ComputeConfig,
  transport: RpcTransport,
  placement: MemoryPlacement,
): ComputeParts & { virt: FakeVirtDriver } {
  return {
    log: silentLog,
    transport,
    virt: new FakeVirtDriver({ nodeName: host }),
    vifs: [],
    placement,
    neutron: new FakeNeutron(),
    glance: new FakeGlance(),
    cinder: new FakeCinder(),
    volumes: new FakeHostVolumes(),
    connector: async () => ({}),
    notifications: { moment() {}, failure() {} },
    flushNotifications: async () => {},
  };
}

const cpuMs = (since: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
};

/** What is really in use. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
  return process.memoryUsage().heapUsed;
}

describe('a hundred simulated hosts in one process', () => {
  it('are computes of their own, with small needs', async () => {
    const config = {
      ...testConfig(`compute_driver = fake\nstate_path = ${folder}\nperiodic_enable = false\n[fake]\nhosts = 100`),
      host: 'load',
    };
    const world = new PlaneOfHosts();
    const placement = new MemoryPlacement();
    const partsOf = async (own: ComputeConfig, way: RpcTransport) => partsOn(own, way, placement);
    const before = heapBytes();

    const hosts = createSimulatedHosts(config, silentLog, { transport: world, partsOf });
    await hosts.start(AbortSignal.timeout(20_000));

    try {
      expect([...world.services.keys()].toSorted()).toEqual(
        Array.from({ length: 100 }, (_none, index) => `load-${String(index + 1).padStart(3, '0')}`),
      );
      expect(world.queues.size).toBe(200);
      expect(placement.providers.size).toBe(100);
      const { uuid } = [...world.nodes.values()].find(({ host }) => host === 'load-042') ?? {};
      expect(await readFile(join(folder, 'load-042', 'compute_id'), 'utf8')).toBe(`${uuid}\n`);
      const perHost = (heapBytes() - before) / 100 / 1024;
      console.log(`heap of a simulated host ${Math.round(perHost)} KiB`);
      expect(perHost).toBeLessThan(1024);
      const began = process.cpuUsage();
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(cpuMs(began)).toBeLessThan(250);
      expect(world.closed).toBe(0);
    } finally {
      await hosts.stop(AbortSignal.timeout(5000));
    }
    expect(world.queues.size).toBe(0);
    expect(world.closed).toBe(1);
  });
});

function specOf(row: Json): SpawnSpec {
  const flavor = { vcpus: 1, memoryMib: 64, rootGib: 1, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} };
  const image = { id: 'i', cacheKey: 'i', name: 'i', diskFormat: 'raw', containerFormat: 'bare', sizeBytes: null };
  return {
    uuid: row['uuid'],
    name: `instance-${row['id']}`,
    displayName: 'web',
    hostname: 'web',
    projectId: 'project',
    userId: 'user',
    flavor,
    image: { ...image, properties: {}, open: async () => Readable.from([]) },
  };
}

/** One that has been up before. */
async function knownHost(world: PlaneOfHosts, host: string): Promise<void> {
  const uuid = randomUUID();
  world.services.set(host, { id: 1, host, binary: 'nova-compute', version: 64, report_count: 1, disabled: false });
  world.nodes.set(uuid, { id: 1, uuid, host, hypervisor_hostname: host });
  await writeFile(join(folder, 'compute_id'), `${uuid}\n`);
}

describe('200 instances on one host', () => {
  it('keep a start under 5 s, and a round of the periodic tasks under 1 s of processor time', async () => {
    const config = {
      ...testConfig(`state_path = ${folder}\nperiodic_fuzzy_delay = 0\nupdate_resources_interval = 1`),
      host: 'full',
    };
    const world = new PlaneOfHosts();
    const parts = partsOn(config, world, new MemoryPlacement());
    for (let id = 1; id <= 200; id += 1) {
      const state = { vm_state: 'active', task_state: null, power_state: POWER_STATE.running };
      const instance = instanceOf({ id, host: 'full', node: 'full', ...state });
      world.plane.add(instance);
      const spec = specOf(instance['nova_object.data']);
      await parts.virt.spawn(spec, { network: async () => [] }, AbortSignal.timeout(5000));
    }
    await knownHost(world, 'full');
    const service = createComputeService(config, parts);

    const begun = performance.now();
    await service.start(AbortSignal.timeout(20_000));
    const startMs = performance.now() - begun;

    try {
      // immediate tasks run now, the update of resources after a second
      const began = process.cpuUsage();
      const before = world.calls;
      await new Promise((resolve) => setTimeout(resolve, 1800));
      const usedMs = cpuMs(began);
      console.log(
        `start ${Math.round(startMs)} ms, periodic tasks ${Math.round(usedMs)} ms, ${world.calls - before} calls`,
      );
      expect(startMs).toBeLessThan(5000);
      expect(usedMs).toBeLessThan(1000);
      expect([...world.nodes.values()]).toMatchObject([{ running_vms: 200 }]);
      expect(world.calls - before).toBeLessThan(40);
    } finally {
      await service.stop(AbortSignal.timeout(5000));
    }
  });
});

describe('50 builds at once', () => {
  it('keep the event loop free, and run so many at a time as max_concurrent_builds allows', async () => {
    await using harness = new ComputeHarness({ config: 'max_concurrent_builds = 7', delayMs: 20 });
    let running = 0;
    let most = 0;
    const spawn = harness.virt.spawn.bind(harness.virt);
    harness.virt.spawn = async (...args) => {
      running += 1;
      most = Math.max(most, running);
      await spawn(...args).finally(() => {
        running -= 1;
      });
    };
    const instances = Array.from({ length: 50 }, (_none, id) => instanceOf({ id: id + 1 }));
    for (const instance of instances) {
      harness.plane.add(instance);
      harness.placement.consumers.add(instance['nova_object.data'].uuid);
    }
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();

    await Promise.all(instances.map((instance) => harness.send('build_and_run_instance', buildArgs(instance))));
    const isBuilt = (instance: Json): boolean => harness.row(instance)['vm_state'] === 'active';
    await poll(() => instances.every(isBuilt) || undefined, 20, AbortSignal.timeout(9000));
    delay.disable();

    console.log(`event loop delay p99 ${Math.round(delay.percentile(99) / 1e6)} ms`);
    expect(delay.percentile(99) / 1e6).toBeLessThan(100);
    expect(most).toBe(7);
    expect(harness.virt.instances.size).toBe(50);
    expect(instances.every((instance) => harness.row(instance)['host'] === HOST)).toBe(true);
  });
});
