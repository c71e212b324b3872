// The image of an instance as the virt driver gets it: described by what the conductor sent, fetched from Glance (section 8.4).
import { kindOf, messageOf } from '#src/lib/errors.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { NovaException, novaException } from '#src/nova/exceptions.ts';
import type { Glance, GlanceImage } from '#src/openstack/types.ts';
import { DiskTooSmallError, GuestFileError, type SpawnImage } from '#drivers/virt/driver.ts';
import { userCredentials } from '../network/credentials.ts';

type Plain = Readonly<Record<string, unknown>>;

/**
 * The message has all that matters of most images, digest included, which saves asking Glance. Rejects with ImageNotActive,
 * ImageNotFound, and ImageUnacceptable for an instance that has none.
 */
export async function spawnImage(
  glance: Glance,
  context: RequestContext,
  sent: Plain,
  signal: AbortSignal,
): Promise<SpawnImage> {
  const id = sent['id'];
  if (typeof id !== 'string' || id === '') {
    throw novaException('ImageUnacceptable', { image_id: 'none', reason: 'there is neither an image nor a volume' });
  }
  const image = fromMessage(id, sent) ?? (await fromGlance(glance, context, id, signal));
  if (image.status !== 'active') throw novaException('ImageNotActive', { image_id: id });
  return {
    id,
    cacheKey: cacheKeyOf(image, sent),
    name: image.name ?? id,
    diskFormat: image.diskFormat ?? '',
    containerFormat: image.containerFormat ?? '',
    sizeBytes: image.sizeBytes,
    properties: image.properties,
    open: (limit) => glance.download(userCredentials(context), image, limit),
  };
}

/** Undefined when the message lacks what the download is verified with. */
function fromMessage(id: string, sent: Plain): GlanceImage | undefined {
  const checksum = text(sent['checksum']);
  const hashValue = text(sent['os_hash_value']);
  const status = text(sent['status']);
  const diskFormat = text(sent['disk_format']);
  if ((checksum === null && hashValue === null) || status === null || diskFormat === null) return undefined;
  return {
    id,
    name: text(sent['name']),
    status,
    sizeBytes: number(sent['size']),
    diskFormat,
    containerFormat: text(sent['container_format']),
    minDiskGib: number(sent['min_disk']) ?? 0,
    minRamMib: number(sent['min_ram']) ?? 0,
    checksum,
    hashAlgorithm: text(sent['os_hash_algo']),
    hashValue,
    properties: propertiesOf(sent['properties']),
  };
}

async function fromGlance(
  glance: Glance,
  context: RequestContext,
  id: string,
  signal: AbortSignal,
): Promise<GlanceImage> {
  try {
    return await glance.getImage(userCredentials(context), id, signal);
  } catch (error) {
    if (kindOf(error) === 'not_found') throw novaException('ImageNotFound', { image_id: id }, { cause: error });
    throw error;
  }
}

/** Same key, same bytes: the digest, or else the image and the time of its last change. */
export function cacheKeyOf({ id, hashAlgorithm, hashValue, checksum }: GlanceImage, sent: Plain): string {
  if (hashAlgorithm !== null && hashValue !== null) return `${hashAlgorithm}:${hashValue}`;
  if (checksum !== null) return `md5:${checksum}`;
  return `glance:${id}:${text(sent['updated_at']) ?? ''}`;
}

/** What the driver calls invalid is the image's fault, or that of injected files: no other host would do better. */
export function asImageError(error: unknown, image: SpawnImage | null): unknown {
  if (kindOf(error) !== 'invalid' || error instanceof NovaException) return error;
  if (error instanceof DiskTooSmallError) {
    const sizes = { flavor_size: error.flavorBytes, image_size: error.imageBytes };
    return novaException('FlavorDiskSmallerThanImage', sizes, { cause: error });
  }
  if (error instanceof GuestFileError)
    return novaException('InvalidInput', { reason: error.message }, { cause: error });
  const params = { image_id: image?.id ?? 'of the volume', reason: messageOf(error) };
  return novaException('ImageUnacceptable', params, { cause: error });
}

/** Of what the conductor sent, also when that is no image but what is known of a volume's. */
export function imageProperties(sent: Plain): Readonly<Record<string, string>> {
  return propertiesOf(sent['properties']);
}

function propertiesOf(value: unknown): Readonly<Record<string, string>> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== null && item !== undefined)
      .map(([key, item]) => [key, typeof item === 'string' ? item : JSON.stringify(item)]),
  );
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function number(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}
