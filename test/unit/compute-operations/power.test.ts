// Stop, start, reboot, soft deletion and the console.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { ComputeHarness, instanceOf, networkRequests } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

/** A running instance with a port, in the task that the API would have set. */
async function runningInstance(harness: ComputeHarness, task: string | null): Promise<Json> {
  const network = harness.neutron.addNetwork();
  const instance = instanceOf();
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  harness.row(instance)['task_state'] = task;
  harness.plane.sent.length = 0;
  harness.plane.events.length = 0;
  harness.neutron.requests.length = 0;
  harness.vif.calls.length = 0;
  harness.moments.length = 0;
  return instanceOf(harness.row(instance));
}

function guestOf(harness: ComputeHarness, instance: Json) {
  const guest = harness.virt.instances.get(instance['nova_object.data'].uuid);
  if (!guest) throw new Error('no guest');
  return guest;
}

/** The calls of powerOff with the grace that they gave. */
function watchGrace(harness: ComputeHarness): number[] {
  const graces: number[] = [];
  const powerOff = harness.virt.powerOff.bind(harness.virt);
  harness.virt.powerOff = async (uuid, options, signal) => {
    graces.push(options.graceSeconds);
    await powerOff(uuid, options, signal);
  };
  return graces;
}

describe('stop_instance', () => {
  it('shuts the guest down and records it as stopped', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-off');

    await harness.send('stop_instance', { instance, clean_shutdown: true });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'stopped', task_state: null, power_state: 4 });
    expect(harness.plane.names).toEqual([
      'InstanceActionEvent.event_start',
      'Instance.save',
      'InstanceActionEvent.event_finish_with_failure',
    ]);
    expect(harness.plane.named('Instance.save')[0]?.kwargs).toEqual({ expected_task_state: ['powering-off'] });
    expect(harness.moments).toEqual(['power_off.start', 'power_off.end']);
  });

  it.each([
    [true, {}, 60],
    [true, { image_os_shutdown_timeout: '5' }, 5],
    [false, { image_os_shutdown_timeout: '5' }, 0],
  ])('with clean_shutdown %s and %j gives %i seconds', async (isClean, metadata, seconds) => {
    await using harness = new ComputeHarness();
    const graces = watchGrace(harness);
    const instance = await runningInstance(harness, 'powering-off');
    instance['nova_object.data'].system_metadata = metadata;

    await harness.send('stop_instance', { instance, clean_shutdown: isClean });

    expect(graces).toEqual([seconds]);
  });

  it('takes a guest that is off already for stopped, also when its task was cleared', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, null);
    guestOf(harness, instance).powerState = 4;

    await harness.send('stop_instance', { instance, clean_shutdown: true });

    expect(harness.row(instance)['vm_state']).toBe('stopped');
  });

  it('does not write over another task, and leaves that task alone', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-off');
    harness.row(instance)['task_state'] = 'deleting';

    await expect(harness.send('stop_instance', { instance, clean_shutdown: false })).rejects.toThrow();

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: 'deleting' });
  });

  it('ends the task and tells the owner when the guest does not stop', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-off');
    harness.virt.failNext('powerOff', new AppError('internal', 'it hangs'));

    await expect(harness.send('stop_instance', { instance, clean_shutdown: true })).rejects.toThrow('it hangs');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(harness.plane.faults).toMatchObject([{ code: 400, message: expect.stringContaining('it hangs') }]);
    expect(harness.plane.events).toMatchObject([{ event: 'compute_stop_instance', result: 'Error' }]);
    expect(harness.tracker.calls).toContain('updateUsage');
  });

  it('tells faults, events, task and notification in that order', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-off');
    harness.virt.failNext('powerOff', new AppError('internal', 'it hangs'));

    await harness.send('stop_instance', { instance, clean_shutdown: true }).catch(() => {});

    expect(harness.plane.names).toEqual([
      'InstanceActionEvent.event_start',
      'InstanceFault.create',
      'InstanceActionEvent.event_finish_with_failure',
      'Instance.save',
    ]);
    expect(harness.moments.at(-1)).toBe('failure stop_instance');
  });
});

describe('start_instance', () => {
  it('starts the guest with the interfaces that Neutron knows now', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-on');
    guestOf(harness, instance).powerState = 4;
    harness.row(instance)['vm_state'] = 'stopped';

    await harness.send('start_instance', { instance: instanceOf(harness.row(instance)) });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
    expect(guestOf(harness, instance).nics).toHaveLength(1);
    expect(harness.plane.named('Instance.save')[0]?.kwargs).toEqual({ expected_task_state: 'powering-on' });
  });

  it('does not write a network cache that has not changed', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-on');

    await harness.send('start_instance', { instance });

    expect(harness.plane.names).not.toContain('InstanceInfoCache.save');
  });

  it('never empties the network cache because Neutron does not answer', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-on');
    harness.neutron.fail('GET ports', new AppError('unavailable', 'neutron'));

    await expect(harness.send('start_instance', { instance })).rejects.toThrow('neutron');

    expect(harness.row(instance)['info_cache']['nova_object.data'].network_info).toContain('10.77.0.');
    expect(harness.row(instance)['task_state']).toBeNull();
  });

  it('deletes the snapshot of an instance that was shelved', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'powering-on');
    instance['nova_object.data'].system_metadata = { shelved_image_id: 'snap', shelved_at: 'x', other: 'y' };

    await harness.send('start_instance', { instance });

    expect(harness.glance.requests).toContain('DELETE snap');
    expect(harness.row(instance)['system_metadata']).toEqual({ other: 'y' });
  });
});

describe('reboot_instance', () => {
  it('restarts softly from within', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'rebooting');

    await harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'SOFT' });

    expect(guestOf(harness, instance).console).toContain('\n');
    const saves = harness.plane.named('Instance.save').map(({ changes, kwargs }) => [changes['task_state'], kwargs]);
    expect(saves).toEqual([
      ['reboot_pending', { expected_task_state: ['rebooting', 'reboot_pending', 'reboot_started'] }],
      ['reboot_started', { expected_task_state: 'reboot_pending' }],
      [null, {}],
    ]);
    expect(harness.vif.calls).toEqual([]);
  });

  it('restarts hard with interfaces plugged anew', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'rebooting_hard');

    await harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'HARD' });

    expect(harness.vif.calls.map((call) => call.split(' ')[0])).toEqual(['unplug', 'plug']);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
  });

  it.each(['unsupported', 'conflict'] as const)('becomes hard when soft is %s', async (kind) => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'rebooting');
    harness.virt.failNext('softReboot', new AppError(kind, 'not now'));

    await harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'SOFT' });

    expect(harness.vif.calls.map((call) => call.split(' ')[0])).toEqual(['unplug', 'plug']);
    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it('brings a stopped guest up', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'rebooting_hard');
    guestOf(harness, instance).powerState = 4;

    await harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'HARD' });

    expect(guestOf(harness, instance).powerState).toBe(1);
  });

  it('is only a fault when the guest runs all the same', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'rebooting');
    harness.virt.failNext('softReboot', new AppError('internal', 'init did not answer'));

    await harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'SOFT' });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(harness.plane.faults).toHaveLength(1);
    expect(harness.plane.events).toMatchObject([{ result: 'Success' }]);
    expect(harness.moments).toContain('reboot.error');
  });

  it('puts the instance into error when the guest does not come back', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'rebooting_hard');
    harness.virt.failNext('powerOn', new AppError('internal', 'no cgroup'));

    await expect(
      harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'HARD' }),
    ).rejects.toThrow('no cgroup');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.plane.faults).toHaveLength(1);
  });

  it('waits for Neutron where a workaround says so', async () => {
    await using harness = new ComputeHarness({
      config: 'vif_plugging_timeout = 1\n[workarounds]\nwait_for_vif_plugged_event_during_hard_reboot = normal',
    });
    const instance = await runningInstance(harness, 'rebooting_hard').catch((error: unknown) => error as never);
    const wait = harness.send('reboot_instance', { instance, block_device_info: null, reboot_type: 'HARD' });

    await expect(wait).rejects.toThrow('Creating a virtual interface failed');
  });
});

describe('soft deletion', () => {
  it('powers off without grace, and restoring powers on again', async () => {
    await using harness = new ComputeHarness();
    const graces = watchGrace(harness);
    const instance = await runningInstance(harness, 'soft-deleting');

    await harness.send('soft_delete_instance', { instance });
    const deleted = { ...harness.row(instance) };
    harness.row(instance)['task_state'] = 'restoring';
    await harness.send('restore_instance', { instance: instanceOf(harness.row(instance)) });

    expect(graces).toEqual([0]);
    expect(deleted).toMatchObject({ vm_state: 'soft-delete', task_state: null, power_state: 4 });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
  });
});

describe('get_console_output', () => {
  it.each([
    [null, 'one\ntwo\nthree\n'],
    [2, 'three\n'],
    ['3', 'two\nthree\n'],
    [0, ''],
    [10, 'one\ntwo\nthree\n'],
  ])('with tail_length %j gives %j', async (tailLength, expected) => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, null);
    guestOf(harness, instance).console = 'one\ntwo\nthree\n';

    const output = await harness.send('get_console_output', { instance, tail_length: tailLength });

    expect(output).toBe(expected);
  });

  it('is ASCII, whatever the guest printed', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, null);
    guestOf(harness, instance).console = 'caf\u00e9';

    expect(await harness.send('get_console_output', { instance, tail_length: null })).toBe('caf\uFFFD\uFFFD');
  });

  it('says that there is no such instance when the engine has none', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();

    await expect(harness.send('get_console_output', { instance, tail_length: null })).rejects.toMatchObject({
      novaName: 'InstanceNotFound',
    });
  });
});

describe('pause, suspend and back', () => {
  it('freezes and lets go on, with the states between', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'pausing');

    await harness.send('pause_instance', { instance });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'paused', task_state: null, power_state: 3 });

    harness.row(instance)['task_state'] = 'unpausing';
    await harness.send('unpause_instance', { instance: instanceOf(harness.row(instance)) });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
    expect(harness.moments).toEqual(['pause.start', 'pause.end', 'unpause.start', 'unpause.end']);
  });

  it('resumes a suspended guest, also when the host has stopped it meanwhile', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'suspending');
    await harness.send('suspend_instance', { instance });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'suspended', power_state: 3 });
    expect(harness.row(instance)['system_metadata']).toMatchObject({ old_vm_state: 'active' });
    guestOf(harness, instance).powerState = 4;
    harness.row(instance)['task_state'] = 'resuming';

    await harness.send('resume_instance', { instance: instanceOf(harness.row(instance)) });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1 });
    expect(harness.row(instance)['system_metadata']).not.toHaveProperty('old_vm_state');
  });

  describe('to disk', () => {
    async function wishing(harness: ComputeHarness, wish = 'true') {
      const instance = await runningInstance(harness, 'suspending');
      const metadata = harness.row(instance)['system_metadata'] as Record<string, string>;
      harness.row(instance)['system_metadata'] = { ...metadata, image_lxd_suspend_to_disk: wish };
      return instanceOf(harness.row(instance));
    }

    it('keeps the memory of a guest whose image says so, and goes on with it', async () => {
      await using harness = new ComputeHarness();
      const instance = await wishing(harness);

      await harness.send('suspend_instance', { instance });
      expect(harness.row(instance)).toMatchObject({ vm_state: 'suspended', task_state: null, power_state: 4 });
      expect(guestOf(harness, instance).isKept).toBe(true);

      harness.row(instance)['task_state'] = 'resuming';
      await harness.send('resume_instance', { instance: instanceOf(harness.row(instance)) });
      expect(harness.row(instance)).toMatchObject({ vm_state: 'active', power_state: 1 });
    });

    it('is in error when it cannot go on, and keeps its memory', async () => {
      await using harness = new ComputeHarness();
      const instance = await wishing(harness);
      await harness.send('suspend_instance', { instance });
      harness.row(instance)['task_state'] = 'resuming';
      harness.virt.failNext('resumeFromDisk', new AppError('internal', 'CRIU cannot restore it'));

      const resume = harness.send('resume_instance', { instance: instanceOf(harness.row(instance)) });

      await expect(resume).rejects.toThrow('CRIU cannot restore it');
      expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
      expect(guestOf(harness, instance).isKept).toBe(true);
    });

    it('freezes the guest that cannot be kept', async () => {
      await using harness = new ComputeHarness();
      const instance = await wishing(harness);
      harness.virt.failNext('suspendToDisk', new AppError('unsupported', 'no CRIU here'));

      await harness.send('suspend_instance', { instance });

      expect(harness.row(instance)).toMatchObject({ vm_state: 'suspended', task_state: null, power_state: 3 });
    });

    it.each(['false', 'perhaps'])('freezes the guest whose image says %s', async (wish) => {
      await using harness = new ComputeHarness();
      const instance = await wishing(harness, wish);

      await harness.send('suspend_instance', { instance });

      expect(harness.row(instance)).toMatchObject({ vm_state: 'suspended', power_state: 3 });
      expect(guestOf(harness, instance).isKept).toBeUndefined();
    });

    it('is in error when nobody knows what became of the guest', async () => {
      await using harness = new ComputeHarness();
      const instance = await wishing(harness);
      harness.virt.failNext('suspendToDisk', new AppError('unavailable', 'the engine is away'));

      await expect(harness.send('suspend_instance', { instance })).rejects.toThrow('the engine is away');

      expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    });
  });

  it('puts an instance that could not be suspended into error, with a fault', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'suspending');
    harness.virt.failNext('pause', new AppError('internal', 'the freezer is stuck'));

    await expect(harness.send('suspend_instance', { instance })).rejects.toThrow('the freezer is stuck');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.plane.names).toContain('InstanceFault.create');
  });

  it('ends the task of a pause that failed, and leaves the instance active', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, 'pausing');
    harness.virt.failNext('pause', new AppError('internal', 'the freezer is stuck'));

    await expect(harness.send('pause_instance', { instance })).rejects.toThrow('the freezer is stuck');

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
  });
});

describe('diagnostics', () => {
  it('tells what a running guest has used', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, null);

    const told = await harness.send('get_diagnostics', { instance });

    expect(told).toMatchObject({ cpu0_time: 1_500_000_000, memory: 65_536, 'memory-actual': 32_768, eth0_rx: 2000 });
  });

  it('is refused for a guest that does not run', async () => {
    await using harness = new ComputeHarness();
    const instance = await runningInstance(harness, null);
    guestOf(harness, instance).powerState = 4;

    await expect(harness.send('get_instance_diagnostics', { instance })).rejects.toMatchObject({
      name: 'InstanceInvalidState',
    });
  });
});
