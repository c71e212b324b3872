// Recovery at start: the table of section 4.6, and what is done to instances of an interrupted process.
import { describe, expect, it } from 'vitest';
import { recoveryPlan, type RecoveryView } from '#src/compute/recovery/recovery-plan.ts';
import { removeEvacuated } from '#src/compute/recovery/evacuated.ts';
import { failInterruptedBuilds, unclaimedConsumers } from '#src/compute/recovery/interrupted-builds.ts';
import { recoverInstances } from '#src/compute/recovery/recover-instances.ts';
import { silentLog } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { FakeConductor, listOf } from '#test/fakes/fake-conductor.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';
import { FakeOperations } from '#test/fakes/fake-operations.ts';
import { MemoryPlacement } from '#test/fakes/memory-placement.ts';

const context = RequestContext.admin();
const signal = new AbortController().signal;
const RUNNING = 1;
const DOWN = 4;

function plan(vmState: string, taskState: string | null, view: Partial<RecoveryView> = {}) {
  return recoveryPlan({
    vmState,
    oldVmState: null,
    taskState,
    recordedPower: RUNNING,
    power: RUNNING,
    resumesGuests: false,
    ...view,
  });
}

describe('the recovery plan', () => {
  it.each([
    ['soft-delete', null, []],
    ['soft-delete', 'deleting', []],
    ['error', null, []],
    ['error', 'spawning', []],
    ['deleted', null, ['complete deletion']],
    ['building', null, ['fail']],
    ['building', 'spawning', ['fail']],
    ['active', 'networking', ['fail']],
    ['active', 'rebuilding', ['fail']],
    ['stopped', 'rebuild_spawning', ['fail']],
    ['active', 'image_uploading', ['clear task', 'plug']],
    ['active', 'resize_prep', ['clear task', 'plug']],
    ['error', 'deleting', ['terminate']],
    ['active', 'deleting', ['terminate']],
    ['active', 'image_backup', ['clear task', 'plug']],
    ['active', 'shelving', ['plug', 'resume guest', 'clear task']],
    ['paused', 'shelving_image_uploading', ['plug', 'resume guest', 'clear task']],
    ['error', 'shelving', []],
    ['shelved_offloaded', 'unshelving', ['undo unshelving']],
    ['shelved_offloaded', 'spawning', ['undo unshelving']],
    ['shelved', 'shelving_offloading', ['clear task', 'offload']],
    ['active', 'rescuing', ['undo rescue']],
    ['error', 'rescuing', ['undo rescue']],
    ['rescued', 'unrescuing', ['unrescue']],
    ['rescued', null, ['plug']],
    ['active', 'pausing', ['make active', 'plug']],
    ['active', 'suspending', ['do again']],
    ['suspended', 'resuming', ['do again']],
    ['active', 'soft-deleting', ['do again']],
    ['soft-delete', 'restoring', ['do again']],
    ['error', 'suspending', []],
    ['active', 'updating_password', ['clear task', 'plug']],
    ['active', 'unpausing', ['make active', 'plug']],
    ['active', 'rebooting', ['make active', 'plug']],
    ['active', 'reboot_started_hard', ['make active', 'plug']],
    ['active', 'reboot_pending', ['reboot soft']],
    ['stopped', 'reboot_pending', ['plug']],
    ['suspended', 'reboot_pending_hard', ['reboot hard']],
    ['active', 'powering-off', ['stop']],
    ['stopped', 'powering-on', ['start']],
    ['active', 'resize_migrating', ['plug', 'abandon move', 'resume guest', 'clear task']],
    ['stopped', 'resize_migrating', ['plug', 'abandon move', 'clear task']],
    ['active', 'resize_migrated', ['plug']],
    ['active', 'resize_finish', ['plug']],
    ['resized', 'resize_reverting', ['plug']],
    ['error', 'resize_migrating', ['plug', 'abandon move', 'resume guest', 'clear task']],
    ['active', 'migrating', ['plug', 'fail live migration', 'clear task']],
    ['active', null, ['plug']],
  ])('of %s with task %s while the guest runs is %j', (vmState, taskState, steps) => {
    expect(plan(vmState, taskState)).toEqual(steps);
  });

  it.each([
    ['error', 'stopped', ['plug', 'abandon move', 'clear task']],
    ['error', 'active', ['plug', 'abandon move', 'resume guest', 'clear task']],
    ['active', 'stopped', ['plug', 'abandon move', 'clear task']],
  ])('of %s in an interrupted resize that began %s is %j', (vmState, oldVmState, steps) => {
    expect(plan(vmState, 'resize_migrating', { oldVmState })).toEqual(steps);
  });

  it.each([
    ['reboot_started', ['escalate to hard reboot', 'reboot hard']],
    ['rebooting', ['escalate to hard reboot', 'reboot hard']],
    ['reboot_started_hard', ['reboot hard']],
    ['rebooting_hard', ['reboot hard']],
    ['pausing', ['plug']],
  ])('of task %s while the guest is down is %j', (taskState, steps) => {
    expect(plan('active', taskState, { power: DOWN })).toEqual(steps);
  });

  it('unpauses a guest that was being unpaused, and resumes guests only when the operator wants it', () => {
    expect(plan('paused', 'unpausing', { power: 3 })).toEqual(['unpause']);
    expect(plan('active', 'pausing', { power: 3 })).toEqual(['do again']);
    expect(plan('active', null, { power: DOWN })).toEqual(['plug']);
    expect(plan('active', null, { power: DOWN, resumesGuests: true })).toEqual(['plug', 'resume guest']);
    expect(plan('stopped', null, { power: DOWN, recordedPower: DOWN, resumesGuests: true })).toEqual(['plug']);
  });
});

function instance(uuid: string, fields: Record<string, unknown> = {}): NovaObject<'Instance'> {
  const object = createObject('Instance', {
    uuid,
    host: 'h',
    vm_state: 'active',
    task_state: null,
    power_state: RUNNING,
    ...fields,
  });
  object.resetChanges();
  return object;
}

describe('recovering', () => {
  it('saves the end of an interrupted build, and hands the rest to the operations', async () => {
    const conductor = new FakeConductor();
    const operations = new FakeOperations();
    const instances = [
      instance('build', { vm_state: 'building', task_state: 'spawning' }),
      instance('stop', { task_state: 'powering-off' }),
      instance('reboot', { task_state: 'reboot_started' }),
    ];
    const powers = new Map([['stop', RUNNING]] as const);

    await recoverInstances(
      { context, conductor, operations, log: silentLog, resumesGuests: false },
      instances,
      powers,
      signal,
    );

    expect(conductor.named('Instance.save').map(({ changes }) => changes)).toEqual([
      { vm_state: 'error', task_state: null },
      { task_state: 'reboot_pending_hard' },
    ]);
    expect(operations.calls.sort()).toEqual(['reboot reboot HARD', 'stop stop clean']);
  });

  it('goes on with the others when one fails, and puts what cannot be plugged or deleted into error', async () => {
    const conductor = new FakeConductor();
    const operations = new FakeOperations();
    operations.fail('plugInterfaces');
    operations.fail('terminate');
    operations.fail('start');
    const instances = [
      instance('unpluggable'),
      instance('undeletable', { task_state: 'deleting' }),
      instance('unstartable', { task_state: 'powering-on' }),
    ];

    await recoverInstances(
      { context, conductor, operations, log: silentLog, resumesGuests: false },
      instances,
      new Map(),
      signal,
    );

    const failed = conductor.named('Instance.save').map(({ object }) => (object as NovaObject<'Instance'>).get('uuid'));
    expect(failed.sort()).toEqual(['undeletable', 'unpluggable']);
  });

  it('starts the guest of an interrupted resize only when it ran before', async () => {
    const conductor = new FakeConductor();
    const operations = new FakeOperations();
    const broken = { vm_state: 'error', task_state: 'resize_migrating' };
    const instances = [
      instance('was-stopped', { ...broken, system_metadata: { old_vm_state: 'stopped' } }),
      instance('was-active', { ...broken, system_metadata: { old_vm_state: 'active' } }),
    ];

    await recoverInstances(
      { context, conductor, operations, log: silentLog, resumesGuests: false },
      instances,
      new Map(),
      signal,
    );

    expect(operations.calls.filter((call) => call.startsWith('resumeGuest'))).toEqual(['resumeGuest was-active']);
  });

  it('ends the record of a live migration that ran', async () => {
    const conductor = new FakeConductor().on('MigrationList.get_by_filters', () =>
      listOf('MigrationList', [createObject('Migration', { id: 1, uuid: 'm', status: 'running' })]),
    );

    await recoverInstances(
      { context, conductor, operations: new FakeOperations(), log: silentLog, resumesGuests: false },
      [instance('a', { task_state: 'migrating' })],
      new Map([['a', RUNNING]]),
      signal,
    );

    expect(conductor.named('Migration.save')[0]?.changes).toMatchObject({ status: 'error' });
    expect(conductor.named('Instance.save')[0]?.changes).toEqual({ task_state: null });
  });
});

describe('evacuated instances', () => {
  it('are taken off this host and out of its allocations, unless they never left', async () => {
    const placement = new MemoryPlacement();
    const operations = new FakeOperations();
    const migration = (uuid: string) =>
      createObject('Migration', { id: 1, uuid: `m-${uuid}`, instance_uuid: uuid, status: 'done' });
    const conductor = new FakeConductor()
      .on('MigrationList.get_by_filters', () =>
        listOf('MigrationList', [migration('moved'), migration('stayed'), migration('deleted')]),
      )
      .on('Instance.get_by_uuid', ({ kwargs }) => {
        const { uuid } = kwargs as { uuid: string };
        if (uuid === 'deleted') throw remote('InstanceNotFound', 'gone');
        return instance(uuid, { host: uuid === 'moved' ? 'elsewhere' : 'h' });
      });
    const asking = { conductor, context };

    const evacuated = await removeEvacuated(
      { asking, placement, operations, log: silentLog, host: 'h', providerUuid: 'rp' },
      signal,
    );

    expect([...evacuated]).toEqual(['moved', 'deleted']);
    expect(operations.calls).toEqual(['removeGuest moved']);
    expect(placement.requests).toEqual(['remove moved from rp', 'remove deleted from rp']);
    expect(conductor.named('Migration.save')).toHaveLength(2);
  });
});

describe('builds that were never claimed', () => {
  const waiting = (uuid: string, fields: object = {}) =>
    instance(uuid, { vm_state: 'building', task_state: 'scheduling', host: null, ...fields });

  it('are those of consumers that are no instances of this host', async () => {
    const placement = new MemoryPlacement();
    for (const uuid of ['known', 'lost']) placement.allocations.set(uuid, { rp: { resources: {} } });

    const found = await unclaimedConsumers({ placement, providerUuid: 'rp' }, new Set(['known']), signal);

    expect(found).toEqual(['lost']);
  });

  it('end in error, but for those whose message has come, or that somebody has', async () => {
    const conductor = new FakeConductor().on('InstanceList.get_by_filters', () =>
      listOf('InstanceList', [waiting('lost'), waiting('come'), waiting('claimed', { host: 'h' })]),
    );
    const operations = new FakeOperations();
    operations.building.add('come');
    const parts = { asking: { conductor, context }, operations, log: silentLog };

    await failInterruptedBuilds(parts, []);
    const callsBefore = conductor.calls.length;
    await failInterruptedBuilds(parts, ['lost', 'come', 'claimed']);

    expect(callsBefore).toBe(0);
    expect(conductor.calls[0]?.args).toEqual([{ vm_state: 'building', uuid: ['lost', 'come', 'claimed'] }]);
    const saved = conductor.named('Instance.save');
    expect(saved.map(({ changes }) => changes)).toEqual([{ vm_state: 'error', task_state: null }]);
    expect(saved[0]?.options).toEqual({ expectedTaskState: ['scheduling'] });
  });

  it('are left to whoever has gone on with them meanwhile', async () => {
    const conductor = new FakeConductor()
      .on('InstanceList.get_by_filters', () => listOf('InstanceList', [waiting('lost')]))
      .on('Instance.save', () => {
        throw remote('UnexpectedTaskStateError', 'it is networking');
      });
    const parts = { asking: { conductor, context }, operations: new FakeOperations(), log: silentLog };

    await expect(failInterruptedBuilds(parts, ['lost'])).resolves.toBeUndefined();
  });
});
