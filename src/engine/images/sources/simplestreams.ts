// An image server that speaks simplestreams: static files with hashes, the documents kept for an hour.
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { UploadPart } from '../image-files.ts';
import { byteSize, ProgressMeter } from '../progress.ts';
import type { ImageFetcher } from './fetcher.ts';
import type { ImageRemote, RemoteImage, TransferOptions } from './remote.ts';
import { findImage, imagesOf, productPaths, type StreamFile, type StreamImage } from './stream-products.ts';

const FRESH_MS = 3600_000;
const READ_LIMIT_MS = 300_000;
const INDEX = 'streams/v1/index.json';
/** Names that a server leaves out of its aliases. */
const DEFAULT_OS: readonly (readonly [string, string])[] = [['https://cloud-images.ubuntu.com', 'ubuntu']];

export interface StreamCacheOptions {
  readonly fetcher: ImageFetcher;
  /** Documents of servers, by the hash of their URL. */
  readonly directory: string;
}

/** Documents of all servers: in memory what they offer, on disk what they said. */
export class StreamCache {
  readonly #fetcher: ImageFetcher;
  readonly #directory: string;
  readonly #offers = new Map<string, Promise<readonly StreamImage[]>>();

  constructor({ fetcher, directory }: StreamCacheOptions) {
    this.#fetcher = fetcher;
    this.#directory = directory;
  }

  /** One reading for all who ask at the same time. */
  images(server: string, certificate: string): Promise<readonly StreamImage[]> {
    const key = `${server} ${certificate}`;
    const known = this.#offers.get(key);
    if (known) return known;
    const reading = this.#read(server, certificate, AbortSignal.timeout(READ_LIMIT_MS));
    this.#offers.set(key, reading);
    setTimeout(() => this.#offers.delete(key), FRESH_MS).unref();
    reading.catch(() => this.#offers.delete(key));
    return reading;
  }

  async #read(server: string, certificate: string, signal: AbortSignal): Promise<readonly StreamImage[]> {
    const read = (path: string) => this.#document(urlOf(server, path), certificate, signal);
    const images: StreamImage[] = [];
    for (const path of productPaths(await read(INDEX))) images.push(...imagesOf(await read(path)));
    const os = DEFAULT_OS.find(([prefix]) => server.startsWith(prefix))?.[1];
    if (os === undefined) return images;
    return images.map((image) => ({ ...image, aliases: image.aliases.map((name) => name.replace(`${os}/`, '')) }));
  }

  /** Fresh from disk, else from the server; what is old is better than nothing. */
  async #document(url: string, certificate: string, signal: AbortSignal): Promise<unknown> {
    const file = join(this.#directory, createHash('sha256').update(url).digest('hex'));
    const age = await stat(file).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => undefined,
    );
    const kept = age === undefined ? undefined : await readFile(file, 'utf8').then(parsed, () => undefined);
    if (kept !== undefined && age !== undefined && age < FRESH_MS) return kept;
    try {
      const text = await this.#fetcher.text(url, { signal, certificate });
      const document = parsed(text);
      if (document === undefined) throw new AppError('invalid', `Failed decoding stream JSON from "${url}"`);
      await this.#keep(file, text);
      return document;
    } catch (error) {
      if (kept !== undefined) return kept;
      throw error;
    }
  }

  async #keep(file: string, text: string): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await writeFile(`${file}.part`, text, { mode: 0o600 });
    await rename(`${file}.part`, file);
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function urlOf(server: string, path: string): string {
  return `${server.replace(/\/+$/u, '')}/${path.replace(/^\/+/u, '')}`;
}

export interface StreamServer {
  readonly server: string;
  readonly certificate: string;
  readonly fetcher: ImageFetcher;
  readonly cache: StreamCache;
  /** In the order of preference. */
  readonly architectures: readonly string[];
}

export class SimplestreamsRemote implements ImageRemote {
  readonly #options: StreamServer;

  constructor(options: StreamServer) {
    this.#options = options;
  }

  async find(name: string): Promise<StreamImage> {
    const { server, certificate, cache, architectures } = this.#options;
    const found = findImage(await cache.images(server, certificate), name, architectures);
    if (!found) throw new AppError('not_found', "The requested image couldn't be found");
    return found;
  }

  async *parts(image: RemoteImage, options: TransferOptions): AsyncGenerator<UploadPart> {
    const { metadata, rootfs } = await this.find(image.fingerprint);
    yield { name: 'metadata', attempts: this.#attempts('metadata', metadata, options) };
    if (rootfs) yield { name: 'rootfs', attempts: this.#attempts('rootfs', rootfs, options) };
  }

  /** Without TLS first: the hash tells whether it is right, and caches on the way may have it. */
  #attempts(name: string, file: StreamFile, options: TransferOptions): readonly (() => AsyncGenerator<Buffer>)[] {
    const secure = urlOf(this.#options.server, file.path);
    const urls = new Set([secure.replace(/^https:/u, 'http:'), secure]);
    return [...urls].map((url) => () => this.#download(url, { ...options, name, file }));
  }

  async *#download(
    url: string,
    { name, file, signal, progress }: TransferOptions & { readonly name: string; readonly file: StreamFile },
  ): AsyncGenerator<Buffer> {
    const { fetcher, certificate } = this.#options;
    const meter = new ProgressMeter(({ percent = 0, bytesPerSecond }) => {
      progress(`${name}: ${percent}% (${byteSize(bytesPerSecond)}/s)`);
    }, file.sizeBytes);
    const hash = createHash('sha256');
    for await (const chunk of fetcher.download(url, { signal, certificate })) {
      hash.update(chunk);
      meter.add(chunk.length);
      yield chunk;
    }
    const actual = hash.digest('hex');
    if (file.sha256 !== '' && actual !== file.sha256) {
      throw new AppError('invalid', `Hash mismatch for ${url}: ${actual} != ${file.sha256}`);
    }
  }
}
