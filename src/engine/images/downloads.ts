// Images of other servers: found there, downloaded once for all who want them, remembered with where they came from.
import { join } from 'node:path';
import { AppError, kindOf, messageOf } from '#src/lib/errors.ts';
import type { EngineContext, ImageDownloadAccess } from '../context.ts';
import type { ImageRecord } from '../db/records.ts';
import type { OperationHandle } from '../types.ts';
import { directParts, resolveDirect } from './direct.ts';
import type { UploadPart } from './image-files.ts';
import type { Images } from './images.ts';
import { imageSettings } from './settings.ts';
import { created, imageUrl, type UploadedImage } from './new-image.ts';
import { ImageFetcher } from './sources/fetcher.ts';
import { LxdServer } from './sources/lxd-server.ts';
import type { ImageRemote, ImageSource, RemoteImage, TransferOptions } from './sources/remote.ts';
import { SimplestreamsRemote, StreamCache } from './sources/simplestreams.ts';

type Context = Pick<EngineContext, 'config' | 'database' | 'events' | 'gate' | 'locks' | 'log' | 'paths'>;

export interface DownloadParts {
  readonly context: Context;
  readonly images: Images;
  readonly version: string;
  /** Of this host, the best first. */
  readonly architectures: readonly string[];
}

export interface DownloadRequest {
  readonly project: string;
  readonly source: ImageSource;
  readonly isPublic: boolean;
  /** Only for what was asked for by a name. */
  readonly autoUpdate: boolean;
  /** For an instance. */
  readonly cached: boolean;
  readonly preferCached: boolean;
}

export interface PushTarget {
  readonly server: string;
  readonly certificate: string;
  readonly secret: string;
  readonly project: string;
}

interface Found {
  readonly fingerprint: string;
  readonly image?: RemoteImage;
  readonly parts: (options: TransferOptions) => AsyncIterable<UploadPart>;
}

export class ImageDownloads implements ImageDownloadAccess {
  readonly fetcher: ImageFetcher;
  readonly #parts: DownloadParts;
  readonly #streams: StreamCache;

  constructor(parts: DownloadParts) {
    this.#parts = parts;
    this.fetcher = new ImageFetcher(
      (url) => parts.context.config.proxyFor(url),
      `LXD ${parts.version} (Linux; lightervisor)`,
    );
    this.#streams = new StreamCache({
      fetcher: this.fetcher,
      directory: join(parts.context.paths.root, 'cache/streams'),
    });
  }

  forInstance(project: string, source: ImageSource, operation: OperationHandle): Promise<ImageRecord> {
    const autoUpdate = imageSettings(this.#parts.context, project).autoUpdateCached;
    return this.download({ project, source, isPublic: false, autoUpdate, cached: true, preferCached: true }, operation);
  }

  /** What a URL leads to, downloaded. */
  async fromUrl(
    url: string,
    request: Omit<DownloadRequest, 'source'>,
    operation: OperationHandle,
  ): Promise<ImageRecord> {
    const { version, architectures } = this.#parts;
    const options = { fetcher: this.fetcher, architectures, version, signal: operation.signal };
    const { url: server, fingerprint: alias } = await resolveDirect(url, options);
    const source = { server, alias, protocol: 'direct', certificate: '', secret: '', project: '' };
    return await this.download({ ...request, source }, operation);
  }

  async download(
    request: DownloadRequest,
    operation: Pick<OperationHandle, 'signal' | 'setMetadata'>,
  ): Promise<ImageRecord> {
    const { locks, database } = this.#parts.context;
    const { source, project } = request;
    const kept = request.preferCached ? this.#cachedFor(request) : undefined;
    const found = kept ? undefined : await this.#find(source, operation.signal);
    const fingerprint = kept?.fingerprint ?? found?.fingerprint ?? '';
    return locks.run(
      `image-download/${fingerprint}`,
      async () => {
        const known = database.images.find(project, fingerprint) ?? this.#adopt(fingerprint, request);
        if (known) return known;
        const missing = found ?? (await this.#find({ ...source, alias: fingerprint }, operation.signal));
        return await this.#fetch(missing, request, operation);
      },
      operation.signal,
    );
  }

  /** Gives an image to another server that has made a token for it. */
  async push(image: ImageRecord, target: PushTarget, operation: OperationHandle): Promise<void> {
    const { images, context } = this.#parts;
    const { fingerprint, project } = image;
    const server = new LxdServer({ ...target, fetcher: this.fetcher });
    const progress = (text: string) => operation.setMetadata({ upload_progress: text });
    const files = await images.files.find(fingerprint);
    await server.push(files, fingerprint, { signal: operation.signal, progress });
    const details = { target: target.server };
    context.events.lifecycle({ action: 'image-retrieved', source: imageUrl(image), project, context: details });
  }

  /** An image that is kept up to date, got from there by this name before: no need to ask. */
  #cachedFor({ project, source }: DownloadRequest): ImageRecord | undefined {
    const { database } = this.#parts.context;
    if (imageSettings(this.#parts.context, project).autoUpdateIntervalHours <= 0) return undefined;
    return database.images.list().find(({ autoUpdate, cached, updateSource, fingerprint }) => {
      if (!autoUpdate || !cached || updateSource === null || fingerprint.startsWith(source.alias)) return false;
      const { server, protocol, alias } = updateSource;
      return server === source.server && protocol === (source.protocol || 'lxd') && alias === source.alias;
    });
  }

  async #find(source: ImageSource, signal: AbortSignal): Promise<Found> {
    const { alias, protocol } = source;
    if (alias === '') throw new AppError('invalid', 'must specify one of alias or fingerprint for init from image');
    if (protocol === 'direct') {
      const image = { url: source.server, fingerprint: alias };
      const { certificate } = source;
      return {
        fingerprint: alias,
        parts: (options) => directParts(image, { ...options, certificate, fetcher: this.fetcher }),
      };
    }
    const remote = this.#remote(source);
    try {
      const image = await remote.find(alias, signal);
      return { fingerprint: image.fingerprint, image, parts: (options) => remote.parts(image, options) };
    } catch (error) {
      signal.throwIfAborted();
      throw new AppError(kindOf(error), `Failed getting remote image info: ${messageOf(error)}`, { cause: error });
    }
  }

  #remote({ server, protocol, certificate, secret, project }: ImageSource): ImageRemote {
    if (!/^https?:$/u.test(URL.canParse(server) ? new URL(server).protocol : '')) {
      throw new AppError('invalid', `Invalid image server URL "${server}"`);
    }
    const { fetcher } = this;
    if (protocol === '' || protocol === 'lxd') return new LxdServer({ server, certificate, project, secret, fetcher });
    if (protocol !== 'simplestreams') throw new AppError('invalid', `Unsupported protocol: ${protocol}`);
    const preferred = imageSettings(this.#parts.context, 'default').defaultArchitecture;
    const architectures = [...(preferred === '' ? [] : [preferred]), ...this.#parts.architectures];
    return new SimplestreamsRemote({ server, certificate, fetcher, cache: this.#streams, architectures });
  }

  /** Another project has it: its files are the same. */
  #adopt(fingerprint: string, request: DownloadRequest): ImageRecord | undefined {
    const { database, events } = this.#parts.context;
    const other = database.images.list().find((image) => image.fingerprint === fingerprint);
    if (!other) return undefined;
    const { id: _, ...row } = other;
    const { project, isPublic, cached } = request;
    const lastUsedAt = new Date().toISOString();
    const image = database.images.create({
      ...row,
      ...this.#told(fingerprint, request),
      project,
      isPublic,
      cached,
      profiles: ['default'],
      lastUsedAt: cached ? lastUsedAt : other.lastUsedAt,
    });
    events.lifecycle(created(image));
    return image;
  }

  async #fetch(
    { fingerprint, image, parts }: Found,
    request: DownloadRequest,
    { signal, setMetadata }: Pick<OperationHandle, 'signal' | 'setMetadata'>,
  ): Promise<ImageRecord> {
    const { images, context } = this.#parts;
    const { project, isPublic, cached, source } = request;
    context.log.info('downloading image', { fingerprint, server: source.server });
    const progress = (text: string) => setMetadata({ download_progress: text });
    await using staged = await images.files.stage(parts({ signal, progress }), context.gate.imageBudget(project));
    const upload: UploadedImage = {
      project,
      isPublic,
      cached,
      fingerprint,
      filename: image?.filename ?? '',
      properties: image?.properties ?? {},
      aliases: [],
      ...(image && { isDescribed: true, ...timesOf(image) }),
      ...this.#told(fingerprint, request),
    };
    const record = await images.publish(staged, upload, signal);
    context.log.info('image downloaded', { fingerprint, server: source.server });
    return record;
  }

  /** What came by its fingerprint cannot change. */
  #told(
    fingerprint: string,
    { source, autoUpdate }: DownloadRequest,
  ): Pick<ImageRecord, 'autoUpdate' | 'updateSource'> {
    const { alias, server, certificate, protocol } = source;
    if (source.secret !== '' || fingerprint.startsWith(alias)) return { autoUpdate: false, updateSource: null };
    const updateSource = { alias, certificate, protocol: protocol || 'lxd', server, image_type: 'container' };
    return { autoUpdate, updateSource };
  }
}

function timesOf({ createdAt, expiresAt }: RemoteImage): Pick<UploadedImage, 'createdAt' | 'expiresAt'> {
  return { ...(createdAt !== '' && { createdAt }), ...(expiresAt !== '' && { expiresAt }) };
}
