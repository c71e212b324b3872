// Processors that are one guest's alone: the sets of the configuration, what is chosen, counted, and given back.
import { describe, expect, it } from 'vitest';
import { checkCpuSets, parseCpuSet, shareOf, sharedCpus } from '#src/compute/resources/cpu-sets.ts';
import { pin, pinsOf, topologyComplaint, unpin, wantsPins } from '#src/compute/resources/pinning.ts';
import { HostResourceTracker } from '#src/compute/resources/tracker.ts';
import { silentLog } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import { testConfig } from '#test/fakes/compute-harness.ts';
import { FakeConductor, listOf } from '#test/fakes/fake-conductor.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';
import { MemoryPlacement } from '#test/fakes/memory-placement.ts';

const NODE_UUID = '11111111-1111-4111-8111-111111111111';
const context = RequestContext.admin();
const signal = new AbortController().signal;
/** Eight processors of two nodes. */
const HOST = { cpus: Array.from({ length: 8 }, (_cpu, id) => ({ id, node: id < 4 ? 0 : 1 })) };

type CellFields = Parameters<typeof createObject<'InstanceNUMACell'>>[1];

function topologyOf(vcpus: number, fields: CellFields = {}): NovaObject<'InstanceNUMATopology'> {
  const cell = createObject('InstanceNUMACell', {
    id: 0,
    cpuset: new Set<number>(),
    pcpuset: new Set(Array.from({ length: vcpus }, (_vcpu, id) => id)),
    memory: 64,
    pagesize: null,
    cpu_policy: 'dedicated',
    cpu_thread_policy: null,
    cpu_pinning_raw: null,
    ...fields,
  });
  return createObject('InstanceNUMATopology', { cells: [cell], emulator_threads_policy: null });
}

function instanceOf(uuid: string, topology: NovaObject<'InstanceNUMATopology'> | null): NovaObject<'Instance'> {
  const flavor = createObject('Flavor', { memory_mb: 64, vcpus: 2, root_gb: 1, ephemeral_gb: 0, swap: 0 });
  const place = { host: null, node: null, image_ref: 'image', os_type: null, project_id: 'p' };
  const instance = createObject('Instance', { id: 1, uuid, vm_state: 'building', task_state: null, flavor, ...place });
  instance.load('numa_topology', topology);
  instance.resetChanges();
  return instance;
}

describe('a set of processors', () => {
  it.each([
    ['3', [3]],
    ['0-3,^2', [0, 1, 3]],
    ['8, 2-3', [2, 3, 8]],
    ['^1,0-1', [0]],
    ['', undefined],
    ['3-1', undefined],
    ['a', undefined],
    ['1,^1', undefined],
    ['0-3,^1-2', undefined],
  ])('%j is %j', (text, ids) => {
    expect(parseCpuSet(text)).toEqual(ids);
  });

  it('must be of the host, and of one kind', () => {
    expect(() => checkCpuSets({ dedicated: [1, 9], shared: null }, HOST)).toThrow('has no CPU 9');
    expect(() => checkCpuSets({ dedicated: [1, 2], shared: [2] }, HOST)).toThrow('both have CPU 2');
    expect(() => checkCpuSets({ dedicated: [1], shared: [2] }, HOST)).not.toThrow();
  });

  it('leaves the others to all guests, or to none when it is only known which are dedicated', () => {
    expect(sharedCpus({ dedicated: null, shared: null }, HOST)).toHaveLength(8);
    expect(sharedCpus({ dedicated: [1], shared: null }, HOST)).toEqual([]);
    expect(sharedCpus({ dedicated: [1], shared: [0, 2] }, HOST)).toEqual([0, 2]);
  });

  it('keeps guests without their own to the shared ones, always to the same', () => {
    const sets = { dedicated: [0], shared: [1, 2, 3] };

    expect(shareOf(sets, '00000000-0000-4000-8000-000000000002', 2)).toEqual([1, 3]);
    expect(shareOf(sets, NODE_UUID, 7)).toEqual([1, 2, 3]);
    expect(shareOf({ dedicated: null, shared: null }, NODE_UUID, 2)).toBeNull();
  });
});

describe('pinning', () => {
  it('takes the node with just enough room, and writes down which is which', () => {
    const instance = instanceOf('a', topologyOf(2));

    pin(instance, [0, 1, 2, 6, 7], HOST);

    const [cell] = instance.get('numa_topology')?.get('cells') ?? [];
    expect(cell?.get('id')).toBe(1);
    expect(cell?.get('cpu_pinning_raw')).toEqual({ 0: 6, 1: 7 });
    expect(pinsOf(instance)).toEqual([6, 7]);
    expect(instance.changes()).toContain('numa_topology');
    unpin(instance);
    expect(pinsOf(instance)).toEqual([]);
  });

  it('finds no place across nodes', () => {
    expect(() => pin(instanceOf('a', topologyOf(3)), [0, 1, 6, 7], HOST)).toThrow(/3 dedicated CPUs of one NUMA node/);
  });

  it.each([[null], [topologyOf(2, { cpu_policy: 'shared' })]])('is nothing for who wants none', (topology) => {
    const instance = instanceOf('a', topology);

    pin(instance, [], HOST);

    expect(instance.changes()).toEqual([]);
  });

  it.each<[string, CellFields]>([
    ['threads', { cpu_thread_policy: 'isolate' }],
    ['memory pages', { pagesize: 2048 }],
    ['Mixed', { cpu_policy: 'mixed' }],
  ])('refuses what it cannot give: %s', (what, fields) => {
    expect(topologyComplaint(topologyOf(1, fields))).toContain(what);
    expect(topologyComplaint(topologyOf(1))).toBeUndefined();
  });

  it.each([
    [{ 'hw:cpu_policy': 'dedicated' }, true],
    [{ 'resources:PCPU': '2' }, true],
    [{ 'hw:cpu_policy': 'shared' }, false],
  ])('%j wants it: %s', (specs, isWanted) => {
    const flavor = createObject('Flavor', { extra_specs: specs });

    expect(wantsPins(instanceOf('a', null), flavor)).toBe(isWanted);
  });
});

describe('the tracker', () => {
  const CONFIG = '[compute]\ncpu_dedicated_set = 2-5\ncpu_shared_set = 0-1\n';

  async function world(instances: readonly NovaObject[] = [], config = CONFIG) {
    const conductor = new FakeConductor()
      .on('InstanceList.get_by_host_and_node', () => listOf('InstanceList', instances))
      .on('MigrationList.get_in_progress_and_error', () => listOf('MigrationList', []))
      .on('BlockDeviceMappingList.get_by_instance_uuids', () => listOf('BlockDeviceMappingList', []))
      .on('ComputeNode.get_by_uuid', () => {
        throw remote('ComputeHostNotFound', 'no such node');
      })
      .on('ComputeNode.create', ({ object }) => void (object as NovaObject<'ComputeNode'>).load('id', 7))
      .on('Service.get_by_host_and_binary', () => createObject('Service', { id: 3, disabled: false }));
    const placement = new MemoryPlacement();
    const tracker = new HostResourceTracker({
      config: testConfig(config).resources,
      identity: { uuid: NODE_UUID, host: 'fake1', hostIp: '10.0.0.1' },
      nodeName: 'fake1',
      additions: { inventories: {}, traits: [] },
      conductor,
      placement,
      virt: new FakeVirtDriver({ nodeName: 'fake1', vcpus: 8, memoryMib: 4096, diskGib: 100 }),
      log: silentLog,
    });
    tracker.useService(3);
    await tracker.update(context, signal);
    return { tracker, conductor, placement };
  }

  it('offers both kinds, and tells the scheduler of its topology', async () => {
    const { placement, conductor } = await world();

    const { inventories } = placement.providers.get(NODE_UUID) ?? {};
    expect(inventories).toMatchObject({ VCPU: { total: 2 }, PCPU: { total: 4, allocationRatio: 1 } });
    const changes: Readonly<Record<string, unknown>> = conductor.named('ComputeNode.create')[0]?.changes ?? {};
    expect(changes).toMatchObject({ vcpus: 6 });
    const [cell] = JSON.parse(String(changes['numa_topology']))['nova_object.data'].cells;
    expect(cell['nova_object.data']).toMatchObject({ id: 0, cpuset: [0, 1], pcpuset: [2, 3, 4, 5], pinned_cpus: [] });
  });

  it('gives none twice, however many ask at once, and takes them back', async () => {
    const { tracker } = await world();
    const asking = ['a', 'b', 'c'].map((uuid) => instanceOf(uuid, topologyOf(2)));

    const results = await Promise.allSettled(asking.map((instance) => tracker.instanceClaim(context, instance)));

    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    expect(new Set(asking.flatMap(pinsOf))).toEqual(new Set([2, 3, 4, 5]));
    expect(tracker.cpusFor('a', 2)).toEqual([2, 3]);
    if (results[0]?.status === 'fulfilled') await results[0].value.abort();
    expect(pinsOf(asking[0] as NovaObject<'Instance'>)).toEqual([]);
    await tracker.instanceClaim(context, asking[2] as NovaObject<'Instance'>);
    expect(tracker.cpusFor('c', 2)).toEqual([2, 3]);
  });

  it('knows after a restart whose they are, also when a message lacks the topology, and frees those of the deleted', async () => {
    const there = instanceOf('there', topologyOf(2, { cpu_pinning_raw: { 0: 2, 1: 3 } }));
    there.set('host', 'fake1').set('node', 'fake1').set('vm_state', 'active');
    const { tracker } = await world([there]);
    const bare = createObject('Instance', { uuid: 'there', vm_state: 'active', task_state: null });
    bare.set('host', 'fake1').set('node', 'fake1').set('flavor', there.get('flavor')).set('image_ref', 'image');

    await tracker.updateUsage(context, bare);
    expect(tracker.cpusFor('there', 2)).toEqual([2, 3]);
    const next = instanceOf('next', topologyOf(2));
    await tracker.instanceClaim(context, next);
    expect(pinsOf(next)).toEqual([4, 5]);
    bare.set('vm_state', 'deleted');
    await tracker.updateUsage(context, bare);

    const last = instanceOf('last', topologyOf(2));
    await tracker.instanceClaim(context, last);
    expect(pinsOf(last)).toEqual([2, 3]);
  });

  it('reads the topology of an instance whose message lacks it', async () => {
    const { tracker, conductor } = await world();
    conductor.on('Instance.get_by_uuid', () => instanceOf('back', topologyOf(1, { cpu_pinning_raw: { 0: 7 } })));
    const flavor = createObject('Flavor', {
      memory_mb: 64,
      vcpus: 1,
      root_gb: 1,
      ephemeral_gb: 0,
      swap: 0,
      extra_specs: { 'hw:cpu_policy': 'dedicated' },
    });
    const back = createObject('Instance', { uuid: 'back', vm_state: 'shelved_offloaded', task_state: 'spawning' });
    back.set('flavor', flavor).set('image_ref', 'image').set('host', null).set('node', null);

    await tracker.instanceClaim(context, back);

    expect(pinsOf(back)).toEqual([2]);
    expect(tracker.cpusFor('back', 1)).toEqual([2]);
  });

  it('refuses sets that the host has not', async () => {
    await expect(world([], '[compute]\ncpu_dedicated_set = 7-9\n')).rejects.toMatchObject({ kind: 'invalid' });
  });

  it('knows nothing of it where nothing is configured', async () => {
    const { tracker, placement, conductor } = await world([], '');

    expect(placement.providers.get(NODE_UUID)?.inventories).not.toHaveProperty('PCPU');
    expect(conductor.named('ComputeNode.create')[0]?.changes).toMatchObject({ vcpus: 8, numa_topology: null });
    expect(tracker.cpusFor('a', 2)).toBeNull();
    await expect(tracker.instanceClaim(context, instanceOf('a', topologyOf(1)))).rejects.toThrow('dedicated CPUs');
  });
});
