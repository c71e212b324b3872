// Rebuild: the same instance, ports and host with another root; what is refused changes nothing.
import { describe, expect, it } from 'vitest';
import { ComputeHarness, instanceOf, networkRequests } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

/** An instance with a port, for which the API has entered the new image. */
async function rebuilding(harness: ComputeHarness, fields: Json = {}): Promise<Json> {
  const instance = instanceOf();
  const network = harness.neutron.addNetwork({ tenant_id: 'project' });
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  const entered = { image_ref: 'new', system_metadata: { image_base_image_ref: 'new' } };
  Object.assign(harness.row(instance), { task_state: 'rebuilding', ...entered, ...fields });
  harness.plane.sent.length = 0;
  harness.plane.events.length = 0;
  harness.moments.length = 0;
  harness.neutron.requests.length = 0;
  harness.glance.addActive('new');
  return instanceOf(harness.row(instance));
}

const argsOf = (instance: Json, args: Json = {}): Json => ({
  instance,
  image_ref: 'new',
  orig_image_ref: 'image-1',
  orig_sys_metadata: { image_base_image_ref: 'image-1' },
  injected_files: [],
  bdms: null,
  recreate: false,
  preserve_ephemeral: false,
  migration: null,
  ...args,
});

describe('rebuild_instance', () => {
  it('makes the guest anew from the image, with its ports', async () => {
    await using harness = new ComputeHarness();
    const instance = await rebuilding(harness);
    const { uuid } = instance['nova_object.data'];
    const before = harness.virt.instances.get(uuid);

    await harness.send('rebuild_instance', argsOf(instance));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: 'fake1' });
    expect(harness.row(instance)).toMatchObject({ image_ref: 'new', power_state: 1 });
    const after = harness.virt.instances.get(uuid);
    expect(after).not.toBe(before);
    expect(after?.powerState).toBe(1);
    expect(harness.neutron.requests.map(({ what }) => what).filter((what) => !what.startsWith('GET'))).toEqual([]);
    const ports = [...harness.neutron.ports.values()];
    expect(ports).toMatchObject([{ device_id: uuid, 'binding:host_id': 'fake1' }]);
    expect(harness.placement.requests).toEqual([]);
    expect(harness.moments).toEqual(['exists', 'rebuild.start', 'rebuild.end']);
  });

  it('leaves an instance that was stopped stopped', async () => {
    await using harness = new ComputeHarness();
    const instance = await rebuilding(harness, { vm_state: 'stopped', power_state: 4 });

    await harness.send('rebuild_instance', argsOf(instance));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'stopped', task_state: null, power_state: 4 });
    expect(harness.moments).toEqual(['exists', 'rebuild.start', 'power_off.start', 'power_off.end', 'rebuild.end']);
  });

  it.each([
    ['preserve_ephemeral', { preserve_ephemeral: true }, 'Preserving ephemeral disks is not supported'],
    ['an image that is not there', { image_ref: 'gone' }, 'gone'],
  ])('refuses %s, and keeps guest, image and state', async (_what, args, complaint) => {
    await using harness = new ComputeHarness();
    const instance = await rebuilding(harness);
    const { uuid } = instance['nova_object.data'];
    const before = harness.virt.instances.get(uuid);

    await expect(harness.send('rebuild_instance', argsOf(instance, args))).rejects.toThrow(complaint);

    expect(harness.virt.instances.get(uuid)).toBe(before);
    const restored = { image_ref: 'image-1', system_metadata: { image_base_image_ref: 'image-1' } };
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, ...restored });
    expect(harness.moments).toContain('rebuild.error');
    expect(harness.plane.faults).toHaveLength(1);
  });

  it('puts the instance into error when the new guest does not start', async () => {
    await using harness = new ComputeHarness();
    const instance = await rebuilding(harness);
    harness.virt.failNext('spawn', new Error('no'));

    await expect(harness.send('rebuild_instance', argsOf(instance))).rejects.toThrow('no');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.plane.faults).toHaveLength(1);
    expect([...harness.neutron.ports.values()]).toHaveLength(1);
  });
});
