// Instances whose root is a volume of Cinder's.
import { createHash, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { RequestContext } from '#src/nova/context.ts';
import { volumeImage } from '#src/compute/volumes/root-volume.ts';
import { ComputeHarness, instanceOf, object, userContext } from '#test/fakes/compute-harness.ts';
import { flavorOf, SOURCE, TARGET, TwoComputes } from '#test/fakes/moving.ts';

type Json = Readonly<Record<string, any>>;

const signal = (): AbortSignal => AbortSignal.timeout(5000);
const uuidOf = (instance: Json): string => instance['nova_object.data'].uuid;
const guestOf = (harness: ComputeHarness, instance: Json) => harness.virt.instances.get(uuidOf(instance));
const stored = (harness: ComputeHarness, instance: Json): Json => instanceOf(harness.row(instance));

function rootDevice(instance: Json, fields: Json): Json {
  return {
    id: 2,
    uuid: randomUUID(),
    instance_uuid: uuidOf(instance),
    source_type: 'volume',
    destination_type: 'volume',
    boot_index: 0,
    device_name: null,
    tag: null,
    volume_id: null,
    attachment_id: null,
    connection_info: null,
    delete_on_termination: false,
    ...fields,
  };
}

const listOf = (...devices: readonly Json[]): Json =>
  object('BlockDeviceMappingList', '1.18', {
    objects: devices.map((device) => object('BlockDeviceMapping', '1.21', device)),
  });

/** As the API leaves it: an instance without an image, and its one block device. */
async function build(harness: ComputeHarness, fields: Json = {}): Promise<{ instance: Json; volumeId: string }> {
  const instance = instanceOf({ image_ref: '', system_metadata: {} });
  const device = rootDevice(instance, fields);
  harness.plane.blockDevices.push(device);
  await harness.build(instance, { image: {}, block_device_mapping: listOf(device) });
  return { instance, volumeId: harness.plane.blockDevices[0]?.['volume_id'] };
}

async function running(harness: ComputeHarness, fields: Json = {}): Promise<{ instance: Json; volumeId: string }> {
  const { id } = harness.cinder.addVolume();
  return await build(harness, { volume_id: id, ...fields });
}

describe('a build from a volume', () => {
  it('connects the volume as the root of the guest, and asks for no image', async () => {
    await using harness = new ComputeHarness();

    const { instance, volumeId } = await running(harness);

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', root_device_name: '/dev/sda' });
    expect(guestOf(harness, instance)?.spec.image).toBeNull();
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId, guestPath: '/dev/sda', isRoot: true }]);
    expect(harness.cinder.statusOf(volumeId)).toBe('in-use');
  });

  it.each([
    ['image', { image_id: 'image-1' }],
    ['snapshot', { snapshot_id: 'snapshot-1' }],
  ])('has Cinder make the volume of an %s', async (source, fields) => {
    await using harness = new ComputeHarness();

    const { instance, volumeId } = await build(harness, { source_type: source, volume_size: 3, ...fields });

    expect([...harness.cinder.volumes.values()]).toMatchObject([{ id: volumeId, sizeGib: 3 }]);
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId, isRoot: true }]);
  });

  it('refuses an empty volume, and one where the engine cannot', async () => {
    await using harness = new ComputeHarness();
    const blank = await build(harness, { source_type: 'blank', volume_size: 3 });
    expect(harness.row(blank.instance)).toMatchObject({ vm_state: 'error' });
    expect(harness.plane.faults.at(-1)).toMatchObject({ message: expect.stringContaining('nothing to boot from') });
    expect(harness.cinder.volumes.size).toBe(0);
    harness.plane.blockDevices.length = 0;
    harness.virt.canBootFromVolume = false;

    const { instance, volumeId } = await running(harness);

    expect(harness.row(instance)).toMatchObject({ vm_state: 'error', host: null });
    expect(harness.cinder.statusOf(volumeId)).toBe('available');
    expect(harness.volumes.connected.size).toBe(0);
  });
});

describe('the image on a volume', () => {
  const content = Buffer.from('an image');
  const md5 = createHash('md5').update(content).digest('hex');
  const told = { image_id: 'image-1', checksum: md5, size: String(content.length), disk_format: 'raw' };
  const use = (volumeId: string) => ({ volumeId, instanceUuid: randomUUID() });
  const context = RequestContext.fromWire(userContext());

  function world(imageMetadata?: Readonly<Record<string, string>>) {
    const harness = new ComputeHarness();
    const { id } = harness.cinder.addVolume(imageMetadata ? { imageMetadata } : {});
    harness.volumes.contents.set(id, Buffer.concat([content, Buffer.alloc(4096)]));
    return { harness, find: () => volumeImage(harness.services, context, use(id), signal()) };
  }

  it('is Glance’s, when Glance shows the user the same', async () => {
    const { harness, find } = world(told);
    harness.glance.addActive('image-1', { checksum: md5, sizeBytes: content.length });

    const image = await find();

    expect(image).toMatchObject({ id: 'image-1', cacheKey: `md5:${md5}` });
    expect(await text((await image?.open(signal())) ?? Readable.from([]))).toBe('an image');
  });

  it('is what is on the volume, when its metadata tell of an image that the user is not shown', async () => {
    const { find } = world({ ...told, checksum: 'that of somebody’s secret image' });

    const image = await find();

    expect(image?.cacheKey).toBe(`sha256:${createHash('sha256').update(content).digest('hex')}`);
    expect(await text((await image?.open(signal())) ?? Readable.from([]))).toBe('an image');
  });

  it('cannot be read where the volume is not what Glance says', async () => {
    const { harness, find } = world(told);
    harness.glance.addActive('image-1', { checksum: md5, sizeBytes: content.length });
    harness.volumes.contents.forEach((bytes) => bytes.fill('x', 0, 2));

    const image = await find();

    await expect(image?.open(signal()).then((stream) => text(stream))).rejects.toMatchObject({ kind: 'invalid' });
  });

  it.each([
    ['nothing', undefined],
    ['no size', { ...told, size: 'large' }],
    ['a size below zero', { ...told, size: '-1' }],
  ])('is not known where Cinder tells %s', async (_what, metadata) => {
    expect(await world(metadata).find()).toBeNull();
  });
});

describe('an instance on a volume', () => {
  it('gives the volume back when it ends', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await running(harness);

    await harness.send('terminate_instance', { instance: stored(harness, instance), bdms: null });

    expect(harness.cinder.statusOf(volumeId)).toBe('available');
    expect(harness.volumes.connected.size).toBe(0);
  });

  it('is taken off the host as the API shelves it, and comes back without an image', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await running(harness);
    Object.assign(harness.row(instance), { task_state: 'shelving' });

    await harness.send('shelve_offload_instance', { instance: stored(harness, instance), clean_shutdown: true });
    expect(harness.row(instance)).toMatchObject({ vm_state: 'shelved_offloaded', host: null });
    expect(harness.cinder.statusOf(volumeId)).toBe('reserved');
    Object.assign(harness.row(instance), { task_state: 'unshelving' });
    await harness.send('unshelve_instance', { instance: stored(harness, instance), image: null, node: 'fake1' });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId, isRoot: true }]);
  });

  const rebuildArgs = (harness: ComputeHarness, instance: Json): Json => ({
    instance: stored(harness, instance),
    image_ref: 'image-1',
    orig_image_ref: 'image-1',
    orig_sys_metadata: {},
    injected_files: [],
    new_pass: 'secret',
    bdms: listOf(harness.plane.blockDevices[0] ?? {}),
    recreate: false,
  });

  it('is made anew around its volume', async () => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await running(harness);
    harness.glance.addActive('image-1');
    Object.assign(harness.row(instance), { task_state: 'rebuilding' });

    await harness.send('rebuild_instance', rebuildArgs(harness, instance));

    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', image_ref: '' });
    expect(guestOf(harness, instance)?.volumes).toMatchObject([{ volumeId, isRoot: true }]);
    expect(harness.cinder.requests.filter((request) => request.startsWith('reimage'))).toEqual([]);
  });

  it.each([
    ['completed', 'active'],
    ['failed', 'error'],
  ])('has its volume written over where that was asked for, and Cinder says: %s', async (status, vmState) => {
    await using harness = new ComputeHarness();
    const { instance, volumeId } = await running(harness);
    harness.glance.addActive('image-1');
    Object.assign(harness.row(instance), { task_state: 'rebuilding' });
    harness.cinder.onReimage = (tag) => {
      expect(harness.cinder.statusOf(tag)).toBe('reserved');
      const event = { instance_uuid: uuidOf(instance), name: 'volume-reimaged', tag, status, data: {} };
      const events = [object('InstanceExternalEvent', '1.5', event)];
      void harness.send('external_instance_event', { instances: [instance], events });
    };

    const args = { ...rebuildArgs(harness, instance), reimage_boot_volume: true };
    await harness.send('rebuild_instance', args).catch((error: unknown) => {
      expect(error).toMatchObject({ name: 'BuildAbortException' });
    });

    expect(harness.cinder.requests).toContain(`reimage ${volumeId} with image-1`);
    expect(harness.row(instance)).toMatchObject({ vm_state: vmState, image_ref: '' });
  });

  it('is not rescued', async () => {
    await using harness = new ComputeHarness();
    const { instance } = await running(harness);

    await expect(
      harness.send('rescue_instance', {
        instance: stored(harness, instance),
        rescue_password: 'secret',
        rescue_image_ref: null,
        clean_shutdown: true,
      }),
    ).rejects.toMatchObject({ name: 'InstanceNotRescuable' });

    expect(guestOf(harness, instance)?.powerState).toBe(1);
  });
});

describe('a move of an instance on a volume', () => {
  async function onVolume(cloud: TwoComputes, fields: Json = {}): Promise<{ instance: Json; volumeId: string }> {
    const instance = await cloud.server({ image_ref: '', ...fields });
    const { id } = cloud.source.cinder.addVolume();
    const attachment = cloud.source.cinder.reserve(id, uuidOf(instance));
    const device = rootDevice(instance, { volume_id: id, attachment_id: attachment, device_name: '/dev/sda' });
    cloud.plane.blockDevices.push(device);
    return { instance, volumeId: id };
  }

  it.each(['active', 'stopped'])('takes the volume along and no data, when it is %s', async (vmState) => {
    await using cloud = new TwoComputes();
    const { instance, volumeId } = await onVolume(cloud, { vm_state: vmState });
    cloud.source.virt.moves.refusal = new Error('nothing can leave');

    await cloud.move(instance);

    expect(cloud.plane.instances.get(uuidOf(instance))).toMatchObject({ host: TARGET, vm_state: 'resized' });
    expect(guestOf(cloud.target, instance)).toMatchObject({
      volumes: [{ volumeId, isRoot: true }],
      powerState: vmState === 'active' ? 1 : 4,
    });
    expect(cloud.source.volumes.connected.size).toBe(0);
    expect(cloud.source.cinder.statusOf(volumeId)).toBe('in-use');
  });

  it('may go to a flavor with a smaller root', async () => {
    await using cloud = new TwoComputes();
    const { instance } = await onVolume(cloud);

    await cloud.move(instance, { flavor: flavorOf(3, { root_gb: 0 }) });

    expect(cloud.plane.instances.get(uuidOf(instance))).toMatchObject({ vm_state: 'resized' });
  });

  it('does not begin with ephemeral disks, or where no volume can be booted from', async () => {
    await using cloud = new TwoComputes();
    const flavor = flavorOf(1, { ephemeral_gb: 1 });
    const { instance } = await onVolume(cloud, { flavor });
    await cloud.move(instance, { flavor: flavorOf(2, { ephemeral_gb: 1 }) }).catch(() => undefined);
    expect(cloud.plane.instances.get(uuidOf(instance))).toMatchObject({ host: SOURCE, vm_state: 'active' });
    const other = await onVolume(cloud);
    cloud.target.virt.canBootFromVolume = false;

    await cloud.move(other.instance).catch(() => undefined);

    expect(cloud.plane.instances.get(uuidOf(other.instance))).toMatchObject({ host: SOURCE, vm_state: 'active' });
    expect(guestOf(cloud.target, other.instance)).toBeUndefined();
  });
});
