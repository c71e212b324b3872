// Volumes of instances: every way in and out, and what is left when a step of it fails.
import { OpenStackError } from 'keystone-client-ts';
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { buildArgs, ComputeHarness, instanceOf, object } from '#test/fakes/compute-harness.ts';
import { SOURCE, TwoComputes } from '#test/fakes/moving.ts';

type Json = Readonly<Record<string, any>>;

const uuidOf = (instance: Json): string => instance['nova_object.data'].uuid;
const guestOf = (harness: ComputeHarness, instance: Json) => harness.virt.instances.get(uuidOf(instance));
const stored = (harness: ComputeHarness, instance: Json): Json => instanceOf(harness.row(instance));

async function running(harness: ComputeHarness): Promise<Json> {
  const instance = instanceOf();
  await harness.build(instance);
  harness.moments.length = 0;
  harness.plane.events.length = 0;
  return stored(harness, instance);
}

const RESERVE = { device: null, disk_bus: null, device_type: null, tag: null, multiattach: false };

async function reserve(harness: ComputeHarness, instance: Json, volumeId: string, args: Json = {}): Promise<Json> {
  const wish = { ...RESERVE, instance, volume_id: volumeId, ...args };
  const device = (await harness.send('reserve_block_device_name', wish)) as Json;
  const { id } = device['nova_object.data'];
  const attachment = harness.cinder.reserve(volumeId, uuidOf(instance));
  const row = harness.plane.blockDevices.find((one) => one['id'] === id);
  if (row) row['attachment_id'] = attachment;
  return object('BlockDeviceMapping', '1.21', { ...device['nova_object.data'], attachment_id: attachment });
}

/** A running instance with a volume, as the API leaves it. */
async function withVolume(harness: ComputeHarness, fields: Json = {}): Promise<{ instance: Json; volumeId: string }> {
  const instance = await running(harness);
  const { id } = harness.cinder.addVolume(fields);
  await harness.send('attach_volume', { instance, bdm: await reserve(harness, instance, id) });
  harness.moments.length = 0;
  harness.plane.events.length = 0;
  harness.cinder.requests.length = 0;
  return { instance, volumeId: id };
}

function expectFree(harness: ComputeHarness, volumeId: string): void {
  expect(harness.cinder.statusOf(volumeId)).toBe('available');
  expect(harness.volumes.connected.size).toBe(0);
  expect(harness.plane.blockDevices).toEqual([]);
}

describe('reserve_block_device_name', () => {
  it('names the next free device, or the one that is wanted with the prefix of the root', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const names = [null, '/dev/vdf', null].map((device, index) => [`volume-${index}`, device] as const);

    const made: unknown[] = [];
    for (const [volume, device] of names) {
      const answer = (await harness.send('reserve_block_device_name', {
        ...RESERVE,
        instance,
        volume_id: volume,
        device,
      })) as Json;
      made.push(answer['nova_object.data'].device_name);
    }

    expect(made).toEqual(['/dev/sdb', '/dev/sdf', '/dev/sdc']);
    expect(harness.plane.blockDevices).toHaveLength(3);
  });

  it.each([
    ['DevicePathInUse', { volume_id: 'second', device: '/dev/vdb' }],
    ['InvalidDevicePath', { volume_id: 'second', device: '/dev/../etc/shadow' }],
    ['InvalidVolume', { volume_id: 'first' }],
  ])('answers with %s', async (name, args) => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    await harness.send('reserve_block_device_name', { ...RESERVE, instance, volume_id: 'first' });

    await expect(harness.send('reserve_block_device_name', { ...RESERVE, instance, ...args })).rejects.toMatchObject({
      name,
    });

    expect(harness.plane.blockDevices).toHaveLength(1);
  });
});

describe('attach_volume', () => {
  it('with a tag tells the guest of it until the volume goes', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const { id } = harness.cinder.addVolume();

    await harness.send('attach_volume', { instance, bdm: await reserve(harness, instance, id, { tag: 'database' }) });
    const told = harness.row(instance)['device_metadata'];
    await harness.send('detach_volume', { instance, volume_id: id, attachment_id: null });

    expect(told['nova_object.data'].devices).toMatchObject([
      {
        'nova_object.name': 'DiskMetadata',
        'nova_object.data': { serial: id, path: '/dev/sdb', tags: ['database'] },
      },
    ]);
    expect(harness.row(instance)['device_metadata']['nova_object.data'].devices).toEqual([]);
  });

  it('tells Cinder of this host, gives the guest the device, and writes down how it is reached', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const { id } = harness.cinder.addVolume();

    await harness.send('attach_volume', { instance, bdm: await reserve(harness, instance, id) });

    expect(harness.cinder.statusOf(id)).toBe('in-use');
    expect([...harness.cinder.attachments.values()]).toMatchObject([
      { connector: { host: 'fake1', ip: '10.0.0.1', mountpoint: '/dev/sdb' } },
    ]);
    const hostPath = `/volumes/${id}/${uuidOf(instance)}`;
    expect(guestOf(harness, instance)?.volumes).toEqual([{ volumeId: id, hostPath, guestPath: '/dev/sdb' }]);
    expect(JSON.parse(harness.plane.blockDevices[0]?.['connection_info'])).toMatchObject({
      driver_volume_type: 'nfs',
      data: { export: 'server:/share' },
      serial: id,
    });
    expect(harness.moments).toEqual(['volume_attach.start', 'volume_attach.end']);
    expect(harness.plane.events).toEqual([{ event: 'compute_attach_volume', result: 'Success', details: null }]);
  });

  const failures: readonly (readonly [string, (harness: ComputeHarness) => void])[] = [
    ['Cinder knows no such volume', ({ cinder }) => cinder.failNext(/GET volume/)],
    ['Cinder cannot connect it', ({ cinder }) => cinder.failNext(/PUT attachment/)],
    ['this host cannot connect it', ({ volumes }) => volumes.failNext('connect', new AppError('unsupported', 'no'))],
    ['the guest cannot have it', ({ virt }) => virt.failNext('attachVolume', new AppError('internal', 'no'))],
    ['Cinder does not take its completion', ({ cinder }) => cinder.failNext(/complete/)],
  ];
  it.each(failures)('leaves nothing when %s', async (_what, fail) => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const { id } = harness.cinder.addVolume();
    const bdm = await reserve(harness, instance, id);
    fail(harness);

    await expect(harness.send('attach_volume', { instance, bdm })).rejects.toMatchObject({
      name: 'VolumeAttachFailed',
    });

    expectFree(harness, id);
    expect(guestOf(harness, instance)?.volumes).toEqual([]);
    expect(harness.moments).toEqual(['volume_attach.start', 'volume_attach.error', 'failure attach_volume']);
    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it('keeps the attachment while this host may still use the volume', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const { id } = harness.cinder.addVolume();
    const bdm = await reserve(harness, instance, id);
    harness.virt.failNext('attachVolume', new AppError('internal', 'no'));
    harness.volumes.failNext('disconnect', new AppError('conflict', 'busy'));

    await expect(harness.send('attach_volume', { instance, bdm })).rejects.toThrow();

    expect(harness.cinder.statusOf(id)).toBe('attaching');
  });

  it('refuses an encrypted volume', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const { id } = harness.cinder.addVolume({ encrypted: true });

    await expect(
      harness.send('attach_volume', { instance, bdm: await reserve(harness, instance, id) }),
    ).rejects.toMatchObject({ message: expect.stringContaining('encryption is not supported') });

    expectFree(harness, id);
  });
});

describe('detach_volume', () => {
  it('leaves the volume available', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);

    await harness.send('detach_volume', { instance, volume_id: volumeId, attachment_id: null });

    expectFree(harness, volumeId);
    expect(guestOf(harness, instance)?.volumes).toEqual([]);
    expect(harness.moments).toEqual(['volume_detach.start', 'volume_detach.end']);
  });

  it.each([
    ['the guest does not let go', 'virt'],
    ['the device is in use', 'volumes'],
  ] as const)('leaves it in use when %s', async (_what, where) => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);
    const error = new AppError('conflict', 'busy');
    if (where === 'virt') harness.virt.failNext('detachVolume', error);
    else harness.volumes.failNext('disconnect', error);

    await expect(harness.send('detach_volume', { instance, volume_id: volumeId })).rejects.toMatchObject({
      name: 'VolumeDetachFailed',
    });

    expect(harness.cinder.requests).toEqual([`roll_detaching ${volumeId}`]);
    expect(harness.cinder.statusOf(volumeId)).toBe('in-use');
    expect(harness.plane.blockDevices).toHaveLength(1);
  });

  it('knows what the instance has not', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);

    await expect(harness.send('detach_volume', { instance, volume_id: 'nothing' })).rejects.toMatchObject({
      name: 'VolumeBDMNotFound',
    });
  });
});

describe('a volume of an instance', () => {
  it('is mounted where the metadata of the server says, by its tag', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    harness.row(instance)['metadata'] = { 'lxd:volume_mount': '/volumes' };
    const { id } = harness.cinder.addVolume();

    const bdm = await reserve(harness, stored(harness, instance), id, { tag: 'data' });
    await harness.send('attach_volume', { instance: stored(harness, instance), bdm });

    const mount = { path: '/volumes/data', formats: false };
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId: id, guestPath: '/dev/sdb', mount }]);
  });

  it('grows with the event of Cinder', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);
    harness.cinder.addVolume({ id: volumeId, sizeGib: 7 });
    const event = {
      instance_uuid: uuidOf(instance),
      name: 'volume-extended',
      tag: volumeId,
      status: 'completed',
      data: {},
    };

    await harness.send('external_instance_event', {
      instances: [instance],
      events: [object('InstanceExternalEvent', '1.5', event)],
    });

    expect(harness.volumes.extended).toMatchObject([{ type: 'nfs' }]);
    expect(harness.plane.blockDevices[0]).toMatchObject({ volume_size: 7 });
    expect(harness.plane.events).toEqual([{ event: 'compute_extend_volume', result: 'Success', details: null }]);
  });

  it('is given back when the instance is deleted, and deleted when that was wanted', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);
    const bdms = object('BlockDeviceMappingList', '1.18', {
      objects: [object('BlockDeviceMapping', '1.21', { ...harness.plane.blockDevices[0] })],
    });
    Object.assign(harness.plane.blockDevices[0] ?? {}, { delete_on_termination: true });

    await harness.send('terminate_instance', { instance, bdms });

    expect(harness.cinder.volumes.has(volumeId)).toBe(false);
    expect(harness.cinder.attachments.size).toBe(0);
    expect(harness.volumes.connected.size).toBe(0);
  });

  it('keeps the attachment, and the instance, when it cannot be disconnected', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);
    harness.volumes.failNext('disconnect', new AppError('conflict', 'busy'));

    await expect(harness.send('terminate_instance', { instance, bdms: null })).rejects.toThrow('busy');

    expect(harness.cinder.statusOf(volumeId)).toBe('in-use');
    expect(harness.row(instance)['vm_state']).toBe('error');
  });

  it('is connected again at the start, as after a boot of the host, also while Cinder is away', async () => {
    await using harness = new ComputeHarness();
    const { instance } = await withVolume(harness);
    await harness.send('stop_instance', { instance: { ...instance }, clean_shutdown: false }).catch(() => undefined);
    harness.virt.instances.forEach((guest) => Object.assign(guest, { powerState: 4, volumes: [] }));
    harness.volumes.connected.clear();
    Object.assign(harness.row(instance), { task_state: 'powering-on', vm_state: 'stopped' });
    harness.cinder.failNext(/GET attachment/, new OpenStackError('no answer', { status: 503 }));

    await harness.send('start_instance', { instance: stored(harness, instance) });

    expect(harness.volumes.connected.size).toBe(1);
    expect(guestOf(harness, instance)?.volumes).toHaveLength(1);
  });

  it('is not connected at the start when its attachment is gone: it is somebody else’s', async () => {
    await using harness = new ComputeHarness();
    const { instance } = await withVolume(harness);
    harness.virt.instances.forEach((guest) => Object.assign(guest, { powerState: 4 }));
    harness.cinder.attachments.clear();
    Object.assign(harness.row(instance), { task_state: 'powering-on', vm_state: 'stopped' });

    await harness.send('start_instance', { instance: stored(harness, instance) });

    expect(guestOf(harness, instance)?.volumes).toEqual([]);
    expect(harness.plane.blockDevices).toEqual([]);
    expect(harness.volumes.connected.size).toBe(0);
  });

  it('stays with the instance, unknown to be gone, when Cinder is not to be found', async () => {
    await using harness = new ComputeHarness();
    const { instance } = await withVolume(harness);
    harness.virt.instances.forEach((guest) => Object.assign(guest, { powerState: 4 }));
    Object.assign(harness.row(instance), { task_state: 'powering-on', vm_state: 'stopped' });
    const nowhere = new OpenStackError('not in the catalogue', { status: 404, code: 'EndpointNotFound' });
    harness.cinder.failNext(/GET attachment/, nowhere);

    await harness.send('start_instance', { instance: stored(harness, instance) });

    expect(guestOf(harness, instance)?.volumes).toHaveLength(1);
    expect(harness.plane.blockDevices).toHaveLength(1);
  });

  it('is reserved while the instance is shelved, and comes back with it', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);
    harness.glance.addQueued('snap');
    Object.assign(harness.row(instance), { task_state: 'shelving' });
    const args = { image_id: 'snap', clean_shutdown: false };

    await harness.send('shelve_instance', { instance: stored(harness, instance), ...args });
    expect(harness.cinder.statusOf(volumeId)).toBe('reserved');
    expect(harness.volumes.connected.size).toBe(0);
    Object.assign(harness.row(instance), { task_state: 'unshelving' });
    const image = { ...buildArgs(instance)['image'], id: 'snap' };
    await harness.send('unshelve_instance', { instance: stored(harness, instance), image, node: 'fake1' });

    expect(harness.cinder.statusOf(volumeId)).toBe('in-use');
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId, guestPath: '/dev/sdb' }]);
    expect(harness.plane.blockDevices).toHaveLength(1);
  });

  it('gets its name when the instance comes back, if it was attached while that was nowhere', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await withVolume(harness);
    harness.glance.addQueued('snap');
    Object.assign(harness.row(instance), { task_state: 'shelving' });
    const args = { image_id: 'snap', clean_shutdown: false };
    await harness.send('shelve_instance', { instance: stored(harness, instance), ...args });
    const row = harness.plane.blockDevices[0]?.['nova_object.data'] ?? harness.plane.blockDevices[0];
    Object.assign(row as Json, { device_name: null });
    Object.assign(harness.row(instance), { task_state: 'unshelving' });
    const image = { ...buildArgs(instance)['image'], id: 'snap' };

    await harness.send('unshelve_instance', { instance: stored(harness, instance), image, node: 'fake1' });

    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId, guestPath: '/dev/sdb' }]);
    expect(JSON.stringify(harness.plane.blockDevices)).toContain('/dev/sdb');
  });
});

function volumeDevice(instance: Json, fields: Json): Json {
  const common = { id: 2, uuid: 'bdm', instance_uuid: uuidOf(instance), boot_index: -1, device_name: null, tag: null };
  const nothing = { volume_id: null, attachment_id: null, connection_info: null, delete_on_termination: false };
  const kind = { source_type: 'volume', destination_type: 'volume' };
  return object('BlockDeviceMapping', '1.21', { ...common, ...nothing, ...kind, ...fields });
}

function withDevice(instance: Json, device: Json): Json {
  const { block_device_mapping: mapping } = buildArgs(instance);
  mapping['nova_object.data'].objects.push(device);
  return { block_device_mapping: mapping };
}

describe('a build with a volume', () => {
  it('gives it to the guest before Nova has `spawning`', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    const { id } = harness.cinder.addVolume();
    const device = volumeDevice(instance, {
      volume_id: id,
      attachment_id: harness.cinder.reserve(id, uuidOf(instance)),
    });

    await harness.build(instance, withDevice(instance, device));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active' });
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId: id, guestPath: '/dev/sdb' }]);
    expect(harness.cinder.statusOf(id)).toBe('in-use');
  });

  it('makes the volume when there is none', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();

    await harness.build(
      instance,
      withDevice(instance, volumeDevice(instance, { source_type: 'blank', volume_size: 3 })),
    );

    expect([...harness.cinder.volumes.values()]).toMatchObject([{ sizeGib: 3 }]);
    expect(guestOf(harness, instance)?.volumes).toHaveLength(1);
  });

  it.each(['PUT attachment', 'complete'])('that fails at %s leaves it available', async (step) => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    const { id } = harness.cinder.addVolume();
    const device = volumeDevice(instance, {
      volume_id: id,
      attachment_id: harness.cinder.reserve(id, uuidOf(instance)),
    });
    harness.cinder.failNext(new RegExp(step));

    await harness.build(instance, withDevice(instance, device));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error' });
    expect(harness.plane.faults[0]).toMatchObject({ message: expect.stringContaining('Failed to attach the volumes') });
    expectFree(harness, id);
    expect(guestOf(harness, instance)).toBeUndefined();
  });

  it('that fails later leaves it available for the next host', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    const { id } = harness.cinder.addVolume();
    const fields = { volume_id: id, attachment_id: harness.cinder.reserve(id, uuidOf(instance)) };
    harness.virt.failNext('spawn', new AppError('internal', 'no'));

    await harness.build(
      instance,
      withDevice(instance, volumeDevice(instance, { ...fields, delete_on_termination: true })),
    );

    expect(harness.plane.casts.map(({ method }) => method)).toContain('build_instances');
    expect(harness.cinder.volumes.has(id)).toBe(true);
    expectFree(harness, id);
  });

  it('as its root is refused by an engine that cannot', async () => {
    await using harness = new ComputeHarness();
    harness.virt.canBootFromVolume = false;
    const instance = instanceOf();

    await harness.build(instance, withDevice(instance, volumeDevice(instance, { volume_id: 'v', boot_index: 0 })));

    expect(harness.plane.faults[0]).toMatchObject({ message: expect.stringContaining('Booting from a volume') });
  });
});

describe('a move with a volume', () => {
  it('connects it at the destination, and at the source again when the move is reverted', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    const { id } = computes.source.cinder.addVolume();
    const bdm = await reserve(computes.source, computes.stored(instance), id);
    await computes.source.send('attach_volume', { instance: computes.stored(instance), bdm });

    await computes.move(instance);
    expect(computes.source.volumes.connected.size).toBe(0);
    expect(computes.target.volumes.connected.size).toBe(1);
    expect(computes.guests(instance)[1]?.volumes).toMatchObject([{ volumeId: id }]);
    await computes.end(instance, 'revert_resize');

    expect(computes.source.row(instance)).toMatchObject({ host: SOURCE, vm_state: 'active' });
    expect(computes.source.volumes.connected.size).toBe(1);
    expect(computes.target.volumes.connected.size).toBe(0);
    expect(computes.source.cinder.statusOf(id)).toBe('in-use');
    expect(computes.source.cinder.attachments.size).toBe(1);
  });
});
