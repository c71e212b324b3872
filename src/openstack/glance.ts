// Glance v2, as a compute uses it (nova-compute-contract section 8.4).
import type { Readable } from 'node:stream';
import { OpenStackError, type ServiceClient } from 'keystone-client-ts';
import { AppError } from '#src/lib/errors.ts';
import { verified } from './image-content.ts';
import { asRequestedBy, type ClientOptions, createServiceClient, withSignal } from './service.ts';
import type { Credentials, Glance, GlanceImage, GlanceImageChanges } from './types.ts';

const ATTRIBUTES_OF_EVERY_IMAGE = new Set([
  'id',
  'name',
  'status',
  'size',
  'virtual_size',
  'disk_format',
  'container_format',
  'min_disk',
  'min_ram',
  'checksum',
  'os_hash_algo',
  'os_hash_value',
]);

/** As the stock client asks for pages. */
const NEWEST_FIRST = { limit: 200, sort_key: 'created_at', sort_dir: 'desc' };

export function createGlance(options: ClientOptions): Glance {
  return new GlanceClient(createServiceClient({ serviceType: 'image', statusRetries: 3 }, options));
}

class GlanceClient implements Glance {
  readonly #client: ServiceClient;

  constructor(client: ServiceClient) {
    this.#client = client;
  }

  async getImage(credentials: Credentials, id: string, signal?: AbortSignal): Promise<GlanceImage> {
    const request = {
      method: 'GET',
      path: imagePath(id),
      ...asRequestedBy(credentials),
      ...withSignal(signal),
    } as const;
    return toImage((await this.#client.request(request)).data as Readonly<Record<string, unknown>>);
  }

  async download(credentials: Credentials, image: GlanceImage, signal?: AbortSignal): Promise<Readable> {
    const response = await this.#client.request({
      method: 'GET',
      path: `${imagePath(image.id)}/file`,
      headers: { Accept: 'application/octet-stream' },
      responseType: 'stream',
      ...asRequestedBy(credentials),
      ...withSignal(signal),
    });
    const source = response.data as Readable;
    if (response.status === 204) {
      source.destroy();
      throw new AppError('invalid', `image ${image.id} has no data`);
    }
    const broken = (cause: Error) =>
      new OpenStackError(`image: download of ${image.id} broke off: ${cause.message}`, { cause });
    return verified(source, image, broken);
  }

  async listImages(
    credentials: Credentials,
    properties: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<readonly GlanceImage[]> {
    const images: GlanceImage[] = [];
    for (let marker: string | undefined, isLast = false; !isLast; ) {
      const { data } = await this.#client.request({
        method: 'GET',
        path: '/v2/images',
        query: { ...properties, ...NEWEST_FIRST, ...(marker !== undefined && { marker }) },
        ...asRequestedBy(credentials),
        ...withSignal(signal),
      });
      const page = data as { readonly images: readonly Readonly<Record<string, unknown>>[]; readonly next?: unknown };
      images.push(...page.images.map(toImage));
      marker = images.at(-1)?.id;
      isLast = page.next === undefined || page.images.length === 0;
    }
    return images;
  }

  async updateImage(
    credentials: Credentials,
    image: GlanceImage,
    changes: GlanceImageChanges,
    signal?: AbortSignal,
  ): Promise<void> {
    const patch = patchOf(image, changes);
    if (patch.length === 0) return;
    await this.#client.request({
      method: 'PATCH',
      path: imagePath(image.id),
      body: patch,
      headers: { 'Content-Type': 'application/openstack-images-v2.1-json-patch' },
      ...asRequestedBy(credentials),
      ...withSignal(signal),
    });
  }

  async upload(credentials: Credentials, id: string, content: Readable, signal?: AbortSignal): Promise<void> {
    try {
      await this.#client.request({
        method: 'PUT',
        path: `${imagePath(id)}/file`,
        body: content,
        headers: { 'Content-Type': 'application/octet-stream' },
        ...asRequestedBy(credentials),
        ...withSignal(signal),
      });
    } catch (error) {
      signal?.throwIfAborted();
      // The content's own failure says more than the request that broke because of it.
      throw content.errored ?? error;
    } finally {
      content.destroy();
    }
  }

  async deleteImage(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void> {
    const request = {
      method: 'DELETE',
      path: imagePath(id),
      ...asRequestedBy(credentials),
      ...withSignal(signal),
    } as const;
    try {
      await this.#client.request(request);
    } catch (error) {
      if (!(error instanceof OpenStackError && error.status === 404)) throw error;
    }
  }
}

interface PatchOperation {
  readonly op: 'add' | 'replace';
  readonly path: string;
  readonly value: string;
}

/** What every image has is replaced, the rest added (JSON pointer: `~` and `/` of a name are escaped). */
function patchOf(image: GlanceImage, { diskFormat, containerFormat, properties = {} }: GlanceImageChanges) {
  const patch: PatchOperation[] = Object.entries(properties)
    .filter(([key, value]) => image.properties[key] !== value)
    .map(([key, value]) => ({ op: 'add', path: `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, value }));
  if (containerFormat !== undefined && containerFormat !== image.containerFormat)
    patch.push({ op: 'replace', path: '/container_format', value: containerFormat });
  if (diskFormat !== undefined && diskFormat !== image.diskFormat)
    patch.push({ op: 'replace', path: '/disk_format', value: diskFormat });
  return patch;
}

function toImage(body: Readonly<Record<string, unknown>>): GlanceImage {
  const text = (key: string) => (typeof body[key] === 'string' ? body[key] : null);
  const number = (key: string) => (typeof body[key] === 'number' ? body[key] : null);
  return {
    id: String(body['id']),
    name: text('name'),
    status: String(body['status']),
    sizeBytes: number('size'),
    diskFormat: text('disk_format'),
    containerFormat: text('container_format'),
    minDiskGib: number('min_disk') ?? 0,
    minRamMib: number('min_ram') ?? 0,
    checksum: text('checksum'),
    hashAlgorithm: text('os_hash_algo'),
    hashValue: text('os_hash_value'),
    properties: Object.fromEntries(
      Object.entries(body)
        .filter(([key, value]) => !ATTRIBUTES_OF_EVERY_IMAGE.has(key) && value !== null)
        .map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
    ),
  };
}

function imagePath(id: string): string {
  return `/v2/images/${encodeURIComponent(id)}`;
}
