// Our conductor client against a real nova-conductor: records of a host of our own, made, changed and removed.
//
// NOVA_TRANSPORT_URL (rabbit://…) names the broker of a Nova cell; the whole file is skipped without it.
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { silentLog } from '#src/lib/log.ts';
import { createRpcTransport } from '#src/messaging/transport.ts';
import type { RpcClient, RpcTransport } from '#src/messaging/types.ts';
import { createConductor, pingConductor } from '#src/nova/conductor.ts';
import { RequestContext } from '#src/nova/context.ts';
import { isRemote } from '#src/nova/exceptions.ts';
import { parseNetworkInfo } from '#src/nova/network-model.ts';
import { type NovaObject, createObject, expectObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Conductor } from '#src/nova/types.ts';
import { describeWith } from '../support.ts';

const transportUrl = process.env['NOVA_TRANSPORT_URL'];

const suite = (): void => {
  const context = RequestContext.admin();
  const host = `it-nova-${randomUUID().slice(0, 8)}`;
  const undo: (() => Promise<unknown>)[] = [];
  let transport: RpcTransport;
  let rpc: RpcClient;
  let conductor: Conductor;

  beforeAll(() => {
    transport = createRpcTransport({ transportUrl: transportUrl ?? '', log: silentLog, programName: 'it-nova' });
    rpc = transport.client();
    conductor = createConductor(rpc);
  });
  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step();
  });
  afterAll(() => transport.close());

  const read = async <N extends 'Service' | 'Instance'>(
    object: N,
    method: string,
    kwargs: Record<string, unknown>,
  ): Promise<NovaObject<N>> => expectObject(await conductor.classMethod(context, { object, method, kwargs }), object);

  const created = async (object: NovaObject): Promise<void> => {
    await conductor.objectMethod(context, object, { method: 'create' });
    undo.push(() => conductor.objectMethod(context, object, { method: 'destroy' }));
  };

  it('is answered', async () => {
    await pingConductor(rpc, context, { timeoutMs: 10_000 });
  });

  it('makes a service, keeps it alive and finds it again', async () => {
    const version = await conductor.classMethod(context, {
      object: 'Service',
      method: 'get_minimum_version',
      args: ['nova-conductor'],
    });
    const missing = await conductor.classMethod(context, {
      object: 'Service',
      method: 'get_by_host_and_binary',
      args: [host, 'nova-compute'],
    });
    expect(version).toBeGreaterThan(0);
    expect(missing).toBeNull();

    const service = createObject('Service', {
      host,
      binary: 'nova-compute',
      topic: 'compute',
      report_count: 0,
      version: Number(version),
    });
    await created(service);
    expect(service.get('id')).toBeGreaterThan(0);
    expect(service.changes()).toEqual([]);

    await conductor.save(context, service.set('report_count', 1));
    expect(service.get('last_seen_up')).toBeInstanceOf(Date);

    const found = await read('Service', 'get_by_host_and_binary', { host, binary: 'nova-compute' });
    expect(found.get('report_count')).toBe(1);
    expect(found.get('version')).toBe(version);
    expect(found.get('disabled')).toBe(false);
  });

  it('makes a compute node with nested objects and saves what changed', async () => {
    const node = createObject('ComputeNode', {
      uuid: randomUUID(),
      host,
      hypervisor_hostname: host,
      hypervisor_type: 'lxc',
      hypervisor_version: 5_000_000,
      vcpus: 2,
      memory_mb: 2048,
      local_gb: 10,
      vcpus_used: 0,
      memory_mb_used: 512,
      local_gb_used: 0,
      cpu_info: '',
      host_ip: '127.0.0.1',
      numa_topology: null,
      metrics: '[]',
      stats: { failed_builds: '0' },
      cpu_allocation_ratio: 4,
      ram_allocation_ratio: 1,
      disk_allocation_ratio: 1,
      mapped: 1, // or the scheduler's host discovery would keep a mapping of it
      supported_hv_specs: [createObject('HVSpec', { arch: 'x86_64', hv_type: 'lxc', vm_mode: 'exe' })],
      pci_device_pools: createObject('PciDevicePoolList', { objects: [] }),
    });
    await created(node);

    await conductor.save(context, node.set('vcpus_used', 1).set('stats', { failed_builds: '1' }));

    const nodes = expectList(
      await conductor.classMethod(context, { object: 'ComputeNodeList', method: 'get_all_by_host', args: [host] }),
      'ComputeNodeList',
    );
    expect(nodes.map((found) => [found.get('vcpus_used'), found.get('stats'), found.get('memory_mb')])).toEqual([
      [1, { failed_builds: '1' }, 2048],
    ]);
    expect(nodes[0]?.get('supported_hv_specs').map((spec) => spec.get('hv_type'))).toEqual(['lxc']);
    expect(nodes[0]?.get('uuid')).toBe(node.get('uuid'));
  });

  const flavor = (id: number): NovaObject<'Flavor'> =>
    createObject('Flavor', {
      id,
      name: `f${id}`,
      flavorid: String(id),
      memory_mb: 64,
      vcpus: 1,
      root_gb: 1,
      ephemeral_gb: 0,
      swap: 0,
      rxtx_factor: 1,
      vcpu_weight: 0,
      disabled: false,
      is_public: true,
      extra_specs: {},
    });

  const newInstance = async (): Promise<NovaObject<'Instance'>> => {
    const instance = createObject('Instance', {
      uuid: randomUUID(),
      project_id: 'it',
      user_id: 'it',
      host,
      node: host,
      display_name: host,
      vm_state: 'active',
      task_state: 'powering-off',
      metadata: {},
      system_metadata: { a: '1', b: '2' },
      flavor: flavor(1),
      old_flavor: null,
      new_flavor: null,
    });
    await created(instance);
    return instance;
  };

  const reread = (instance: NovaObject<'Instance'>): Promise<NovaObject<'Instance'>> =>
    read('Instance', 'get_by_uuid', {
      uuid: instance.get('uuid'),
      expected_attrs: ['flavor', 'metadata', 'system_metadata', 'info_cache'],
    });

  it('saves states with compare and swap', async () => {
    const instance = await newInstance();

    await conductor.save(context, instance.set('vm_state', 'stopped').set('task_state', null), {
      expectedTaskState: ['powering-off', null],
    });
    await conductor.save(context, instance.set('power_state', 4), { expectedTaskState: null });
    const late = conductor.save(context, instance.set('progress', 9), { expectedTaskState: 'powering-off' });

    await expect(late).rejects.toSatisfy((error) => isRemote(error, 'UnexpectedTaskStateError'));
    expect(instance.changes()).toEqual(['progress']);
    const stored = await reread(instance);
    expect([stored.get('vm_state'), stored.get('task_state'), stored.get('power_state')]).toEqual(['stopped', null, 4]);
    expect(stored.get('progress')).not.toBe(9);
  });

  it('replaces whole dicts and leaves alone what is not sent', async () => {
    const instance = await newInstance();
    const stale = await reread(instance);

    await conductor.save(context, instance.set('system_metadata', { a: '1', c: '3' }));
    await conductor.save(context, stale.set('display_description', 'x'));

    const stored = await reread(instance);
    expect(stored.get('system_metadata')).toMatchObject({ a: '1', c: '3' });
    expect(stored.get('system_metadata')).not.toHaveProperty('b');
    expect(stored.get('display_description')).toBe('x');
  });

  it('saves one flavor without losing the others, known here or not', async () => {
    const instance = await newInstance();
    const bare = await read('Instance', 'get_by_uuid', { uuid: instance.get('uuid'), expected_attrs: [] });
    expect(bare.has('flavor')).toBe(false);

    await conductor.save(context, bare.set('new_flavor', flavor(2)));
    const after = await reread(instance);
    await conductor.save(context, after.set('old_flavor', after.get('flavor')));

    const stored = await reread(instance);
    expect(stored.get('flavor').get('name')).toBe('f1');
    expect(stored.get('old_flavor')?.get('name')).toBe('f1');
    expect(stored.get('new_flavor')?.get('name')).toBe('f2');
  });

  it('saves the info cache by itself and through its instance', async () => {
    const instance = await newInstance();
    const cache = createObject('InstanceInfoCache', {
      instance_uuid: instance.get('uuid'),
      network_info: '[{"id": "p1"}]',
    });
    await conductor.save(context, cache);

    const loaded = await reread(instance);
    expect(parseNetworkInfo(loaded.get('info_cache')?.get('network_info') ?? null).map(({ id }) => id)).toEqual(['p1']);
    loaded.get('info_cache')?.set('network_info', '[]');
    await conductor.save(context, loaded);

    expect(parseNetworkInfo((await reread(instance)).get('info_cache')?.get('network_info') ?? null)).toEqual([]);
  });

  it('says that an instance is gone', async () => {
    const instance = await newInstance();
    for (const step of undo.splice(0)) await step();

    const again = conductor.objectMethod(context, instance, { method: 'destroy' });
    await expect(again).rejects.toSatisfy((error) => isRemote(error, 'InstanceNotFound'));

    const deleted = await conductor.classMethod(context.withReadDeleted('yes'), {
      object: 'Instance',
      method: 'get_by_uuid',
      args: [instance.get('uuid')],
    });
    expect(expectObject(deleted, 'Instance').get('deleted')).toBe(true);
  });

  it('reads lists of the host', async () => {
    const instance = await newInstance();

    const list = await conductor.classMethod(context, {
      object: 'InstanceList',
      method: 'get_by_host',
      args: [host],
      kwargs: { expected_attrs: ['info_cache', 'metadata', 'system_metadata', 'numa_topology', 'flavor'] },
    });

    const found = expectList(list, 'InstanceList');
    expect(found.map((item) => item.get('uuid'))).toEqual([instance.get('uuid')]);
    expect(found[0]?.get('flavor').get('vcpus')).toBe(1);
    expect(found[0]?.get('numa_topology')).toBeNull();
  });
};

if (transportUrl === undefined) it.skip('a real nova-conductor (NOVA_TRANSPORT_URL is not set)');
else describeWith({}, 'a real nova-conductor', suite);
