// Rescue: another guest in the place of the instance's own, and back; what fails or is interrupted loses nothing.
import { describe, expect, it } from 'vitest';
import { endOldRescues } from '#src/compute/periodic/rescued-instances.ts';
import { RequestContext } from '#src/nova/context.ts';
import { expectObject, fromPrimitive } from '#src/nova/objects/object.ts';
import { AppError } from '#src/lib/errors.ts';
import { ComputeHarness, HOST, instanceOf, networkRequests, object } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

async function rescuing(harness: ComputeHarness, fields: Json = {}): Promise<Json> {
  const instance = instanceOf();
  const network = harness.neutron.addNetwork({ tenant_id: 'project' });
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  Object.assign(harness.row(instance), { task_state: 'rescuing', ...fields });
  harness.plane.sent.length = 0;
  harness.plane.events.length = 0;
  harness.moments.length = 0;
  harness.glance.addActive('image-1');
  harness.glance.addActive('rescue-image');
  return instanceOf(harness.row(instance));
}

const argsOf = (instance: Json, args: Json = {}): Json => ({
  instance,
  rescue_password: 'very-secret',
  rescue_image_ref: 'rescue-image',
  clean_shutdown: true,
  ...args,
});

async function rescued(harness: ComputeHarness): Promise<Json> {
  const instance = await rescuing(harness);
  await harness.send('rescue_instance', argsOf(instance));
  harness.moments.length = 0;
  return instanceOf(harness.row(instance));
}

const guestOf = (harness: ComputeHarness, { 'nova_object.data': { uuid } }: Json) => {
  const guest = harness.virt.instances.get(uuid);
  if (!guest) throw new Error('no guest');
  return guest;
};

describe('rescue_instance', () => {
  it('starts a guest of the image with the ports and the password; the own one waits', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescuing(harness);
    const own = guestOf(harness, instance);

    await harness.send('rescue_instance', argsOf(instance));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'rescued', task_state: null, power_state: 1 });
    const guest = guestOf(harness, instance);
    expect(guest.rescued).toBe(own);
    expect(guest.spec.image?.id).toBe('rescue-image');
    expect(guest.nics).toHaveLength(1);
    expect(harness.virt.passwords.get(instance['nova_object.data'].uuid)).toBe('very-secret');
    expect(harness.moments).toEqual(['rescue.start', 'exists', 'rescue.end']);
    expect(harness.plane.events).toMatchObject([{ event: 'compute_rescue_instance', result: 'Success' }]);
    expect(JSON.stringify(harness.log.lines)).not.toContain('very-secret');
  });

  it('takes the image that the own one was made from when none is asked for', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescuing(harness, { image_ref: 'snapshot' });

    await harness.send('rescue_instance', argsOf(instance, { rescue_image_ref: null }));

    expect(guestOf(harness, instance).spec.image?.id).toBe('image-1');
  });

  it.each([
    ['an image that is not there', { rescue_image_ref: 'gone' }, true, 'gone'],
    ['what the engine cannot do', {}, false, 'cannot be rescued'],
  ])('refuses %s, and the guest runs on', async (_what, args, canRescue, complaint) => {
    await using harness = new ComputeHarness();
    const instance = await rescuing(harness);
    harness.virt.canRescue = canRescue;

    await expect(harness.send('rescue_instance', argsOf(instance, args))).rejects.toThrow(complaint);

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(guestOf(harness, instance).powerState).toBe(1);
    expect(harness.moments).not.toContain('rescue.start');
    expect(harness.plane.faults).toHaveLength(1);
  });

  it('puts the instance into error when the engine fails; a hard reboot starts its own guest', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescuing(harness);
    const own = guestOf(harness, instance);
    harness.virt.failNext('rescue', new AppError('internal', 'no room'));

    await expect(harness.send('rescue_instance', argsOf(instance))).rejects.toThrow('Driver Error: no room');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.plane.faults).toMatchObject([{ code: 400 }]);
    Object.assign(harness.row(instance), { task_state: 'rebooting_hard' });
    await harness.send('reboot_instance', { instance: instanceOf(harness.row(instance)), reboot_type: 'HARD' });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(guestOf(harness, instance)).toBe(own);
    expect(own.powerState).toBe(1);
  });

  it('does not fail for a guest without passwords', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescuing(harness);
    harness.virt.failNext('setPassword', new AppError('unsupported', 'no chpasswd'));

    await harness.send('rescue_instance', argsOf(instance));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'rescued', task_state: null });
  });
});

describe('a rescued instance', () => {
  it('has its own guest back when it is unrescued', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescued(harness);
    const own = guestOf(harness, instance).rescued;
    Object.assign(harness.row(instance), { task_state: 'unrescuing' });

    await harness.send('unrescue_instance', { instance: instanceOf(harness.row(instance)) });

    expect(guestOf(harness, instance)).toBe(own);
    expect(own?.powerState).toBe(1);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
    expect(harness.moments).toEqual(['unrescue.start', 'unrescue.end']);
  });

  it('is in error when that fails', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescued(harness);
    Object.assign(harness.row(instance), { task_state: 'unrescuing' });
    harness.virt.failNext('powerOn', new Error('no'));

    const sent = harness.send('unrescue_instance', { instance: instanceOf(harness.row(instance)) });

    await expect(sent).rejects.toThrow('no');
    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
  });

  it('stays rescued over a reboot', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescued(harness);
    const guest = guestOf(harness, instance);
    Object.assign(harness.row(instance), { task_state: 'rebooting_hard' });

    await harness.send('reboot_instance', { instance: instanceOf(harness.row(instance)), reboot_type: 'HARD' });

    expect(guestOf(harness, instance)).toBe(guest);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'rescued', task_state: null });
  });

  it('is gone as a whole when it is deleted', async () => {
    await using harness = new ComputeHarness();
    const instance = await rescued(harness);
    Object.assign(harness.row(instance), { task_state: 'deleting' });

    await harness.send('terminate_instance', { instance: instanceOf(harness.row(instance)), bdms: null });

    expect(harness.virt.instances.size).toBe(0);
    expect(harness.neutron.ports.size).toBe(0);
  });

  it('is unrescued when its time is over', async () => {
    await using harness = new ComputeHarness({ config: 'rescue_timeout = 30\n' });
    const old = instanceOf({ host: HOST, vm_state: 'rescued', task_state: null, launched_at: '2020-01-01T00:00:00Z' });
    const fresh = instanceOf({
      host: HOST,
      vm_state: 'rescued',
      task_state: null,
      launched_at: new Date().toISOString().replace(/\.\d+/, ''),
    });
    for (const instance of [old, fresh]) harness.plane.add(instance);
    harness.plane.next('InstanceList.get_by_filters', () => object('InstanceList', '2.6', { objects: [old, fresh] }));

    await endOldRescues(harness.services);

    expect(harness.row(old)['task_state']).toBe('unrescuing');
    expect(harness.row(fresh)['task_state']).toBe(null);
    expect(harness.plane.casts.map(({ method }) => method)).toEqual(['unrescue_instance']);
    expect(harness.plane.named('InstanceAction.action_start')[0]?.args).toEqual([
      old['nova_object.data'].uuid,
      'unrescue',
    ]);
  });
});

describe('a rescue that was interrupted', () => {
  it.each([true, false])('is taken back; that the guest came up: %s', async (cameUp) => {
    await using harness = new ComputeHarness();
    const instance = await rescuing(harness);
    const own = guestOf(harness, instance);
    if (cameUp) {
      await harness.send('rescue_instance', argsOf(instance));
      Object.assign(harness.row(instance), { vm_state: 'active', task_state: 'rescuing' });
    }
    const read = expectObject(fromPrimitive(instanceOf(harness.row(instance))), 'Instance');

    await harness.operations.undoRescue(RequestContext.admin(), read);

    expect(guestOf(harness, instance)).toBe(own);
    expect(own.powerState).toBe(1);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
  });
});
