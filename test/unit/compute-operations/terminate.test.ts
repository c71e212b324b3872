// The end of an instance: complete, once or twice, whatever is missing.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { ComputeHarness, HOST, instanceOf, networkRequests } from '#test/fakes/compute-harness.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';

type Json = Readonly<Record<string, any>>;

/** An active instance with a port, and the object that the API would send of it. */
async function activeInstance(harness: ComputeHarness): Promise<Json> {
  const network = harness.neutron.addNetwork();
  const instance = instanceOf();
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  harness.row(instance)['task_state'] = 'deleting';
  harness.plane.sent.length = 0;
  harness.plane.casts.length = 0;
  harness.plane.events.length = 0;
  harness.placement.requests.length = 0;
  harness.neutron.requests.length = 0;
  harness.tracker.calls.length = 0;
  return instanceOf(harness.row(instance));
}

describe('terminate_instance', () => {
  it('removes guest, interface, port, allocation and record, and tells the scheduler', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);

    await harness.send('terminate_instance', { instance, bdms: null });

    expect(harness.virt.instances.size).toBe(0);
    expect(harness.vif.plugged.size).toBe(0);
    expect(harness.neutron.ports.size).toBe(0);
    expect(harness.plane.instances.size).toBe(0);
    expect(harness.placement.consumers.size).toBe(0);
    expect(harness.neutron.names).toEqual(['GET ports', 'DELETE port']);
    expect(harness.plane.casts.map(({ method }) => method)).toEqual(['delete_instance_info']);
    expect(harness.tracker.calls).toEqual(['updateUsage']);
    expect(harness.plane.events).toEqual([{ event: 'compute_terminate_instance', result: 'Success', details: null }]);
    const [save] = harness.plane.named('Instance.save');
    expect(save?.changes).toMatchObject({ vm_state: 'deleted', task_state: null, power_state: 0 });
    expect(save?.kwargs).toEqual({});
  });

  it('unplugs what a killed build had plugged but not yet noted', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    const [port] = [...harness.neutron.ports.keys()];
    harness.row(instance)['info_cache']['nova_object.data'].network_info = '[]';

    await harness.send('terminate_instance', { instance: instanceOf(harness.row(instance)), bdms: null });

    expect(harness.vif.calls).toContain(`unplug ${port}`);
    expect(harness.vif.plugged.size).toBe(0);
  });

  it('deletes the record last', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);

    await harness.send('terminate_instance', { instance });

    expect(harness.plane.names.slice(-2)).toEqual([
      'Instance.destroy',
      'InstanceActionEvent.event_finish_with_failure',
    ]);
  });

  it('succeeds for an instance that never reached this engine', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf({ host: HOST, vm_state: 'error', task_state: 'deleting' });
    harness.plane.add(instance);

    await harness.send('terminate_instance', { instance });

    expect(harness.plane.instances.size).toBe(0);
    expect(harness.plane.faults).toEqual([]);
  });

  it('succeeds the second time', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    await harness.send('terminate_instance', { instance });

    await harness.send('terminate_instance', { instance });

    expect(harness.plane.faults).toEqual([]);
    expect(harness.plane.events.map(({ result }) => result)).toEqual(['Success', 'Success']);
  });

  it('puts the instance into error when the guest cannot be removed, and gives nothing back', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    harness.virt.failNext('destroy', new AppError('unavailable', 'the engine does not answer'));

    await expect(harness.send('terminate_instance', { instance })).rejects.toThrow('the engine does not answer');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.neutron.ports.size).toBe(1);
    expect(harness.plane.faults).toMatchObject([{ code: 500, message: 'AppError' }]);
    expect(harness.plane.faults[0]?.['details']).toContain('the engine does not answer');
    expect(harness.plane.events).toMatchObject([{ result: 'Error' }]);
    expect(harness.moments).toContain('failure terminate_instance');
  });

  it('can be repeated after Neutron failed half-way', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    harness.neutron.fail('DELETE port', new AppError('unavailable', 'neutron'));
    await expect(harness.send('terminate_instance', { instance })).rejects.toThrow('neutron');

    await harness.send('terminate_instance', { instance: instanceOf(harness.row(instance)) });

    expect(harness.neutron.ports.size).toBe(0);
    expect(harness.plane.instances.size).toBe(0);
  });

  it("deletes ports with its own rights when the user's token has expired", async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    harness.neutron.fail('DELETE port', new AppError('unauthorized', 'token expired'));

    await harness.send('terminate_instance', { instance });

    expect(harness.neutron.requests.filter(({ what }) => what === 'DELETE port').map(({ as }) => as)).toEqual([
      'user',
      'service',
    ]);
    expect(harness.plane.instances.size).toBe(0);
  });

  it('keeps the record when the allocation cannot be deleted', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    harness.placement.failNext(new AppError('unavailable', 'placement'));

    await expect(harness.send('terminate_instance', { instance })).rejects.toThrow('placement');

    expect(harness.plane.named('Instance.destroy')).toEqual([]);
    expect(harness.row(instance)['vm_state']).toBe('error');
  });

  it('takes the allocation back gently where deletions may be delayed', async () => {
    await using harness = new ComputeHarness({ config: 'reclaim_instance_interval = 3600' });
    const instance = await activeInstance(harness);

    await harness.send('terminate_instance', { instance });

    expect(harness.placement.requests.map((request) => request.split(' ')[0])).toEqual(['PUT']);
  });

  it('serves two deletions of one instance one after the other', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);

    await Promise.all([
      harness.send('terminate_instance', { instance }),
      harness.send('terminate_instance', { instance }),
    ]);

    expect(harness.plane.instances.size).toBe(0);
    expect(harness.plane.faults).toEqual([]);
  });

  it('does not begin when the action of the request is not known', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    harness.plane.next('InstanceActionEvent.event_start', () => {
      throw remote('InstanceActionNotFound', 'Action not found');
    });

    await expect(harness.send('terminate_instance', { instance })).rejects.toThrow('Action not found');

    expect(harness.virt.instances.size).toBe(1);
  });
});

describe('completing a deletion of which the record is left', () => {
  it('drops usage, allocation and record without touching the engine', async () => {
    await using harness = new ComputeHarness();
    const instance = await activeInstance(harness);
    const { RequestContext } = await import('#src/nova/context.ts');
    const { expectObject, fromPrimitive } = await import('#src/nova/objects/object.ts');

    await harness.operations.completeDeletion(
      RequestContext.admin(),
      expectObject(fromPrimitive(instance), 'Instance'),
    );

    expect(harness.plane.instances.size).toBe(0);
    expect(harness.placement.consumers.size).toBe(0);
    expect(harness.virt.instances.size).toBe(1);
  });
});
