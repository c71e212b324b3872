// Glance's images in the engine's image store: each content fetched once per host, however many spawns want it at once.
import { createHash, type Hash } from 'node:crypto';
import { PassThrough, type Readable } from 'node:stream';
import type { EngineClient } from '#src/client/client.ts';
import type { ImageContent } from '#src/client/images.ts';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Host } from '#src/host/host.ts';
import type { SpawnImage } from '../driver.ts';
import { declaredKey, requireDeclared, requireTaken } from './declared-format.ts';
import type { DiskImages } from './disk-image/disk-images.ts';
import { inspectImage, type InspectedImage } from './image-content.ts';
import { architectureOf, CACHE_KEY_PROPERTY, DISK_BYTES_PROPERTY, metadataTarball } from './image-metadata.ts';
import { within } from './limit.ts';

const CLEANUP_LIMIT_MS = 60_000;

export interface ImageCacheContext {
  readonly client: EngineClient;
  readonly host: Host;
  readonly disks: DiskImages;
  readonly log: Log;
  readonly timeoutMs: number;
  /** Architectures that the engine runs, its own first. */
  readonly architectures: () => readonly string[];
}

interface EngineImage extends InspectedImage {
  readonly kind: 'unified' | 'rootfs';
  readonly diskBytes: number | null;
}

/** An image in the engine. */
export interface CachedImage {
  readonly fingerprint: string;
  /** Of a disk image: the room that the disk has. */
  readonly diskBytes: number | null;
}

/** A fetch that several spawns wait for: it is given up when none of them does any more. */
interface Fetch {
  readonly image: Promise<CachedImage>;
  readonly abandon: AbortController;
  waiting: number;
}

export class ImageCache {
  readonly #context: ImageCacheContext;
  readonly #fetches = new Map<string, Fetch>();

  constructor(context: ImageCacheContext) {
    this.#context = context;
  }

  /** Whether ensure() would fetch nothing. */
  async has({ cacheKey, diskFormat }: SpawnImage, signal: AbortSignal): Promise<boolean> {
    const alias = aliasOf(declaredKey(cacheKey, diskFormat));
    return (await this.#context.client.images.findAlias(alias, signal)) !== undefined;
  }

  /** The image in the engine, fetched when it is not there. AppError 'invalid' when the content is no container image. */
  async ensure(wanted: SpawnImage, signal: AbortSignal): Promise<CachedImage> {
    signal.throwIfAborted();
    requireTaken(wanted.diskFormat);
    const image: SpawnImage = {
      ...wanted,
      cacheKey: declaredKey(wanted.cacheKey, wanted.diskFormat),
      open: (limit) => wanted.open(limit),
    };
    const fetch = this.#fetches.get(image.cacheKey) ?? this.#begin(image);
    fetch.waiting += 1;
    const { promise: cancelled, reject } = Promise.withResolvers<never>();
    const cancel = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await Promise.race([fetch.image, cancelled]);
    } finally {
      signal.removeEventListener('abort', cancel);
      fetch.waiting -= 1;
      if (fetch.waiting === 0) fetch.abandon.abort(new AppError('unavailable', 'nobody waits for the image any more'));
    }
  }

  #begin(image: SpawnImage): Fetch {
    const abandon = new AbortController();
    const work = within(`image ${image.id}`, this.#context.timeoutMs, abandon.signal, async (signal) =>
      this.#findOrFetch(image, signal),
    );
    const cached = work.finally(() => {
      if (this.#fetches.get(image.cacheKey) === fetch) this.#fetches.delete(image.cacheKey);
    });
    cached.catch(() => undefined); // every waiter may have gone
    const fetch: Fetch = { image: cached, abandon, waiting: 0 };
    abandon.signal.addEventListener('abort', () => {
      if (this.#fetches.get(image.cacheKey) === fetch) this.#fetches.delete(image.cacheKey);
    });
    this.#fetches.set(image.cacheKey, fetch);
    return fetch;
  }

  async #findOrFetch(image: SpawnImage, signal: AbortSignal): Promise<CachedImage> {
    const alias = aliasOf(image.cacheKey);
    const known = await this.#context.client.images.findAlias(alias, signal);
    if (known) return { fingerprint: known.target, diskBytes: bytesOf(known.description) };
    const orphan = await this.#findOrphan(image.cacheKey, signal);
    return this.#publish(alias, orphan ?? (await this.#fetch(image, signal)), signal);
  }

  /** An upload whose process died before the alias was made. */
  async #findOrphan(cacheKey: string, signal: AbortSignal): Promise<CachedImage | undefined> {
    const images = await this.#context.client.images.list({ signal });
    const found = images.find(({ properties }) => properties?.[CACHE_KEY_PROPERTY] === cacheKey);
    return found && { fingerprint: found.fingerprint, diskBytes: bytesOf(found.properties?.[DISK_BYTES_PROPERTY]) };
  }

  async #fetch(image: SpawnImage, signal: AbortSignal): Promise<CachedImage> {
    const { host, log, architectures } = this.#context;
    const architecture = architectureOf(image, architectures());
    const began = performance.now();
    const inspected = await inspectImage(await image.open(signal), host, signal);
    const bootable = await this.#bootable(image, inspected, signal);
    const fingerprint = await this.#upload(image, bootable, { architecture, signal });
    const seconds = Math.round(performance.now() - began) / 1000;
    log.info('image cached', { image: image.id, fingerprint, kind: inspected.kind, seconds });
    return { fingerprint, diskBytes: bootable.diskBytes };
  }

  /** The image as the engine takes it. */
  async #bootable(image: SpawnImage, inspected: InspectedImage, signal: AbortSignal): Promise<EngineImage> {
    const { kind, extension, content } = inspected;
    try {
      requireDeclared(kind, image.diskFormat);
    } catch (error) {
      content.destroy();
      throw error;
    }
    if (kind === 'unified' || kind === 'rootfs') return { kind, extension, content, diskBytes: null };
    return { kind: 'rootfs', extension: 'tar.zst', ...(await this.#context.disks.open(content, kind, signal)) };
  }

  async #upload(
    image: SpawnImage,
    { kind, extension, content, diskBytes }: EngineImage,
    { architecture, signal }: { readonly architecture: string; readonly signal: AbortSignal },
  ): Promise<string> {
    const hash = createHash('sha256');
    const body = contentOf(kind, metadataTarball(image.cacheKey, architecture), hashed(content, hash), hash);
    const properties = {
      [CACHE_KEY_PROPERTY]: image.cacheKey,
      ...(diskBytes !== null && { [DISK_BYTES_PROPERTY]: String(diskBytes) }),
    };
    try {
      const filename = `${image.id}.${extension}`;
      const upload = await this.#context.client.images.upload({ content: body, filename, properties }, { signal });
      const { metadata } = await upload.wait(signal);
      return String(metadata?.['fingerprint']);
    } catch (error) {
      // Another process sent the same bytes meanwhile; our own count of them names the image.
      if (kindOf(error) === 'conflict' && content.readableEnded) return hash.digest('hex');
      throw acceptable(error);
    }
  }

  /** Names the image; when somebody else named another upload of the same content first, ours goes. */
  async #publish(alias: string, image: CachedImage, signal: AbortSignal): Promise<CachedImage> {
    const { client, log } = this.#context;
    const { fingerprint, diskBytes } = image;
    try {
      // the one thing of an image that is read at every spawn
      const description = diskBytes === null ? '' : String(diskBytes);
      await client.images.createAlias({ name: alias, target: fingerprint, description }, signal);
      return image;
    } catch (error) {
      if (kindOf(error) !== 'conflict') throw error;
      const winner = await client.images.findAlias(alias, signal);
      if (!winner) throw error;
      if (winner.target !== fingerprint) {
        await this.forget(fingerprint).catch((cause: unknown) => {
          log.warn('a superfluous image stays in the engine', { fingerprint, error: messageOf(cause) });
        });
      }
      return { ...image, fingerprint: winner.target };
    }
  }

  /** Removes an image that turned out to be unusable. Absent is success. */
  async forget(fingerprint: string): Promise<void> {
    const signal = AbortSignal.timeout(CLEANUP_LIMIT_MS);
    try {
      await (await this.#context.client.images.remove(fingerprint, { signal })).wait(signal);
    } catch (error) {
      if (kindOf(error) !== 'not_found') throw error;
    }
  }
}

function bytesOf(text: string | undefined): number | null {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

export function aliasOf(cacheKey: string): string {
  return `nova-${createHash('sha256').update(cacheKey).digest('hex')}`;
}

function contentOf(kind: EngineImage['kind'], metadata: Buffer, content: Readable, hash: Hash): ImageContent {
  if (kind === 'unified') return { kind: 'unified', tarball: content };
  hash.update(metadata); // the fingerprint of a split image is that of both parts in a row; no byte of content was read yet
  return { kind: 'split', metadata, rootfs: content };
}

/** Passes the content on and hashes what passes. */
function hashed(content: Readable, hash: Hash): Readable {
  const through = new PassThrough();
  content.on('data', (chunk: Buffer) => hash.update(chunk));
  content.on('error', (error) => through.destroy(error));
  through.on('close', () => content.destroy());
  return content.pipe(through);
}

/** What the engine refuses to unpack will be refused everywhere. */
function acceptable(error: unknown): unknown {
  if (kindOf(error) !== 'internal' || !isUnpackFailure(error)) return error;
  return new AppError('invalid', `the engine cannot unpack the image: ${messageOf(error)}`, { cause: error });
}

export function isUnpackFailure(error: unknown): boolean {
  return /unpack|unexpected EOF|metadata(\.yaml| tarball)|unsupported compression/i.test(messageOf(error));
}
