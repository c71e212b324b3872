// Volumes that come about with their instance: empty ones, and those from images and snapshots (section 5.2 step 10).
import type { RequestContext } from '#src/nova/context.ts';
import { AppError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { NewVolume } from '#src/openstack/types.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';
import type { BlockDevice } from './block-devices.ts';

type Services = Pick<ComputeServices, 'cinder' | 'conductor' | 'config'>;

/** Does nothing for a device that has its volume and its attachment. What was made is written down at once. */
export async function ensureVolume(
  services: Services,
  context: RequestContext,
  { instance, device }: { readonly instance: NovaObject<'Instance'>; readonly device: BlockDevice },
  signal: AbortSignal,
): Promise<void> {
  const { cinder, conductor } = services;
  const credentials = userCredentials(context);
  let volumeId = device.find('volume_id') ?? null;
  if (volumeId === null) {
    const { id } = await cinder.createVolume(credentials, newVolume(services, instance, device), signal);
    volumeId = id;
    device.set('volume_id', id);
    await conductor.save(context, device);
    await untilAvailable(services, context, id, signal);
  }
  if ((device.find('attachment_id') ?? null) !== null) return;
  const instanceUuid = device.get('instance_uuid');
  device.set('attachment_id', await cinder.createAttachment(credentials, { volumeId, instanceUuid }, signal));
  await conductor.save(context, device);
}

function newVolume({ config }: Services, instance: NovaObject<'Instance'>, device: BlockDevice): NewVolume {
  const sizeGib = device.find('volume_size') ?? null;
  if (sizeGib === null) throw new AppError('invalid', 'a new volume has no size');
  const source = device.find('source_type');
  return {
    sizeGib,
    name: source === 'blank' ? `${instance.get('uuid')}-blank-vol` : '',
    description: '',
    snapshotId: source === 'snapshot' ? device.get('snapshot_id') : null,
    imageId: source === 'image' ? device.get('image_id') : null,
    volumeType: device.find('volume_type') ?? null,
    availabilityZone: config.cinder.crossAzAttach ? null : (instance.find('availability_zone') ?? null),
  };
}

async function untilAvailable(
  { cinder, config }: Services,
  context: RequestContext,
  volumeId: string,
  signal: AbortSignal,
): Promise<void> {
  const { blockDeviceAllocateRetries: retries, blockDeviceAllocateRetryIntervalMs: pauseMs } = config.build;
  for (let attempt = 0; ; attempt += 1) {
    const { status } = await cinder.getVolume(userCredentials(context), volumeId, signal);
    if (status === 'available') return;
    if (status.startsWith('error')) throw new AppError('unavailable', `new volume ${volumeId} is in ${status}`);
    if (attempt >= retries) throw new AppError('unavailable', `new volume ${volumeId} is still in ${status}`);
    await sleep(pauseMs, signal);
  }
}
