// Shelving: what is where before, after, and when something fails.
import { describe, expect, it } from 'vitest';
import { offloadShelved } from '#src/compute/periodic/shelved-instances.ts';
import { findInstance, type Instance } from '#src/compute/records.ts';
import { AppError } from '#src/lib/errors.ts';
import { RequestContext } from '#src/nova/context.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { ComputeHarness, IMAGE, instanceOf, networkRequests } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

/** A running instance with a port, being shelved, and the image that the API has made for it. */
async function shelving(harness: ComputeHarness, fields: Json = {}): Promise<Json> {
  const instance = instanceOf();
  const network = harness.neutron.addNetwork({ tenant_id: 'project' });
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  return prepare(harness, instance, { task_state: 'shelving', ...fields });
}

function prepare(harness: ComputeHarness, instance: Json, fields: Json): Json {
  Object.assign(harness.row(instance), fields);
  harness.plane.sent.length = 0;
  harness.plane.events.length = 0;
  harness.moments.length = 0;
  harness.glance.requests.length = 0;
  harness.glance.addQueued('snap');
  return instanceOf(harness.row(instance));
}

/** The same, shelved and off its host, on the way back. */
async function unshelving(harness: ComputeHarness): Promise<Json> {
  const instance = await shelving(harness);
  await harness.send('shelve_instance', { instance, image_id: 'snap', clean_shutdown: false });
  harness.placement.consumers.add(instance['nova_object.data'].uuid);
  harness.tracker.calls.length = 0;
  return prepare(harness, instance, { task_state: 'unshelving' });
}

const context = RequestContext.admin();

/** As a start reads it. */
async function stored({ services: { conductor } }: ComputeHarness, instance: Json): Promise<Instance> {
  const found = await findInstance({ conductor, context }, instance['nova_object.data'].uuid, ['info_cache']);
  if (!found) throw new Error('there is no such instance');
  return found;
}

const sent = { ...IMAGE, id: 'snap' };

describe('shelve_instance', () => {
  it('leaves the image, and nothing on the host', async () => {
    await using harness = new ComputeHarness();
    const instance = await shelving(harness);
    const { uuid } = instance['nova_object.data'];

    await harness.send('shelve_instance', { instance, image_id: 'snap', clean_shutdown: true });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'shelved_offloaded', task_state: null, power_state: 4 });
    expect(harness.row(instance)).toMatchObject({ host: null, node: null, launched_on: null, availability_zone: null });
    expect(harness.row(instance)['system_metadata']).toMatchObject({ shelved_image_id: 'snap', shelved_host: 'fake1' });
    expect(harness.glance.images.get('snap')?.status).toBe('active');
    expect(harness.glance.contents.get('snap')?.toString()).toBe(`root of ${uuid}`);
    expect(harness.virt.instances.size).toBe(0);
    expect(harness.virt.openSnapshots).toBe(0);
    expect(harness.placement.consumers.size).toBe(0);
    expect([...harness.neutron.ports.values()]).toMatchObject([{ device_id: uuid, 'binding:host_id': '' }]);
    const told = ['exists', 'shelve.start', 'shelve.end', 'shelve_offload.start', 'shelve_offload.end'];
    expect(harness.moments).toEqual(told);
  });

  it.each([
    ['the engine takes no snapshot', (harness: ComputeHarness) => harness.virt.failNext('snapshot', new Error('full'))],
    ['the upload fails', ({ glance }: ComputeHarness) => glance.failNext(/^PUT/, new AppError('unavailable', 'down'))],
  ])('leaves a running guest and no image when %s', async (_what, arrange) => {
    await using harness = new ComputeHarness();
    const instance = await shelving(harness);
    arrange(harness);

    await expect(harness.send('shelve_instance', { instance, image_id: 'snap' })).rejects.toThrow();

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: 'fake1' });
    expect(harness.virt.instances.get(instance['nova_object.data'].uuid)?.powerState).toBe(1);
    expect(harness.glance.images.has('snap')).toBe(false);
    expect(harness.plane.faults).toHaveLength(1);
  });

  it('ends without a fault and without an image when the instance is being deleted', async () => {
    await using harness = new ComputeHarness();
    const instance = await shelving(harness);
    harness.plane.next('Instance.save', () => {
      const actual = { instance_uuid: 'u', expected: 'shelving', actual: 'deleting' };
      throw novaException('UnexpectedDeletingTaskStateError', actual);
    });

    await harness.send('shelve_instance', { instance, image_id: 'snap' });

    expect(harness.glance.requests.at(-1)).toBe('DELETE snap');
    expect(harness.plane.faults).toEqual([]);
    expect(harness.row(instance)['task_state']).toBe('shelving');
  });

  it('keeps the guest on the host as long as shelved_offload_time says', async () => {
    await using harness = new ComputeHarness({ config: 'shelved_offload_time = 60' });
    const instance = await shelving(harness);

    await harness.send('shelve_instance', { instance, image_id: 'snap' });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'shelved', task_state: null, host: 'fake1' });
    const { uuid } = instance['nova_object.data'];
    expect(harness.virt.instances.get(uuid)?.powerState).toBe(4);
    expect(harness.placement.consumers.size).toBe(1);

    const offload = prepare(harness, instance, { task_state: 'shelving_offloading' });
    await harness.send('shelve_offload_instance', { instance: offload, clean_shutdown: true });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'shelved_offloaded', task_state: null, host: null });
    expect(harness.virt.instances.size).toBe(0);
  });
});

describe('unshelve_instance', () => {
  it('brings the guest back with its ports, and deletes the image', async () => {
    await using harness = new ComputeHarness();
    const instance = await unshelving(harness);
    const { uuid } = instance['nova_object.data'];

    await harness.send('unshelve_instance', { instance, image: sent, filter_properties: {}, node: 'fake1' });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
    expect(harness.row(instance)).toMatchObject({ host: 'fake1', node: 'fake1', image_ref: 'image-1' });
    expect(Object.keys(harness.row(instance)['system_metadata'])).toEqual(expect.not.arrayContaining(['shelved_at']));
    expect(harness.virt.instances.get(uuid)?.powerState).toBe(1);
    expect([...harness.neutron.ports.values()]).toMatchObject([{ device_id: uuid, 'binding:host_id': 'fake1' }]);
    expect(harness.glance.images.has('snap')).toBe(false);
    expect(harness.placement.consumers.has(uuid)).toBe(true);
    expect(harness.moments).toEqual(['unshelve.start', 'unshelve.end']);
  });

  it('comes back after a try of which the engine could not be told the end', async () => {
    await using harness = new ComputeHarness();
    const instance = await unshelving(harness);
    const { uuid } = instance['nova_object.data'];
    const away = new AppError('unavailable', 'the engine is away');
    const spawn = harness.virt.spawn.bind(harness.virt);
    harness.virt.spawn = async (...args) => {
      await spawn(...args);
      harness.virt.failNext('powerState', away);
      harness.virt.failNext('destroy', away);
    };
    await expect(harness.send('unshelve_instance', { instance, image: sent })).rejects.toThrow('away');
    expect(harness.virt.instances.size).toBe(1);
    harness.virt.spawn = spawn;
    harness.row(instance)['task_state'] = 'unshelving';

    await harness.send('unshelve_instance', { instance: instanceOf(harness.row(instance)), image: sent });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: 'fake1' });
    expect(harness.virt.instances.get(uuid)?.powerState).toBe(1);
  });

  it.each([
    ['the guest does not start', ({ virt }: ComputeHarness) => virt.failNext('spawn', new Error('no'))],
    ['there is no claim', ({ tracker }: ComputeHarness) => tracker.failNext(new Error('no'))],
    [
      'Nova does not take the news',
      (harness: ComputeHarness) => {
        const spawn = harness.virt.spawn.bind(harness.virt);
        harness.virt.spawn = async (...args) => {
          await spawn(...args);
          harness.plane.next('Instance.save', () => {
            throw new AppError('unavailable', 'no');
          });
        };
      },
    ],
  ])('leaves it shelved, with its image, when %s', async (_what, arrange) => {
    await using harness = new ComputeHarness();
    const instance = await unshelving(harness);
    arrange(harness);

    await expect(harness.send('unshelve_instance', { instance, image: sent })).rejects.toThrow('no');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'shelved_offloaded', task_state: null, host: null });
    expect(harness.row(instance)['system_metadata']).toMatchObject({ shelved_image_id: 'snap' });
    expect(harness.glance.images.has('snap')).toBe(true);
    expect(harness.virt.instances.size).toBe(0);
    expect(harness.tracker.claims.size).toBe(harness.tracker.calls.includes('abort') ? 0 : 1);
    expect(harness.placement.consumers.size).toBe(0);
    expect(harness.plane.faults).toHaveLength(1);
  });
});

describe('an unshelving that a killed process left', () => {
  it('is taken back when the guest had been made already', async () => {
    await using harness = new ComputeHarness();
    const instance = await unshelving(harness);
    await harness.send('unshelve_instance', { instance, image: sent });
    const row = harness.row(instance);
    expect(harness.virt.instances.size).toBe(1);
    Object.assign(row, { vm_state: 'shelved_offloaded', task_state: 'spawning' });
    harness.placement.consumers.add(row['uuid']);

    await harness.operations.undoUnshelve(context, await stored(harness, instance));

    expect(row).toMatchObject({ vm_state: 'shelved_offloaded', task_state: null, host: null, node: null });
    expect(harness.virt.instances.size).toBe(0);
    expect(harness.placement.consumers.size).toBe(0);
  });

  it('is taken back when it had only been told of', async () => {
    await using harness = new ComputeHarness();
    const instance = await unshelving(harness);

    await harness.operations.undoUnshelve(context, await stored(harness, instance));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'shelved_offloaded', task_state: null, host: null });
    expect(harness.glance.images.has('snap')).toBe(true);
    expect(harness.placement.consumers.size).toBe(0);
  });

  it('is left to whoever has gone on with it meanwhile', async () => {
    await using harness = new ComputeHarness();
    const instance = await unshelving(harness);
    const before = await stored(harness, instance);
    harness.row(instance)['task_state'] = 'deleting';

    await harness.operations.undoUnshelve(context, before);

    expect(harness.row(instance)).toMatchObject({ task_state: 'deleting' });
    expect(harness.placement.consumers.size).toBe(1);
  });
});

describe('_poll_shelved_instances', () => {
  it.each([
    [59, 'shelved', 'fake1'],
    [61, 'shelved_offloaded', null],
  ])('after %i of 60 seconds an instance is %s', async (seconds, vmState, host) => {
    await using harness = new ComputeHarness({ config: 'shelved_offload_time = 60' });
    const at = new Date(Date.now() - seconds * 1000).toISOString().replace('Z', '000');
    const metadata = { shelved_at: at, shelved_image_id: 'snap' };
    const instance = await shelving(harness, { vm_state: 'shelved', task_state: null, system_metadata: metadata });
    harness.plane.next('InstanceList.get_by_filters', () => ({
      'nova_object.name': 'InstanceList',
      'nova_object.namespace': 'nova',
      'nova_object.version': '2.6',
      'nova_object.data': { objects: [instance] },
    }));

    await offloadShelved(harness.services, harness.operations, AbortSignal.timeout(5000));

    expect(harness.row(instance)).toMatchObject({ vm_state: vmState, task_state: null, host });
  });
});
