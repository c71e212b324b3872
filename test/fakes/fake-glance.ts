// Glance in memory.
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { AppError } from '#src/lib/errors.ts';
import type { Credentials, Glance, GlanceImage, GlanceImageChanges } from '#src/openstack/types.ts';

export class FakeGlance implements Glance {
  readonly requests: string[] = [];
  /** The newest last. */
  readonly images = new Map<string, GlanceImage>();
  /** Bytes by image; an Error is what the stream ends with. */
  readonly contents = new Map<string, Buffer | Error>();
  readonly #failures: { readonly match: RegExp; readonly error: Error }[] = [];

  /** The next such request is answered with the error. */
  failNext(match: RegExp, error: Error): void {
    this.#failures.push({ match, error });
  }

  /** As the API makes it for a snapshot. */
  addQueued(id: string, properties: Readonly<Record<string, string>> = {}): void {
    const none = { sizeBytes: null, diskFormat: null, containerFormat: null };
    const unknown = { checksum: null, hashAlgorithm: null, hashValue: null };
    this.images.set(id, {
      id,
      name: id,
      status: 'queued',
      minDiskGib: 1,
      minRamMib: 0,
      properties,
      ...none,
      ...unknown,
    });
  }

  addActive(id: string, fields: Partial<GlanceImage> = {}): void {
    this.addQueued(id);
    const stored = { status: 'active', diskFormat: 'raw', containerFormat: 'bare', checksum: 'cs', sizeBytes: 7 };
    this.images.set(id, { ...this.#existing(id), ...stored, ...fields });
  }

  async getImage(_credentials: Credentials, id: string): Promise<GlanceImage> {
    this.#note(`GET ${id}`);
    return this.#existing(id);
  }

  async download(_credentials: Credentials, image: GlanceImage): Promise<Readable> {
    this.#note(`GET ${image.id}/file`);
    const content = this.contents.get(image.id) ?? Buffer.from('content');
    return Readable.from(
      (async function* bytes() {
        if (content instanceof Error) throw content;
        yield content;
      })(),
    );
  }

  async listImages(
    _credentials: Credentials,
    wanted: Readonly<Record<string, string>>,
  ): Promise<readonly GlanceImage[]> {
    this.#note(`GET ?${new URLSearchParams(wanted).toString()}`);
    const fits = ({ properties }: GlanceImage) =>
      Object.entries(wanted).every(([key, value]) => properties[key] === value);
    return [...this.images.values()].filter(fits).toReversed();
  }

  async updateImage(
    _credentials: Credentials,
    { id }: GlanceImage,
    { properties = {}, ...changes }: GlanceImageChanges,
  ): Promise<void> {
    this.#note(`PATCH ${id}`);
    const image = this.#existing(id);
    this.images.set(id, { ...image, ...changes, properties: { ...image.properties, ...properties } });
  }

  async upload(_credentials: Credentials, id: string, content: Readable, signal?: AbortSignal): Promise<void> {
    this.#note(`PUT ${id}/file`);
    const bytes = await buffer(content);
    signal?.throwIfAborted();
    this.contents.set(id, bytes);
    this.images.set(id, { ...this.#existing(id), status: 'active', sizeBytes: bytes.length });
  }

  async deleteImage(_credentials: Credentials, id: string): Promise<void> {
    this.#note(`DELETE ${id}`);
    this.images.delete(id);
  }

  #existing(id: string): GlanceImage {
    const image = this.images.get(id);
    if (!image) throw new AppError('not_found', `no image ${id}`);
    return image;
  }

  #note(request: string): void {
    this.requests.push(request);
    const index = this.#failures.findIndex(({ match }) => match.test(request));
    const [failure] = index < 0 ? [] : this.#failures.splice(index, 1);
    if (failure) throw failure.error;
  }
}
