// Evacuations: made anew here from the image, with the ports; what fails can be evacuated again.
import { describe, expect, it } from 'vitest';
import { object } from '#test/fakes/compute-harness.ts';
import { SOURCE, TARGET, TwoComputes } from '#test/fakes/moving.ts';

type Json = Readonly<Record<string, any>>;

const FAILED_BUILD = new Error('no');

/** A server of a host that is down, as the conductor hands it over. */
async function lost(computes: TwoComputes, fields: Json = {}): Promise<Json> {
  const instance = await computes.server({ task_state: 'rebuilding', migration_context: null, ...fields });
  computes.migration(instance, { migration_type: 'evacuation' });
  computes.source.glance.addActive('image-1');
  computes.target.glance.addActive('image-1');
  return instance;
}

async function evacuate(computes: TwoComputes, instance: Json, args: Json = {}): Promise<void> {
  await computes.target.send('rebuild_instance', {
    instance: computes.stored(instance),
    image_ref: 'image-1',
    orig_image_ref: 'image-1',
    orig_sys_metadata: null,
    injected_files: [],
    bdms: null,
    recreate: true,
    on_shared_storage: null,
    preserve_ephemeral: false,
    migration: object('Migration', '1.7', computes.plane.migrations.get(1) ?? {}),
    scheduled_node: TARGET,
    ...args,
  });
}

const guestAtTarget = (computes: TwoComputes, instance: Json) => computes.guests(instance)[1];

describe('an evacuation', () => {
  it('makes the server anew with its ports, and Nova has it here', async () => {
    await using computes = new TwoComputes();
    const instance = await lost(computes);

    await evacuate(computes, instance);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: TARGET });
    expect(guestAtTarget(computes, instance)).toMatchObject({ powerState: 1, nics: [{}] });
    expect([...computes.source.neutron.ports.values()]).toMatchObject([{ 'binding:host_id': TARGET }]);
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'done', dest_compute: TARGET });
    expect(computes.target.tracker.calls).toEqual(['resizeClaim', 'keepRoom none', 'updateUsage']);
    expect(computes.target.moments).toEqual(['exists', 'rebuild.start', 'rebuild.end']);
  });

  it.each([
    ['that was stopped', { vm_state: 'stopped', power_state: 4 }, {}, 'stopped', 4],
    ['that was in error', { vm_state: 'error' }, {}, 'active', 1],
    ['that is to be stopped', {}, { target_state: 'stopped' }, 'stopped', 4],
  ] as const)('of a server %s', async (...[, fields, args, vmState, power]) => {
    await using computes = new TwoComputes();
    const instance = await lost(computes, fields);

    await evacuate(computes, instance, args);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: vmState, task_state: null, host: TARGET });
    expect(guestAtTarget(computes, instance)).toMatchObject({ powerState: power });
  });

  it('that fails leaves nothing here but the fault, and its part of the allocation goes', async () => {
    await using computes = new TwoComputes();
    const instance = await lost(computes);
    computes.target.virt.failNext('spawn', FAILED_BUILD);

    await expect(evacuate(computes, instance)).rejects.toThrow('no');

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'error', task_state: null, host: SOURCE });
    expect(guestAtTarget(computes, instance)).toBeUndefined();
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'failed' });
    expect(computes.source.placement.requests.at(-1)).toMatch(/^PUT .* without /);
    expect(computes.target.vif.plugged.size).toBe(0);
    expect(computes.plane.faults).toHaveLength(1);
  });

  it('to a host that has such a guest leaves that alone', async () => {
    await using computes = new TwoComputes();
    const instance = await lost(computes);
    const { uuid } = instance['nova_object.data'];
    const present = computes.source.virt.instances.get(uuid);
    if (present) computes.target.virt.instances.set(uuid, present);

    await expect(evacuate(computes, instance)).rejects.toMatchObject({ novaName: 'InstanceExists' });

    expect(guestAtTarget(computes, instance)).toBe(present);
    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'error', host: SOURCE });
  });

  it('of a server that is deleted meanwhile does not put it into error', async () => {
    await using computes = new TwoComputes();
    const instance = await lost(computes);
    const message = computes.stored(instance);
    computes.source.row(instance)['task_state'] = 'deleting';

    await expect(evacuate(computes, instance, { instance: message })).rejects.toMatchObject({
      remoteClass: 'UnexpectedDeletingTaskStateError',
    });

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active' });
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'failed' });
  });
});
