// Tasks that an outage of the conductor left behind: only those that nobody goes on with are put right. Each operation that the
// conductor leaves is in test/contract/compute-operations/outages.test.ts.
import { describe, expect, it, vi } from 'vitest';
import { OutageRecovery } from '#src/compute/recovery/after-outage.ts';
import { FAULTS, Outage } from '#test/contract/compute-operations/outage.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Conductor } from '#src/nova/types.ts';
import { ComputeHarness, HOST, instanceOf } from '#test/fakes/compute-harness.ts';

async function stuck(harness: ComputeHarness, fields: object): Promise<string> {
  const instance = instanceOf();
  await harness.build(instance, {});
  Object.assign(harness.row(instance), fields);
  return instance['nova_object.data'].uuid;
}

type Parts = Pick<ComputeHarness, 'services' | 'operations'>;

async function look({ services, operations }: Parts): Promise<void> {
  await new OutageRecovery(services, operations, 1).begin();
}

/** Does something before each list of the host's instances is read. */
function atEachLook({ services, operations }: ComputeHarness, work: () => unknown): Parts {
  const { conductor } = services;
  const watched: Conductor = {
    objectMethod: (...of) => conductor.objectMethod(...of),
    save: (...of) => conductor.save(...of),
    async classMethod(...of) {
      if (of[1].method === 'get_by_host') work();
      return await conductor.classMethod(...of);
    },
  };
  return { services: { ...services, conductor: watched }, operations };
}

describe('after an outage of the conductor', () => {
  it('what was asked for is done once nobody works on it', async () => {
    await using harness = new ComputeHarness();
    const uuid = await stuck(harness, { task_state: 'powering-off' });
    const end = Promise.withResolvers<void>();
    const working = harness.services.underWay.during(uuid, () => end.promise);
    const recovery = new OutageRecovery(harness.services, harness.operations, 20);

    const looking = recovery.begin();
    await new Promise((resolve) => setTimeout(resolve, 70));
    const meanwhile = harness.plane.instances.get(uuid)?.['task_state'];
    end.resolve();
    await Promise.all([working, looking]);

    expect(meanwhile).toBe('powering-off');
    expect(harness.plane.instances.get(uuid)).toMatchObject({ vm_state: 'stopped', task_state: null, host: HOST });
  });

  it('a request that could not end its task says so', async () => {
    await using harness = new ComputeHarness();
    const uuid = await stuck(harness, { task_state: 'powering-off' });
    const left = vi.fn<() => void>();
    harness.services.underWay.whenTaskIsLeft(left);
    const outage = new Outage('conductor', [harness], FAULTS['answers 500']);
    outage.begin();

    const instance = instanceOf(harness.plane.instances.get(uuid));
    await expect(harness.send('stop_instance', { instance, clean_shutdown: false })).rejects.toThrow('conductor: 500');

    expect(left).toHaveBeenCalledTimes(1);
  });

  it.each(['resize_prep', 'resize_migrating', 'migrating'])(
    'the move of %s is left to those who make it',
    async (task) => {
      await using harness = new ComputeHarness();
      const uuid = await stuck(harness, { task_state: task });

      await look(harness);

      expect(harness.plane.instances.get(uuid)).toMatchObject({ vm_state: 'active', task_state: task });
    },
  );

  it('a rebuild is given up, unless it is the evacuation of another host', async () => {
    await using harness = new ComputeHarness();
    const mine = await stuck(harness, { task_state: 'rebuilding' });
    const evacuated = await stuck(harness, { task_state: 'rebuilding' });
    const migration = { id: 1, instance_uuid: evacuated, status: 'accepted', migration_type: 'evacuation' };
    harness.plane.migrations.set(1, migration);

    await look(harness);

    expect(harness.plane.instances.get(mine)).toMatchObject({ vm_state: 'error', task_state: null });
    expect(harness.plane.instances.get(evacuated)).toMatchObject({ vm_state: 'active', task_state: 'rebuilding' });
  });

  it('one whose task changes between two looks is somebody else at work', async () => {
    await using harness = new ComputeHarness();
    const uuid = await stuck(harness, { task_state: 'powering-off' });
    const row = harness.plane.instances.get(uuid) ?? {};
    const tasks = ['powering-off', 'powering-on', null];

    await look(atEachLook(harness, () => (row['task_state'] = tasks.shift() ?? null)));

    expect(row).toMatchObject({ vm_state: 'active', task_state: null });
  });

  it('a build that is lost while others are looked after is in error as well', async () => {
    await using harness = new ComputeHarness();
    const uuid = await stuck(harness, { vm_state: 'building', task_state: null, host: null, node: null });
    harness.placement.consumers.delete(uuid);
    await stuck(harness, { task_state: 'powering-off' });
    let looks = 0;

    await look(atEachLook(harness, () => (looks++ === 1 ? harness.services.underWay.leaveTask(uuid) : undefined)));

    expect(harness.plane.instances.get(uuid)).toMatchObject({ vm_state: 'error', task_state: null });
  });

  it('a conductor that goes away again is said, and waited for once more', async () => {
    await using harness = new ComputeHarness();
    const away = (): never => {
      throw new AppError('unavailable', 'no reply');
    };

    await look(atEachLook(harness, away));

    expect(harness.log.lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
  });
});
