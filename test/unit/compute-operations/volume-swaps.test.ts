// Another volume in the place of one that an instance has: what is copied, and what is left when it cannot be.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { ComputeHarness, instanceOf, object } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

const uuidOf = (instance: Json): string => instance['nova_object.data'].uuid;

interface World {
  readonly instance: Json;
  readonly oldId: string;
  readonly newId: string;
  readonly attachment: string;
  swap(): Promise<unknown>;
}

/** A running instance with a volume, and another volume that Nova's API has reserved for it. */
async function world(
  harness: ComputeHarness,
  fields: { old?: Json; fresh?: Json; device?: Json } = {},
): Promise<World> {
  const built = instanceOf();
  await harness.build(built);
  const instance = instanceOf(harness.row(built));
  const { id: oldId } = harness.cinder.addVolume(fields.old);
  const wish = { device: null, disk_bus: null, device_type: null, tag: null, multiattach: false };
  const device = (await harness.send('reserve_block_device_name', { ...wish, instance, volume_id: oldId })) as Json;
  const attachment = harness.cinder.reserve(oldId, uuidOf(instance));
  const row = { ...device['nova_object.data'], attachment_id: attachment, ...fields.device };
  harness.plane.blockDevices.splice(0, 1, row);
  await harness.send('attach_volume', { instance, bdm: object('BlockDeviceMapping', '1.21', row) });
  harness.volumes.contents.set(oldId, Buffer.from('kept'));
  const { id: newId } = harness.cinder.addVolume({ sizeGib: 2, ...fields.fresh });
  const fresh = harness.cinder.reserve(newId, uuidOf(instance));
  harness.moments.length = 0;
  harness.plane.events.length = 0;
  harness.cinder.requests.length = 0;
  const args = { instance, old_volume_id: oldId, new_volume_id: newId, new_attachment_id: fresh };
  return { instance, oldId, newId, attachment: fresh, swap: async () => harness.send('swap_volume', args) };
}

const guestVolumes = (harness: ComputeHarness, { instance }: World) =>
  harness.virt.instances.get(uuidOf(instance))?.volumes.map(({ volumeId, guestPath }) => [volumeId, guestPath]);

function expectAsBefore(harness: ComputeHarness, own: World): void {
  const { oldId, newId, instance } = own;
  expect(guestVolumes(harness, own)).toEqual([[oldId, '/dev/sdb']]);
  expect([...harness.volumes.connected.keys()]).toEqual([`${oldId}/${uuidOf(instance)}`]);
  expect(harness.cinder.statusOf(newId)).toBe('available');
  expect(harness.cinder.statusOf(oldId)).toBe('in-use');
  expect(harness.cinder.requests).toContain(`roll_detaching ${oldId}`);
  expect(harness.plane.blockDevices).toMatchObject([{ volume_id: oldId }]);
  expect(harness.moments).toEqual(['volume_swap.start', 'volume_swap.error', 'failure swap_volume']);
}

describe('swap_volume', () => {
  it('gives the guest the new volume with what the old one had, under the same name', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness);

    await own.swap();

    const { oldId, newId, attachment, instance } = own;
    expect(guestVolumes(harness, own)).toEqual([[newId, '/dev/sdb']]);
    expect(String(harness.volumes.contents.get(newId))).toBe('kept');
    expect([...harness.volumes.connected.keys()]).toEqual([`${newId}/${uuidOf(instance)}`]);
    expect([harness.cinder.statusOf(oldId), harness.cinder.statusOf(newId)]).toEqual(['available', 'in-use']);
    const saved = { volume_id: newId, attachment_id: attachment, volume_size: 2, device_name: '/dev/sdb' };
    expect(harness.plane.blockDevices).toMatchObject([saved]);
    expect(harness.moments).toEqual(['volume_swap.start', 'volume_swap.end']);
    expect(harness.plane.events).toEqual([{ event: 'compute_swap_volume', result: 'Success', details: null }]);
    expect(harness.cinder.requests.filter((request) => request.startsWith('migration'))).toEqual([]);
  });

  it('lets Cinder give a migrated volume the name of the old one, and finds it again', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness, { old: { migrationStatus: 'migrating' } });
    const { oldId, newId, instance, attachment } = own;

    await own.swap();

    expect(harness.cinder.requests.at(-1)).toBe(`migration of ${oldId} completed`);
    expect(harness.plane.blockDevices).toMatchObject([{ volume_id: oldId, attachment_id: attachment }]);
    expect(guestVolumes(harness, own)).toEqual([[newId, '/dev/sdb']]);
    await harness.send('detach_volume', { instance, volume_id: oldId, attachment_id: attachment });
    expect(guestVolumes(harness, own)).toEqual([]);
    expect(harness.volumes.connected.size).toBe(0);
    expect(harness.cinder.statusOf(oldId)).toBe('available');
  });

  it('refuses a volume that a program of the guest has open: both are as they were', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness);
    harness.volumes.openBy.set(own.oldId, ['postgres']);

    await expect(own.swap()).rejects.toThrow('in use in the server (by postgres)');

    expectAsBefore(harness, own);
  });

  it('refuses the volume that the instance runs from', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness, { device: { boot_index: 0 } });

    await expect(own.swap()).rejects.toThrow('the server runs from it');

    expect(harness.cinder.statusOf(own.newId)).toBe('available');
  });

  it('leaves the old volume attached when the copy fails, and tells Cinder of a migration that failed', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness, { old: { migrationStatus: 'migrating' } });
    harness.volumes.failNext('copy', new AppError('internal', 'I/O error'));

    await expect(own.swap()).rejects.toThrow('I/O error');

    expectAsBefore(harness, own);
    expect(harness.cinder.requests.at(-1)).toBe(`migration of ${own.oldId} failed`);
  });

  it.each(['PUT attachment', 'complete attachment'])(
    'leaves the old volume attached when Cinder fails at %s',
    async (request) => {
      await using harness = new ComputeHarness();
      const own = await world(harness);
      harness.cinder.failNext(new RegExp(request));

      await expect(own.swap()).rejects.toThrow('volumev3');

      expectAsBefore(harness, own);
    },
  );

  it('ends with the instance', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness);
    const { promise: copying, resolve } = Promise.withResolvers<void>();
    harness.volumes.onCopy = (signal) => {
      resolve();
      return new Promise((_done, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
    };

    const swap = own.swap();
    await copying;
    const bdms = object('BlockDeviceMappingList', '1.18', {
      objects: [object('BlockDeviceMapping', '1.21', { ...harness.plane.blockDevices[0] })],
    });
    const end = harness.send('terminate_instance', { instance: own.instance, bdms });

    await expect(swap).rejects.toThrow();
    await end;
    expect(harness.volumes.connected.size).toBe(0);
    expect([harness.cinder.statusOf(own.oldId), harness.cinder.statusOf(own.newId)]).toEqual([
      'available',
      'available',
    ]);
  });
});
