// Glance in memory.
import { Readable } from 'node:stream';
import { AppError } from '#src/lib/errors.ts';
import type { Credentials, Glance, GlanceImage } from '#src/openstack/types.ts';

export class FakeGlance implements Glance {
  readonly requests: string[] = [];
  readonly images = new Map<string, GlanceImage>();
  /** Bytes by image; an Error is what the stream ends with. */
  readonly contents = new Map<string, Buffer | Error>();

  async getImage(_credentials: Credentials, id: string): Promise<GlanceImage> {
    this.requests.push(`GET ${id}`);
    const image = this.images.get(id);
    if (!image) throw new AppError('not_found', `no image ${id}`);
    return image;
  }

  async download(_credentials: Credentials, image: GlanceImage): Promise<Readable> {
    this.requests.push(`GET ${image.id}/file`);
    const content = this.contents.get(image.id) ?? Buffer.from('content');
    return Readable.from(
      (async function* bytes() {
        if (content instanceof Error) throw content;
        yield content;
      })(),
    );
  }

  async deleteImage(_credentials: Credentials, id: string): Promise<void> {
    this.requests.push(`DELETE ${id}`);
    this.images.delete(id);
  }
}
