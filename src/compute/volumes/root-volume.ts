// Volumes that instances boot from: which one it is, and what Cinder wrote to it when it was made from an image.
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { AppError, messageOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { verified } from '#src/openstack/image-content.ts';
import type { CinderVolume, GlanceImage } from '#src/openstack/types.ts';
import type { SpawnImage } from '#drivers/virt/driver.ts';
import { cacheKeyOf } from '../images/spawn-image.ts';
import { userCredentials } from '../network/credentials.ts';
import type { ComputeServices } from '../types.ts';
import { type BlockDevice, volumesAmong } from './block-devices.ts';
import type { VolumeUse } from './host-volumes.ts';

type Services = Pick<ComputeServices, 'cinder' | 'glance' | 'volumes' | 'log'>;

export function rootVolumeAmong(devices: readonly BlockDevice[]): BlockDevice | undefined {
  return volumesAmong(devices).find(isRoot);
}

export function isRoot(device: BlockDevice): boolean {
  return device.find('boot_index') === 0;
}

/** As Nova tells it: an instance of an image may have its root on a volume all the same. */
export function isVolumeBacked(instance: NovaObject<'Instance'>, devices: readonly BlockDevice[]): boolean {
  return rootVolumeAmong(devices) !== undefined || !instance.find('image_ref');
}

/**
 * The image that Cinder wrote to a connected volume, to be read from there. null: Cinder tells of none, or not how long it is.
 *
 * What Cinder tells may have been changed by the volume's owner. So it says where to stop reading and nothing more: the image is
 * another one's that is known here only when Glance shows it to the user; else it is known by what is on the volume.
 */
export async function volumeImage(
  services: Services,
  context: RequestContext,
  use: VolumeUse,
  signal: AbortSignal,
): Promise<SpawnImage | null> {
  const volume = await services.cinder.getVolume(userCredentials(context), use.volumeId, signal);
  const told = toldImage(volume);
  if (!told) return null;
  const content = async (limit: AbortSignal): Promise<Readable> =>
    services.volumes.read(use, told.sizeBytes ?? 0, limit);
  const image = (await ofGlance(services, context, told, signal)) ?? (await byContent(told, await content(signal)));
  return {
    id: image.id,
    cacheKey: cacheKeyOf(image, {}),
    name: image.name ?? image.id,
    // a disk would have been told by its bytes: what is left is no other format, whatever its name was
    diskFormat: 'raw',
    containerFormat: 'bare',
    sizeBytes: image.sizeBytes,
    properties: image.properties,
    open: async (limit) => verified(await content(limit), image, cannotRead(use)),
  };
}

const cannotRead =
  ({ volumeId }: VolumeUse) =>
  (cause: Error): Error =>
    new AppError('unavailable', `volume ${volumeId} cannot be read: ${messageOf(cause)}`, { cause });

/** As the volume's metadata has it. */
function toldImage({ id, imageMetadata: told }: CinderVolume): GlanceImage | null {
  if (!told || !/^[1-9]\d{0,14}$/.test(told['size'] ?? '')) return null;
  return {
    id: told['image_id'] ?? id,
    name: told['image_name'] ?? null,
    status: 'active',
    sizeBytes: Number(told['size']),
    diskFormat: told['disk_format'] ?? null,
    containerFormat: told['container_format'] ?? null,
    minDiskGib: 0,
    minRamMib: 0,
    checksum: told['checksum'] ?? null,
    hashAlgorithm: null,
    hashValue: null,
    properties: {},
  };
}

/** What was told, when Glance says the same of it. */
async function ofGlance(
  { glance, log }: Services,
  context: RequestContext,
  told: GlanceImage,
  signal: AbortSignal,
): Promise<GlanceImage | null> {
  try {
    const image = await glance.getImage(userCredentials(context), told.id, signal);
    const isSame = image.checksum !== null && image.checksum === told.checksum && image.sizeBytes === told.sizeBytes;
    return isSame ? image : null;
  } catch (error) {
    signal.throwIfAborted();
    log.debug('the image that a volume was made from cannot be asked for', { image: told.id, error });
    return null;
  }
}

async function byContent(told: GlanceImage, content: Readable): Promise<GlanceImage> {
  const hash = createHash('sha256');
  for await (const chunk of content) hash.update(chunk as Buffer);
  return { ...told, checksum: null, hashAlgorithm: 'sha256', hashValue: hash.digest('hex') };
}
