// Resizes on the same host: every step is cast to this compute itself; the tests deliver the casts.
import { AppError } from '#src/lib/errors.ts';
import { describe, expect, it } from 'vitest';
import { ComputeHarness, HOST, instanceOf, object } from '#test/fakes/compute-harness.ts';
import { confirmOldResizes } from '#src/compute/periodic/unconfirmed-resizes.ts';

type Json = Readonly<Record<string, any>>;

const MIGRATION = 'mig';

function flavorOf(id: number, fields: Json = {}): Json {
  return object('Flavor', '1.2', {
    id,
    name: `m${id}`,
    memory_mb: 64 * id,
    vcpus: id,
    root_gb: id,
    ephemeral_gb: 0,
    swap: 0,
    extra_specs: {},
    ...fields,
  });
}

function migrationOf(instance: Json, fields: Json = {}): Json {
  return object('Migration', '1.7', {
    id: 1,
    uuid: MIGRATION,
    instance_uuid: instance['nova_object.data'].uuid,
    source_compute: HOST,
    source_node: HOST,
    dest_compute: null,
    dest_node: null,
    dest_host: null,
    old_instance_type_id: 1,
    new_instance_type_id: 2,
    status: 'accepted',
    migration_type: 'resize',
    ...fields,
  });
}

async function guest(harness: ComputeHarness, fields: Json = {}): Promise<Json> {
  const built = instanceOf();
  await harness.build(built);
  const data = {
    ...harness.row(built),
    task_state: 'resize_prep',
    instance_type_id: 1,
    flavor: flavorOf(1),
    old_flavor: null,
    new_flavor: null,
    ...fields,
  };
  const instance = object('Instance', '2.7', data);
  harness.plane.add(instance);
  const { uuid } = data as Json;
  if (data['vm_state' as never] === 'stopped') {
    await harness.virt.powerOff(uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));
  }
  // as the conductor leaves it: the old allocation belongs to the migration, the new one to the instance
  harness.placement.consumers.add(MIGRATION);
  harness.plane.faults.length = 0;
  harness.plane.events.length = 0;
  harness.plane.sent.length = 0;
  harness.plane.casts.length = 0;
  harness.moments.length = 0;
  harness.tracker.calls.length = 0;
  return instance;
}

function prepArgs(instance: Json, flavor: Json, fields: Json = {}): Json {
  return {
    instance,
    flavor,
    image: {},
    request_spec: null,
    filter_properties: { retry: { num_attempts: 1, hosts: [[HOST, HOST]] } },
    node: HOST,
    migration: migrationOf(instance),
    clean_shutdown: true,
    host_list: [],
    ...fields,
  };
}

/** Delivers the casts to this host until there are none; the methods in their order. */
async function deliver(harness: ComputeHarness): Promise<readonly string[]> {
  const methods: string[] = [];
  for (let cast = take(harness); cast; cast = take(harness)) {
    methods.push(cast.method);
    await harness.send(cast.method, cast.args as Json);
  }
  return methods;
}

function take(harness: ComputeHarness) {
  const index = harness.plane.casts.findIndex(({ target }) => target.topic === 'compute' && target.server === HOST);
  return index < 0 ? undefined : harness.plane.casts.splice(index, 1)[0];
}

function statuses(harness: ComputeHarness): readonly unknown[] {
  return harness.plane
    .named('Migration.save')
    .flatMap(({ changes }) => ('status' in changes ? [changes['status']] : []));
}

function stored(harness: ComputeHarness, instance: Json): Json {
  return object('Instance', '2.7', harness.row(instance));
}

async function resized(harness: ComputeHarness, instance: Json): Promise<Json> {
  await harness.send('prep_resize', prepArgs(instance, flavorOf(2)));
  await deliver(harness);
  return stored(harness, instance);
}

const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

const specOf = (harness: ComputeHarness, instance: Json) =>
  harness.virt.instances.get(instance['nova_object.data'].uuid);

describe('a resize', () => {
  it('gives the guest the new flavor and waits to be confirmed', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);

    await harness.send('prep_resize', prepArgs(instance, flavorOf(2)));
    const steps = await deliver(harness);

    expect(steps).toEqual(['resize_instance', 'finish_resize']);
    expect(harness.row(instance)).toMatchObject({
      vm_state: 'resized',
      task_state: null,
      instance_type_id: 2,
      memory_mb: 128,
      vcpus: 2,
      root_gb: 2,
      host: HOST,
      system_metadata: { old_vm_state: 'active' },
    });
    expect(harness.row(instance)['old_flavor']['nova_object.data'].id).toBe(1);
    expect(specOf(harness, instance)).toMatchObject({
      spec: { flavor: { vcpus: 2, memoryMib: 128, rootGib: 2 } },
      powerState: 1,
    });
    expect(statuses(harness)).toEqual(['migrating', 'post-migrating', 'finished']);
    expect(harness.tracker.calls).toEqual(['resizeClaim', 'keepRoom m1', 'updateUsage']);
    expect(harness.placement.consumers).toEqual(new Set([instance['nova_object.data'].uuid, MIGRATION]));
    expect(harness.moments).toEqual([
      'exists',
      'resize_prep.start',
      'resize_prep.end',
      'resize.start',
      'resize.end',
      'resize_finish.start',
      'resize_finish.end',
    ]);
    expect(harness.plane.events.map(({ event, result }) => `${event} ${result}`)).toEqual([
      'compute_prep_resize Success',
      'compute_resize_instance Success',
      'compute_finish_resize Success',
    ]);
  });

  it('leaves a stopped guest off, also after a confirmation and after a revert', async () => {
    for (const [method, ends] of [
      ['confirm_resize', 'finished'],
      ['revert_resize', 'reverting'],
    ] as const) {
      await using harness = new ComputeHarness();
      const instance = await guest(harness, { vm_state: 'stopped' });
      const after = await resized(harness, instance);
      expect(specOf(harness, instance)?.powerState).toBe(4);

      await end(harness, after, method, ends);

      expect(harness.row(instance)).toMatchObject({ vm_state: 'stopped', task_state: null });
      expect(specOf(harness, instance)?.powerState).toBe(4);
    }
  });

  it('to a smaller disk is refused: the instance is active as before, with the fault', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);

    const failure = await failureOf(harness.send('prep_resize', prepArgs(instance, flavorOf(3, { root_gb: 0 }))));

    expect(failure).toMatchObject({ novaName: 'ResizeError' });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, new_flavor: null });
    expect(harness.plane.faults).toMatchObject([{ message: 'Resize error: Unable to resize disk down.' }]);
    expect(statuses(harness)).toEqual(['error']);
    expect(harness.placement.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
    expect(specOf(harness, instance)).toMatchObject({ powerState: 1, spec: { flavor: { memoryMib: 64 } } });
  });

  it.each([
    ['processors of its own', { extra_specs: { 'hw:cpu_policy': 'dedicated' } }, 'dedicated CPUs cannot be moved'],
    ['what the driver does not take', { extra_specs: { 'fake:refused': '1' } }, 'fake:refused'],
  ])('to %s is refused, the instance is active as before', async (_what, fields, reason) => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);

    const failure = await failureOf(harness.send('prep_resize', prepArgs(instance, flavorOf(3, fields))));

    expect(failure).toMatchObject({ novaName: 'ResizeError' });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, new_flavor: null });
    expect(harness.plane.faults[0]?.['message']).toContain(reason);
  });

  it('of a guest of another kind is refused, and its allocation goes back', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness, { host: 'other', node: 'other' });
    const migration = migrationOf(instance, { source_compute: 'other' });
    const node = object('ComputeNode', '1.19', { id: 9, host: 'other', hypervisor_type: 'QEMU' });
    harness.plane.next('ComputeNode.get_by_host_and_nodename', () => node);

    const failure = await failureOf(harness.send('prep_resize', prepArgs(instance, flavorOf(2), { migration })));

    expect(failure).toMatchObject({ novaName: 'MigrationPreCheckError' });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(harness.placement.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
    expect(statuses(harness)).toEqual(['error']);
    expect(harness.plane.casts).toEqual([]);
  });

  it('that is refused here is handed back to the conductor while there are other hosts', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);
    const hostList = [object('Selection', '1.1', { service_host: 'other', nodename: 'other' })];
    const args = prepArgs(instance, flavorOf(2, { root_gb: 0 }), { host_list: hostList });

    await harness.send('prep_resize', args);

    expect(harness.plane.casts.map(({ method }) => method)).toEqual(['migrate_server']);
    expect(harness.plane.faults).toHaveLength(1);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: 'resize_prep' });
  });

  it('to the same flavor is no move', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);

    const failure = await failureOf(harness.send('prep_resize', prepArgs(instance, flavorOf(1))));

    expect(failure).toMatchObject({ novaName: 'UnableToMigrateToSelf' });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
  });

  it('that the engine refuses leaves the instance in error, charged for the new flavor only', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);
    harness.virt.failNext('resize', new AppError('invalid', 'no room'));

    await harness.send('prep_resize', prepArgs(instance, flavorOf(2)));
    await failureOf(deliver(harness));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(statuses(harness).at(-1)).toBe('error');
    expect(harness.placement.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
  });

  it('whose guest cannot be stopped gives the old allocation back', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);
    harness.virt.failNext('powerOff', new AppError('unavailable', 'does not stop'));

    await harness.send('prep_resize', prepArgs(instance, flavorOf(2)));
    const failure = await failureOf(deliver(harness));

    expect(failure).toMatchObject({ novaName: 'InstancePowerOffFailure' });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.placement.requests.at(-1)).toBe(`POST ${MIGRATION} ${instance['nova_object.data'].uuid}`);
    expect(harness.moments).toContain('resize.error');
  });
});

/** What the API does, and the steps that follow. */
async function end(
  harness: ComputeHarness,
  instance: Json,
  method: 'confirm_resize' | 'revert_resize',
  status: string,
): Promise<readonly string[]> {
  const migration = migrationOf(instance, { dest_compute: HOST, dest_node: HOST, status });
  if (method === 'revert_resize') harness.row(instance)['task_state'] = 'resize_reverting';
  const subject = stored(harness, instance);
  harness.plane.next('Instance.get_by_uuid', () => subject);
  await harness.send(method, { instance: subject, migration, request_spec: null });
  return deliver(harness);
}

describe('a confirmation', () => {
  it('keeps the new flavor and gives the room of the old one back', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);
    const after = await resized(harness, instance);

    await end(harness, after, 'confirm_resize', 'confirming');

    expect(harness.row(instance)).toMatchObject({
      vm_state: 'active',
      task_state: null,
      instance_type_id: 2,
      old_flavor: null,
      new_flavor: null,
    });
    expect(harness.row(instance)['system_metadata']).not.toHaveProperty('old_vm_state');
    expect(statuses(harness).at(-1)).toBe('confirmed');
    expect(harness.tracker.calls.at(-1)).toBe('keepRoom none');
    expect(harness.plane.named('Instance.drop_migration_context')).toHaveLength(1);
    expect(harness.placement.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
    expect(specOf(harness, instance)).toMatchObject({ powerState: 1, spec: { flavor: { memoryMib: 128 } } });
  });

  it('of a resize that is confirmed already changes nothing', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);
    const after = await resized(harness, instance);

    await end(harness, after, 'confirm_resize', 'confirmed');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'resized' });
    expect(harness.placement.consumers.has(MIGRATION)).toBe(true);
  });
});

describe('a revert', () => {
  it('gives the guest the old flavor again, and its allocation', async () => {
    await using harness = new ComputeHarness();
    const instance = await guest(harness);
    const after = await resized(harness, instance);

    const steps = await end(harness, after, 'revert_resize', 'reverting');

    expect(steps).toEqual(['finish_revert_resize']);
    expect(harness.row(instance)).toMatchObject({
      vm_state: 'active',
      task_state: null,
      instance_type_id: 1,
      memory_mb: 64,
      vcpus: 1,
      root_gb: 1,
      old_flavor: null,
    });
    expect(statuses(harness).at(-1)).toBe('reverted');
    expect(harness.tracker.calls.slice(-2)).toEqual(['keepRoom none', 'updateUsage']);
    expect(harness.placement.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
    expect(harness.placement.requests.at(-1)).toBe(`POST ${MIGRATION} ${instance['nova_object.data'].uuid}`);
    expect(specOf(harness, instance)).toMatchObject({ powerState: 1, spec: { flavor: { memoryMib: 64, rootGib: 1 } } });
  });
});

describe('resize_confirm_window', () => {
  it.each([
    [{ vm_state: 'resized', task_state: null }, 'confirming', ['confirm_resize']],
    [{ vm_state: 'resized', task_state: 'deleting' }, undefined, []],
    [{ vm_state: 'error', task_state: null }, 'error', []],
  ])('of an instance in %o makes the migration %s', async (state, status, methods) => {
    await using harness = new ComputeHarness({ config: 'resize_confirm_window = 30\n' });
    const instance = instanceOf({ host: HOST, ...state });
    harness.plane.add(instance);
    const migration = migrationOf(instance, { dest_compute: HOST, status: 'finished' });
    harness.plane.next('MigrationList.get_unconfirmed_by_dest_compute', () =>
      object('MigrationList', '1.5', { objects: [migration] }),
    );
    harness.plane.next('Instance.get_by_uuid', () => instance);

    await confirmOldResizes(harness.services);

    expect(harness.plane.named('MigrationList.get_unconfirmed_by_dest_compute')[0]?.args).toEqual([30, HOST]);
    expect(statuses(harness)).toEqual(status === undefined ? [] : [status]);
    expect(harness.plane.casts.map(({ method }) => method)).toEqual(methods);
    expect(harness.plane.named('InstanceAction.action_start')).toHaveLength(methods.length);
  });
});
