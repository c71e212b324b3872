// The endpoints: which methods there are, what they check, and how the unsupported ones refuse.
import { describe, expect, it } from 'vitest';
import { serializeNovaFailure } from '#src/nova/exceptions.ts';
import { buildArgs, ComputeHarness, HOST, instanceOf, object } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

/** Table 5.1, and not one more. */
const METHODS = `build_and_run_instance terminate_instance soft_delete_instance restore_instance start_instance
  stop_instance reboot_instance pause_instance unpause_instance suspend_instance resume_instance rebuild_instance
  snapshot_instance backup_instance prep_resize resize_instance finish_resize confirm_resize revert_resize
  finish_revert_resize check_instance_shared_storage prep_snapshot_based_resize_at_dest
  prep_snapshot_based_resize_at_source finish_snapshot_based_resize_at_dest confirm_snapshot_based_resize_at_source
  revert_snapshot_based_resize_at_dest finish_revert_snapshot_based_resize_at_source check_can_live_migrate_destination
  check_can_live_migrate_source pre_live_migration live_migration post_live_migration_at_destination
  rollback_live_migration_at_destination drop_move_claim_at_destination live_migration_force_complete
  live_migration_abort remove_volume_connection rescue_instance unrescue_instance shelve_instance
  shelve_offload_instance unshelve_instance reserve_block_device_name attach_volume detach_volume swap_volume
  volume_snapshot_create volume_snapshot_delete attach_interface detach_interface add_fixed_ip_to_instance
  remove_fixed_ip_from_instance inject_network_info get_console_output get_vnc_console get_spice_console
  get_serial_console get_mks_console get_rdp_console validate_console_port set_admin_password get_diagnostics
  get_instance_diagnostics get_host_uptime set_host_enabled host_power_action host_maintenance_mode
  external_instance_event trigger_crash_dump quiesce_instance unquiesce_instance cache_images allow_share deny_share`
  .split(/\s+/)
  .toSorted();

async function failureOf(work: Promise<unknown>) {
  const error: unknown = await work.then(
    () => {
      throw new Error('it did not fail');
    },
    (reason: unknown) => reason,
  );
  return serializeNovaFailure(error);
}

/** An active instance in a task, known to the conductor. */
function instanceIn(harness: ComputeHarness, task: string, fields: Json = {}): Json {
  const instance = instanceOf({ vm_state: 'active', task_state: task, host: HOST, ...fields });
  harness.plane.add(instance);
  return instance;
}

describe('the endpoints', () => {
  it('serve every method of the contract under 6.x and 5.x, and no others', () => {
    const { endpoints } = new ComputeHarness();

    const novas = endpoints.filter(({ namespace }) => namespace === undefined);
    expect(novas.map(({ version }) => version)).toEqual(['6.5', '5.13']);
    for (const { methods } of novas) expect(Object.keys(methods).toSorted()).toEqual(METHODS);
    const others = endpoints.filter(({ namespace }) => namespace !== undefined);
    expect(others.map(({ namespace, methods }) => [namespace, ...Object.keys(methods)])).toEqual([
      ['lightervisor', 'receive_guest', 'discard_guest'],
    ]);
  });

  it('take 5.x messages, which lack newer arguments', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    harness.plane.add(instance);
    const { accel_uuids: _accelerators, host_list: _hosts, ...args } = buildArgs(instance);

    await harness.send('build_and_run_instance', args, { major: '5' });
    await harness.operations.drain(AbortSignal.timeout(5000));

    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it('tolerate arguments and object fields of a newer control plane', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf({ vm_state: 'active', compute_id: 3, field_of_2027: 1 });
    const newer = { ...instance, 'nova_object.version': '2.99' };

    const output = await harness.send('validate_console_port', { instance: newer, port: '1', of_2027: true });

    expect(output).toBe(false);
  });

  it.each([
    ['stop_instance', {}, /instance/],
    ['stop_instance', { instance: object('Migration', '1.7', {}) }, /instance/],
    ['stop_instance', { instance: instanceOf(), clean_shutdown: 'yes' }, /clean_shutdown/],
    ['reboot_instance', { instance: instanceOf(), reboot_type: 'WARM' }, /reboot_type/],
    ['build_and_run_instance', { ...buildArgs(instanceOf()), security_groups: [7] }, /security_groups/],
  ])('refuse malformed arguments of %s without showing them', async (method, args, complaint) => {
    await using harness = new ComputeHarness();

    await expect(harness.send(method, args)).rejects.toThrow(complaint);

    expect(harness.plane.names).toEqual([]);
  });
});

describe('methods that this service does not serve', () => {
  it.each([['finish_snapshot_based_resize_at_dest', 'resize_migrated']])(
    '%s ends its task, keeps the state, and leaves fault and event',
    async (method, task) => {
      await using harness = new ComputeHarness();
      const instance = instanceIn(harness, task);

      const failure = await failureOf(harness.send(method, { instance }));

      expect(failure).toMatchObject({ class: 'NotImplementedError', module: 'builtins' });
      expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
      expect(harness.plane.faults).toMatchObject([{ code: 500, message: 'NotImplementedError' }]);
      expect(harness.plane.events).toEqual([
        { event: `compute_${method}`, result: 'Error', details: 'NotImplementedError' },
      ]);
    },
  );

  it('put back the image that the API had entered for a rebuild', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceIn(harness, 'rebuilding', { image_ref: 'new', system_metadata: { image_os: 'new' } });

    await failureOf(
      harness.send('rebuild_instance', {
        instance,
        orig_image_ref: 'old',
        orig_sys_metadata: { image_os: 'old' },
        recreate: false,
      }),
    );

    expect(harness.row(instance)).toMatchObject({
      image_ref: 'old',
      system_metadata: { image_os: 'old' },
      task_state: null,
    });
  });

  it.each([
    ['check_can_live_migrate_destination', 'MigrationPreCheckError', 500],
    ['prep_snapshot_based_resize_at_dest', 'MigrationPreCheckError', 500],
    ['quiesce_instance', 'InstanceQuiesceNotSupported', 400],
    ['get_vnc_console', 'ConsoleTypeUnavailable', 400],
    ['get_serial_console', 'ConsoleTypeUnavailable', 400],
  ])('answer a call of %s with %s', async (method, name, code) => {
    await using harness = new ComputeHarness();
    const instance = instanceIn(harness, 'none');

    const failure = await failureOf(harness.send(method, { instance, console_type: 'novnc' }));

    expect(failure).toMatchObject({ class: name, module: 'nova.exception', kwargs: { code } });
  });

  it('refuse also when the instance cannot be told of it', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf({ task_state: 'resize_migrated' });

    expect(await failureOf(harness.send('finish_snapshot_based_resize_at_dest', { instance }))).toMatchObject({
      class: 'NotImplementedError',
    });
  });
});

describe('methods on the host', () => {
  it('answer', async () => {
    await using harness = new ComputeHarness();

    expect(await harness.send('get_host_uptime', {})).toContain('load average');
    expect(await harness.send('set_host_enabled', { enabled: false })).toBe('disabled');
    expect(await harness.send('set_host_enabled', { enabled: true })).toBe('enabled');
    expect(await harness.send('check_instance_shared_storage', { data: {} })).toBe(false);
    expect(await harness.send('cache_images', { image_ids: [] })).toEqual({});
    expect(harness.tracker.calls).toEqual(['setDisabled true', 'setDisabled false']);
  });
});
