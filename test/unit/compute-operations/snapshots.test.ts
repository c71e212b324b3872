// Images of instances and backups: states, what becomes of the image, what is left in the engine.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { novaException } from '#src/nova/exceptions.ts';
import { ComputeHarness, instanceOf } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

/** A running instance in that task, and the image that the API has made for it. */
async function prepared(harness: ComputeHarness, task: string): Promise<Json> {
  const instance = instanceOf();
  await harness.build(instance);
  harness.row(instance)['task_state'] = task;
  harness.plane.sent.length = 0;
  harness.plane.events.length = 0;
  harness.moments.length = 0;
  harness.glance.requests.length = 0;
  harness.glance.addQueued('snap');
  return instanceOf(harness.row(instance));
}

const tasksOf = (harness: ComputeHarness): readonly unknown[] =>
  harness.plane
    .named('Instance.save')
    .filter(({ changes }) => 'task_state' in changes)
    .map(({ changes, kwargs }) => [changes['task_state'], kwargs['expected_task_state']]);

describe('snapshot_instance', () => {
  it('uploads the root of a guest that runs on', async () => {
    await using harness = new ComputeHarness();
    const instance = await prepared(harness, 'image_snapshot_pending');

    await harness.send('snapshot_instance', { instance, image_id: 'snap' });

    const { uuid, project_id: owner } = instance['nova_object.data'];
    expect(harness.glance.images.get('snap')).toMatchObject({
      status: 'active',
      diskFormat: 'raw',
      containerFormat: 'bare',
      minDiskGib: 1,
      properties: { image_state: 'available', image_location: 'snapshot', owner_id: owner },
    });
    expect(harness.glance.contents.get('snap')?.toString()).toBe(`root of ${uuid}`);
    expect(harness.virt.instances.get(uuid)?.powerState).toBe(1);
    expect(harness.virt.openSnapshots).toBe(0);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(tasksOf(harness)).toEqual([
      ['image_snapshot', 'image_snapshot_pending'],
      ['image_pending_upload', 'image_snapshot'],
      ['image_uploading', 'image_pending_upload'],
      [null, 'image_uploading'],
    ]);
    expect(harness.moments).toEqual(['snapshot.start', 'snapshot.end']);
    expect(harness.plane.events).toMatchObject([{ event: 'compute_snapshot_instance', result: 'Success' }]);
  });

  it.each([
    ['the engine takes no snapshot', (harness: ComputeHarness) => harness.virt.failNext('snapshot', new Error('full'))],
    ['the upload fails', ({ glance }: ComputeHarness) => glance.failNext(/^PUT/, new AppError('unavailable', 'down'))],
  ])('leaves neither image nor task when %s', async (_what, arrange) => {
    await using harness = new ComputeHarness();
    const instance = await prepared(harness, 'image_snapshot_pending');
    arrange(harness);

    await expect(harness.send('snapshot_instance', { instance, image_id: 'snap' })).rejects.toThrow();

    expect(harness.glance.images.has('snap')).toBe(false);
    expect(harness.virt.openSnapshots).toBe(0);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(harness.plane.faults).toHaveLength(1);
    expect(harness.plane.events).toMatchObject([{ event: 'compute_snapshot_instance', result: 'Error' }]);
  });

  it('is no failure of the instance when its image was deleted meanwhile', async () => {
    await using harness = new ComputeHarness();
    const instance = await prepared(harness, 'image_snapshot_pending');
    harness.glance.failNext(/^PUT/, new AppError('not_found', 'gone'));

    await harness.send('snapshot_instance', { instance, image_id: 'snap' });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(harness.plane.faults).toEqual([]);
  });

  it('ends without a fault and without an image when the instance is being deleted', async () => {
    await using harness = new ComputeHarness();
    const instance = await prepared(harness, 'image_snapshot_pending');
    harness.plane.next('Instance.save', () => {
      const actual = { instance_uuid: 'u', expected: 'image_snapshot_pending', actual: 'deleting' };
      throw novaException('UnexpectedDeletingTaskStateError', actual);
    });

    await harness.send('snapshot_instance', { instance, image_id: 'snap' });

    expect(harness.glance.requests).toEqual(['DELETE snap']);
    expect(harness.plane.faults).toEqual([]);
    expect(harness.row(instance)['task_state']).toBe('image_snapshot_pending');
  });

  it('is given up by a deletion, which does not wait for it', async () => {
    await using harness = new ComputeHarness({ delayMs: 200 });
    const instance = await prepared(harness, 'image_snapshot_pending');

    const snapshot = harness.send('snapshot_instance', { instance, image_id: 'snap' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    await harness.send('terminate_instance', {
      instance: instanceOf({ ...harness.row(instance), task_state: 'deleting' }),
      bdms: null,
    });
    await snapshot;

    expect(harness.glance.images.has('snap')).toBe(false);
    expect(harness.glance.contents.has('snap')).toBe(false);
    expect(harness.virt.instances.size).toBe(0);
  });

  it('waits when as many run as max_concurrent_snapshots allows', async () => {
    await using harness = new ComputeHarness({ config: 'max_concurrent_snapshots = 1', delayMs: 20 });
    const first = await prepared(harness, 'image_snapshot_pending');
    const second = await prepared(harness, 'image_snapshot_pending');
    harness.glance.addQueued('snap2');
    let most = 0;
    const take = harness.virt.snapshot.bind(harness.virt);
    harness.virt.snapshot = async (uuid, signal) => {
      const taken = await take(uuid, signal);
      most = Math.max(most, harness.virt.openSnapshots);
      return taken;
    };

    await Promise.all([
      harness.send('snapshot_instance', { instance: first, image_id: 'snap' }),
      harness.send('snapshot_instance', { instance: second, image_id: 'snap2' }),
    ]);

    expect(most).toBe(1);
    expect(harness.glance.contents.size).toBe(2);
  });
});

describe('backup_instance', () => {
  it('keeps the newest of its type, as many as the rotation says', async () => {
    await using harness = new ComputeHarness();
    const instance = await prepared(harness, 'image_backup');
    const { uuid } = instance['nova_object.data'];
    harness.glance.images.clear();
    const backup = (type: string, of = uuid) => ({ image_type: 'backup', backup_type: type, instance_uuid: of });
    harness.glance.addQueued('oldest', backup('daily'));
    harness.glance.addQueued('older', backup('daily'));
    harness.glance.addQueued('weekly', backup('weekly'));
    harness.glance.addQueued('others', backup('daily', 'another'));
    harness.glance.addQueued('snap', backup('daily'));

    await harness.send('backup_instance', { instance, image_id: 'snap', backup_type: 'daily', rotation: 2 });

    expect([...harness.glance.images.keys()]).toEqual(['older', 'weekly', 'others', 'snap']);
    expect(tasksOf(harness)[0]).toEqual(['image_pending_upload', 'image_backup']);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
  });

  it('deletes the others when one cannot be deleted, and tells of that', async () => {
    await using harness = new ComputeHarness();
    const instance = await prepared(harness, 'image_backup');
    const properties = { image_type: 'backup', backup_type: 'd', instance_uuid: instance['nova_object.data'].uuid };
    harness.glance.images.clear();
    for (const id of ['a', 'b', 'snap']) harness.glance.addQueued(id, properties);
    harness.glance.failNext(/^DELETE b/, new AppError('forbidden', 'protected'));

    const backup = { instance, image_id: 'snap', backup_type: 'd', rotation: 1 };
    await expect(harness.send('backup_instance', backup)).rejects.toThrow('protected');

    expect([...harness.glance.images.keys()]).toEqual(['b', 'snap']);
  });
});
