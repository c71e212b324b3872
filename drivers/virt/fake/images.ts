// The images that a host in memory has had, by their identity.
import { AppError } from '#src/lib/errors.ts';
import type { SpawnImage } from '../driver.ts';
import { FAKE_INFO } from './facts.ts';

export class FakeImages {
  /** Bytes by cache key. */
  readonly #sizes = new Map<string, number>();

  has({ cacheKey }: SpawnImage): boolean {
    return this.#sizes.has(cacheKey);
  }

  /** Reads the content once per identity, as an image cache does. */
  async fetch(image: SpawnImage, signal: AbortSignal): Promise<void> {
    if (this.has(image)) return;
    let sizeBytes = 0;
    for await (const chunk of await image.open(signal)) sizeBytes += (chunk as Uint8Array).length;
    this.#sizes.set(image.cacheKey, sizeBytes);
  }
}

/** AppError 'invalid' for a format that is none of the driver's. */
export function requireFormat({ id, diskFormat }: SpawnImage): void {
  if (FAKE_INFO.diskFormats.includes(diskFormat)) return;
  throw new AppError('invalid', `image ${id}: disk format ${diskFormat} is not supported`);
}
