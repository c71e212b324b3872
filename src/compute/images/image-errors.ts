// What an operation makes of an image that is gone from Glance.
import { kindOf } from '#src/lib/errors.ts';
import { novaException } from '#src/nova/exceptions.ts';

/** Waits for a request to Glance about that image; ImageNotFound when there is none. */
export async function orImageNotFound<T>(imageId: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (kindOf(error) !== 'not_found') throw error;
    throw novaException('ImageNotFound', { image_id: imageId }, { cause: error });
  }
}
