// The resource tracker: what it counts, what it tells Nova and Placement, and how often.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OpenStackError } from 'keystone-client-ts';
import { describe, expect, it } from 'vitest';
import { UsageLedger } from '#src/compute/resources/ledger.ts';
import { readHostUsages } from '#src/compute/resources/host-usages.ts';
import { readProviderAdditions } from '#src/compute/resources/provider-config.ts';
import { HostResourceTracker, type TrackerOptions } from '#src/compute/resources/tracker.ts';
import { hostUsage, usageOf } from '#src/compute/resources/usage.ts';
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

function instance(uuid: string, fields: Record<string, unknown> = {}): NovaObject<'Instance'> {
  const flavor = createObject('Flavor', { memory_mb: 512, vcpus: 2, root_gb: 5, ephemeral_gb: 1, swap: 1024 });
  const object = createObject('Instance', {
    id: 1,
    uuid,
    vm_state: 'building',
    task_state: null,
    host: null,
    node: null,
    image_ref: 'image',
    os_type: null,
    project_id: 'p1',
    flavor,
    ...fields,
  });
  object.resetChanges();
  return object;
}

class World {
  readonly conductor = new FakeConductor();
  readonly placement = new MemoryPlacement();
  readonly virt = new FakeVirtDriver({ nodeName: 'fake1', vcpus: 8, memoryMib: 4096, diskGib: 100 });
  instances: readonly NovaObject[] = [];
  devices: readonly NovaObject[] = [];
  isDisabled = false;

  constructor() {
    this.conductor
      .on('InstanceList.get_by_host_and_node', () => listOf('InstanceList', this.instances))
      .on('MigrationList.get_in_progress_and_error', () => listOf('MigrationList', []))
      .on('BlockDeviceMappingList.get_by_instance_uuids', () => listOf('BlockDeviceMappingList', this.devices))
      .on('ComputeNode.get_by_uuid', () => {
        throw remote('ComputeHostNotFound', 'no such node');
      })
      .on('ComputeNode.create', ({ object }) => void (object as NovaObject<'ComputeNode'>).load('id', 7))
      .on('Service.get_by_host_and_binary', () => createObject('Service', { id: 3, disabled: this.isDisabled }));
  }

  async tracker(options: Partial<TrackerOptions> = {}, config = ''): Promise<HostResourceTracker> {
    const tracker = new HostResourceTracker({
      config: testConfig(config).resources,
      identity: { uuid: NODE_UUID, host: 'fake1', hostIp: '10.0.0.1' },
      nodeName: 'fake1',
      additions: { inventories: {}, traits: [] },
      conductor: this.conductor,
      placement: this.placement,
      virt: this.virt,
      log: silentLog,
      ...options,
    });
    tracker.useService(3);
    await tracker.update(context, signal);
    return tracker;
  }

  get provider() {
    const provider = this.placement.providers.get(NODE_UUID);
    if (!provider) throw new Error('no provider');
    return provider;
  }
}

describe('usage', () => {
  it('counts flavor, reserved amounts and states, and truncates swap to GiB', () => {
    const config = testConfig('reserved_host_memory_mb = 100\nreserved_host_disk_mb = 2048').resources;
    const usages = [instance('a', { task_state: 'image_snapshot' }), instance('b', { vm_state: 'active' })]
      .map((one) => usageOf(one))
      .filter((usage) => usage !== undefined);

    const usage = hostUsage(usages, config, 3);

    expect(usage).toMatchObject({ memoryMib: 1124, vcpus: 4, diskGib: 16, runningVms: 2, workload: 1 });
    expect(usage.stats).toMatchObject({
      num_instances: '2',
      num_vm_building: '1',
      num_vm_active: '1',
      num_task_None: '1',
      num_task_image_snapshot: '1',
      num_proj_p1: '2',
      io_workload: '2',
      failed_builds: '3',
    });
  });

  it('ignores deleted and offloaded instances, and the root disk of volume-backed ones', () => {
    expect(usageOf(instance('a', { vm_state: 'deleted' }))).toBeUndefined();
    expect(usageOf(instance('a', { vm_state: 'shelved_offloaded' }))).toBeUndefined();
    expect(usageOf(instance('a', { vm_state: 'shelved_offloaded', task_state: 'spawning' }))).toBeDefined();
    expect(usageOf(instance('a', { image_ref: '' }))?.diskGib).toBe(2);
  });
});

describe('the ledger', () => {
  it('keeps what changed while the database was read, and forgets what is gone from it', () => {
    const ledger = new UsageLedger();
    const usage = { memoryMib: 1, vcpus: 1, diskGib: 1 };
    ledger.set('stays', usage);
    ledger.set('gone', usage);
    const begunAt = ledger.beginReading();
    ledger.set('claimed', usage);
    ledger.set('deleted', undefined);

    ledger.replace(
      new Map([
        ['stays', usage],
        ['deleted', usage],
      ]),
      begunAt,
    );

    expect(['stays', 'gone', 'claimed', 'deleted'].map((uuid) => ledger.has(uuid))).toEqual([true, false, true, false]);
    expect(ledger.usages()).toHaveLength(2);
  });
});

describe('the compute node', () => {
  it('counts no room for a root on a volume, also of an instance with an image', async () => {
    const world = new World();
    world.instances = [
      instance('a', { host: 'fake1', node: 'fake1' }),
      instance('b', { host: 'fake1', node: 'fake1' }),
    ];
    world.devices = ['a', 'b'].map((uuid) =>
      createObject('BlockDeviceMapping', {
        instance_uuid: uuid,
        boot_index: 0,
        destination_type: uuid === 'a' ? 'volume' : 'local',
      }),
    );

    await (await world.tracker()).update(context, signal);

    const { local_gb_used: used } = world.conductor.named('ComputeNode.create')[0]?.changes ?? {};
    const one = usageOf(instance('b'))?.diskGib ?? 0;
    const other = usageOf(instance('a', { image_ref: '' }))?.diskGib ?? 0;
    expect(used).toBe(one + other);
    expect(other).toBeLessThan(one);
    expect(world.conductor.named('BlockDeviceMappingList.get_by_instance_uuids')).toHaveLength(1);
  });

  it('is made once, saved only when something changed, and belongs to the service', async () => {
    const world = new World();
    const tracker = await world.tracker();

    await tracker.update(context, signal);
    await tracker.update(context, signal);

    expect(world.conductor.named('ComputeNode.create')[0]?.changes).toMatchObject({
      uuid: NODE_UUID,
      host: 'fake1',
      service_id: 3,
      hypervisor_hostname: 'fake1',
      vcpus: 8,
      memory_mb: 4096,
      memory_mb_used: 512,
      cpu_allocation_ratio: 4,
    });
    expect(world.conductor.named('ComputeNode.create')).toHaveLength(1);
    expect(world.conductor.named('ComputeNode.save')).toHaveLength(0);
    expect(tracker.computeNodeId).toBe(7);
  });

  it('comes back to life when the record was deleted', async () => {
    const world = new World();
    world.conductor.on('ComputeNode.get_by_uuid', ({ context: asked }) => {
      expect(asked.readDeleted).toBe('yes');
      const fields = { id: 9, uuid: NODE_UUID, deleted: true, deleted_at: new Date() };
      const node = createObject('ComputeNode', fields);
      node.resetChanges();
      return node;
    });

    await world.tracker();

    expect(world.conductor.named('ComputeNode.save')[0]?.changes).toMatchObject({
      deleted: false,
      deleted_at: null,
      mapped: 0,
    });
    expect(world.conductor.named('ComputeNode.save')[0]?.context.toWire()).toMatchObject({ read_deleted: 'yes' });
  });

  it('refuses an engine that has become another node', async () => {
    const world = new World();

    await expect(world.tracker({ nodeName: 'other' })).rejects.toThrow('Nova knows it as other');
  });
});

describe('a claim', () => {
  it('costs one save of the instance and one of the node, and sets host, node and compute_id together', async () => {
    const world = new World();
    const tracker = await world.tracker();
    const before = world.conductor.calls.length;

    await tracker.instanceClaim(context, instance('a'));

    const calls = world.conductor.calls.slice(before);
    expect(calls.map(({ what }) => what)).toEqual(['Instance.save', 'ComputeNode.save']);
    expect(calls[0]?.changes).toEqual({ host: 'fake1', launched_on: 'fake1', node: 'fake1', compute_id: 7 });
    expect(calls[1]?.changes).toMatchObject({ memory_mb_used: 1024, vcpus_used: 2, running_vms: 1 });
  });

  it('shares the saves of the node with claims made at the same time', async () => {
    const world = new World();
    const tracker = await world.tracker();

    await Promise.all(Array.from({ length: 20 }, (_, index) => tracker.instanceClaim(context, instance(`i${index}`))));

    expect(world.conductor.named('Instance.save')).toHaveLength(20);
    expect(world.conductor.named('ComputeNode.save').length).toBeLessThanOrEqual(2);
    expect(world.conductor.named('ComputeNode.save').at(-1)?.changes).toMatchObject({ running_vms: 20 });
  });

  it('is taken back by abort, and by a failure to save', async () => {
    const world = new World();
    const tracker = await world.tracker();
    const claimed = instance('a');
    const claim = await tracker.instanceClaim(context, claimed);

    await claim.abort();
    world.conductor.on('Instance.save', () => {
      throw remote('InstanceNotFound', 'gone');
    });
    await expect(tracker.instanceClaim(context, instance('b'))).rejects.toThrow('gone');
    await tracker.updateUsage(context, instance('c', { host: 'elsewhere' }));

    expect(claimed.get('host')).toBeNull();
    expect(claimed.get('compute_id')).toBeNull();
    expect(world.conductor.named('ComputeNode.save').at(-1)?.changes).toMatchObject({ running_vms: 0, vcpus_used: 0 });
  });

  it('survives that the node cannot be saved, which the next update does', async () => {
    const world = new World();
    const tracker = await world.tracker();
    world.conductor.on('ComputeNode.save', () => {
      throw remote('DBConnectionError', 'no database');
    });
    await tracker.instanceClaim(context, instance('a'));
    world.conductor.on('ComputeNode.save', () => undefined);
    world.instances = [instance('a', { host: 'fake1', node: 'fake1' })];

    await tracker.update(context, signal);

    expect(world.conductor.named('ComputeNode.save').at(-1)?.changes).toMatchObject({ running_vms: 1 });
  });

  it('is refused before the node is known to Nova', async () => {
    const world = new World();
    world.virt.failNext('hostFacts', new Error('engine down'));
    const options: TrackerOptions = {
      config: testConfig().resources,
      identity: { uuid: NODE_UUID, host: 'fake1', hostIp: '10.0.0.1' },
      nodeName: 'fake1',
      additions: { inventories: {}, traits: [] },
      conductor: world.conductor,
      placement: world.placement,
      virt: world.virt,
      log: silentLog,
    };
    const tracker = new HostResourceTracker(options);
    await expect(tracker.update(context, signal)).rejects.toThrow('engine down');

    await expect(tracker.instanceClaim(context, instance('a'))).rejects.toThrow('not known to Nova yet');
    await tracker.updateUsage(context, instance('a', { host: 'fake1', node: 'fake1' }));

    expect(world.conductor.names.filter((name) => name.endsWith('.save'))).toEqual([]);
  });
});

describe('a move within this host', () => {
  const migrationOf = (status: string) =>
    createObject('Migration', {
      id: 5,
      uuid: 'mig',
      instance_uuid: 'i-1',
      status,
      migration_type: 'resize',
      source_compute: 'fake1',
      source_node: 'fake1',
      dest_compute: 'fake1',
      dest_node: 'fake1',
      old_instance_type_id: 1,
      new_instance_type_id: 2,
    });
  const flavor = (id: number, memory: number) =>
    createObject('Flavor', { id, name: 'f', memory_mb: memory, vcpus: id, root_gb: 1, ephemeral_gb: 0, swap: 0 });
  const moving = (fields: Parameters<typeof createObject<'Instance'>>[1]) =>
    createObject('Instance', {
      id: 1,
      uuid: 'i-1',
      host: 'fake1',
      node: 'fake1',
      image_ref: 'image',
      task_state: null,
      flavor: flavor(2, 200),
      instance_type_id: 2,
      old_flavor: flavor(1, 100),
      new_flavor: flavor(2, 200),
      ...fields,
    });
  const used = async (instance: ReturnType<typeof moving>, status = 'finished'): Promise<unknown> => {
    const place = { host: 'fake1', node: 'fake1' };
    const conductor = new World().conductor
      .on('InstanceList.get_by_host_and_node', () => listOf('InstanceList', [instance]))
      .on('MigrationList.get_in_progress_and_error', () => listOf('MigrationList', [migrationOf(status)]));
    const { usages } = await readHostUsages({ conductor, context }, place);
    return [...usages.values()].map(({ memoryMib }) => memoryMib);
  };

  it('counts both flavors until it is confirmed, whichever of them the instance has', async () => {
    expect(await used(moving({ vm_state: 'resized' }))).toEqual([200, 100]);
    const before = { vm_state: 'active', task_state: 'resize_migrating', flavor: flavor(1, 100), instance_type_id: 1 };
    expect(await used(moving({ ...before, old_flavor: null }), 'migrating')).toEqual([100, 200]);
  });

  it('counts one flavor when it failed, or the instance is in no resize', async () => {
    expect(await used(moving({ vm_state: 'resized' }), 'error')).toEqual([200]);
    expect(await used(moving({ vm_state: 'active' }))).toEqual([200]);
  });

  it('is claimed with destination, context and the room of both flavors, and given back', async () => {
    const world = new World();
    const tracker = await world.tracker();
    const instance = moving({
      vm_state: 'active',
      task_state: 'resize_prep',
      flavor: flavor(1, 100),
      instance_type_id: 1,
    });
    await tracker.updateUsage(context, instance);
    const memory = () => world.conductor.named('ComputeNode.save').at(-1)?.changes['memory_mb_used'];
    const alone = Number(memory());
    const migration = migrationOf('accepted');
    migration.resetChanges();

    await tracker.resizeClaim(context, instance, { migration, flavor: flavor(2, 200) });

    expect(migration.get('dest_host')).toBe('10.0.0.1');
    expect(migration.get('status')).toBe('pre-migrating');
    expect(instance.get('migration_context')?.get('migration_id')).toBe(5);
    expect(memory()).toBe(alone + 200);
    await tracker.keepRoom(instance, null);
    expect(memory()).toBe(alone);
  });
});

describe('the report to Placement', () => {
  it('makes the provider with inventory and traits, and then writes nothing', async () => {
    const world = new World();
    const tracker = await world.tracker({}, 'reserved_host_disk_mb = 1');

    const requests = world.placement.requests.length;
    await tracker.update(context, signal);

    expect(world.provider.name).toBe('fake1');
    expect(world.provider.inventories).toEqual({
      VCPU: { total: 8, reserved: 0, minUnit: 1, maxUnit: 8, stepSize: 1, allocationRatio: 4 },
      MEMORY_MB: { total: 4096, reserved: 512, minUnit: 1, maxUnit: 4096, stepSize: 1, allocationRatio: 1 },
      DISK_GB: { total: 100, reserved: 1, minUnit: 1, maxUnit: 100, stepSize: 1, allocationRatio: 1 },
    });
    expect(world.placement.requests.slice(requests)).toEqual(['GET provider allocations']);
  });

  it('drops standard traits that this Placement lacks, keeps those of others, and makes custom ones', async () => {
    const world = new World();
    world.placement.standardTraits.add('CUSTOM_RACK_7').add('COMPUTE_TRUSTED_CERTS').add('HW_CPU_X86_AVX');
    await world.placement.createProvider(NODE_UUID, 'fake1');
    world.placement.touch(NODE_UUID, { traits: ['CUSTOM_RACK_7', 'COMPUTE_TRUSTED_CERTS', 'HW_CPU_X86_AVX'] });

    await world.tracker({ additions: { inventories: {}, traits: ['CUSTOM_FAST'] } });

    expect(world.provider.traits).toEqual([
      'COMPUTE_IMAGE_TYPE_RAW',
      'COMPUTE_NODE',
      'CUSTOM_FAST',
      'CUSTOM_RACK_7',
      'HW_CPU_X86_AVX',
    ]);
  });

  it('reports OWNER_NOVA where Placement knows it', async () => {
    const world = new World();
    world.placement.standardTraits.add('OWNER_NOVA');

    await world.tracker();

    expect(world.provider.traits).toContain('OWNER_NOVA');
  });

  it('marks the provider of a disabled service, at once when the API asks for it', async () => {
    const world = new World();
    world.isDisabled = true;
    const tracker = await world.tracker();
    const atStart = world.provider.traits;

    await tracker.setDisabled(false);

    expect(atStart).toContain('COMPUTE_STATUS_DISABLED');
    expect(world.provider.traits).not.toContain('COMPUTE_STATUS_DISABLED');
  });

  it('keeps a ratio set through the API, unless the configuration sets one', async () => {
    const world = new World();
    await world.tracker();
    const { VCPU, ...rest } = world.provider.inventories;
    if (!VCPU) throw new Error('no VCPU');
    world.placement.touch(NODE_UUID, { inventories: { ...rest, VCPU: { ...VCPU, allocationRatio: 9 } } });

    await world.tracker();
    const kept = world.provider.inventories['VCPU']?.allocationRatio;
    await world.tracker({}, 'cpu_allocation_ratio = 2');

    expect(kept).toBe(9);
    expect(world.provider.inventories['VCPU']?.allocationRatio).toBe(2);
  });

  it('reads again and repeats when somebody else changed the provider', async () => {
    const world = new World();
    const tracker = await world.tracker();
    world.placement.standardTraits.add('CUSTOM_NEW');
    world.placement.touch(NODE_UUID, { traits: ['CUSTOM_NEW', ...world.provider.traits] });

    await tracker.setDisabled(true);

    expect(world.provider.traits).toEqual(expect.arrayContaining(['CUSTOM_NEW', 'COMPUTE_STATUS_DISABLED']));
  });

  it('gives up after four conflicts, and at once when the inventory is in use', async () => {
    const world = new World();
    const tracker = await world.tracker();
    const conflict = (code: string) => new OpenStackError('conflict', { status: 409, code });
    for (let count = 0; count < 4; count += 1) world.placement.failNext(conflict('placement.concurrent_update'));
    const before = world.placement.requests.length;

    await expect(tracker.setDisabled(true)).rejects.toThrow('conflict');
    const attempts = world.placement.requests.length - before;
    world.placement.failNext(conflict('placement.inventory.inuse'));
    await expect(tracker.setDisabled(true)).rejects.toThrow('conflict');

    expect(attempts).toBe(4);
    expect(world.placement.requests.length - before).toBe(5);
  });

  it('says what to do when another provider has the name', async () => {
    const world = new World();
    await world.placement.createProvider('22222222-2222-4222-8222-222222222222', 'fake1');

    await expect(world.tracker()).rejects.toThrow('another resource provider than 11111111');
  });
});

describe('allocations without an instance', () => {
  it('are removed when the instance is deleted, and left alone when it is unknown, alive or hidden', async () => {
    const world = new World();
    const allocation = { [NODE_UUID]: { resources: { VCPU: 1 } } };
    for (const uuid of ['deleted', 'unknown', 'alive', 'hidden', 'here']) {
      world.placement.allocations.set(uuid, { ...allocation });
    }
    world.instances = [instance('here', { host: 'fake1', node: 'fake1' })];
    world.conductor.on('Instance.get_by_uuid', ({ kwargs, context: asked }) => {
      expect(asked.readDeleted).toBe('yes');
      const { uuid } = kwargs as { uuid: string };
      if (uuid === 'unknown') throw remote('InstanceNotFound', 'no such instance');
      return instance(uuid, { deleted: uuid !== 'alive', hidden: uuid === 'hidden' });
    });
    world.conductor.on('Migration.get_by_uuid', () => {
      throw remote('MigrationNotFound', 'no such migration');
    });

    await world.tracker();

    expect([...world.placement.allocations.keys()]).toEqual(['unknown', 'alive', 'hidden', 'here']);
  });

  it('are removed when they are of a move that is confirmed, and left alone while it is not', async () => {
    const world = new World();
    for (const uuid of ['confirmed', 'error', 'finished']) {
      world.placement.allocations.set(uuid, { [NODE_UUID]: { resources: { VCPU: 1 } } });
    }
    world.conductor.on('Instance.get_by_uuid', () => {
      throw remote('InstanceNotFound', 'no such instance');
    });
    world.conductor.on('Migration.get_by_uuid', ({ args: [uuid] }) =>
      createObject('Migration', { uuid: String(uuid), status: String(uuid) }),
    );

    await world.tracker();

    expect([...world.placement.allocations.keys()]).toEqual(['error', 'finished']);
  });
});

describe('provider configuration files', () => {
  const own = { uuid: NODE_UUID, name: 'fake1' };

  async function additions(files: Record<string, string>) {
    const folder = await mkdtemp(join(tmpdir(), 'provider-config-'));
    try {
      for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
      return await readProviderAdditions(folder, own, silentLog);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  it('add custom inventory and traits to the own provider', async () => {
    const found = await additions({
      'a.yaml': `
meta: {schema_version: '1.0'}
providers:
  - identification: {uuid: $COMPUTE_NODE}
    inventories: {additional: [{CUSTOM_LICENSE: {total: 4, allocation_ratio: 2.5}}]}
    traits: {additional: [CUSTOM_FAST]}
  - identification: {name: other}
    traits: {additional: [CUSTOM_SLOW]}
`,
      'b.txt': 'not yaml: [',
    });

    expect(found.traits).toEqual(['CUSTOM_FAST']);
    expect(found.inventories).toEqual({
      CUSTOM_LICENSE: { total: 4, reserved: 0, minUnit: 1, maxUnit: 4, stepSize: 1, allocationRatio: 2.5 },
    });
  });

  it('are refused when they name standard traits, or one provider twice', async () => {
    const file = (provider: string) => `meta: {schema_version: '1.0'}\nproviders: [${provider}]\n`;

    await expect(
      additions({ 'a.yaml': file('{identification: {name: fake1}, traits: {additional: [HW_X]}}') }),
    ).rejects.toThrow('must match pattern');
    await expect(
      additions({
        'a.yaml': file('{identification: {name: fake1}}'),
        'b.yml': file(`{identification: {uuid: ${NODE_UUID}}}`),
      }),
    ).rejects.toThrow('more than once');
    expect(await readProviderAdditions('/no/such/folder', own, silentLog)).toEqual({ inventories: {}, traits: [] });
  });
});
