// Makes images of instances: packed, hashed and stored in one pass.
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { TarFile } from '#src/lib/tar.ts';
import type { EngineContext } from '../context.ts';
import type { ImageRecord } from '../db/records.ts';
import type { OperationHandle, ReadableRoot, ReadRoot, RootKey } from '../types.ts';
import { type Compression, parseCompression } from './compression.ts';
import type { UploadPart } from './image-files.ts';
import type { Images } from './images.ts';
import type { UploadedImage } from './new-image.ts';
import { packImage } from './pack.ts';
import { imageSettings } from './settings.ts';
import { ProgressMeter, stageProgress } from './progress.ts';

const MAX_NAME_BYTES = 100;
const PIGZ = '/usr/bin/pigz';

export interface PublishRequest extends Omit<UploadedImage, 'properties' | 'fingerprint'> {
  readonly source: RootKey;
  /** Undefined: those of the instance's own image. */
  readonly properties?: Readonly<Record<string, string>>;
  /** Empty: the server's. */
  readonly compression: string;
}

type Context = Pick<EngineContext, 'config' | 'database' | 'gate' | 'host' | 'locks'>;

export class ImagePublisher {
  readonly #context: Context;
  readonly #images: Images;
  readonly #readRoot: ReadRoot;

  constructor(context: Context, images: Images, readRoot: ReadRoot) {
    this.#context = context;
    this.#images = images;
    this.#readRoot = readRoot;
  }

  /** One at a time: packing takes all processors as it is. */
  async publish(request: PublishRequest, operation: OperationHandle): Promise<ImageRecord> {
    const { locks } = this.#context;
    this.#images.checkAliases(request.project, request.aliases);
    return locks.run(
      'images/publish',
      () => this.#readRoot(request.source, (root) => this.#pack(request, root, operation), operation.signal),
      operation.signal,
    );
  }

  async #pack(request: PublishRequest, root: ReadableRoot, operation: OperationHandle): Promise<ImageRecord> {
    const { host, gate } = this.#context;
    const { signal } = operation;
    const meter = new ProgressMeter((progress) => {
      operation.setMetadata(stageProgress('create_image_from_container_pack', 'Image pack', progress));
    }, root.sizeBytes);
    const content = { ...root, files: await filesOf(host, root, request) };
    const compression = await this.#compression(request);
    const scratch = this.#images.files.scratchPath();
    const packed = packImage(host, content, { compression, scratch, signal, onBytes: (bytes) => meter.add(bytes) });
    await using staged = await this.#images.files.stage(wholeImage(packed), gate.imageBudget(request.project));
    operation.setMetadata({ fingerprint: staged.fingerprint, size: String(staged.sizeBytes) });
    const { source: _, compression: __, properties = {}, ...upload } = request;
    return await this.#images.publish(staged, { ...upload, properties, createdAt: new Date().toISOString() }, signal);
  }

  /** pigz writes what gzip writes, with all processors. */
  async #compression({ compression: wanted, project }: PublishRequest): Promise<Compression> {
    const { host } = this.#context;
    const compression = parseCompression(wanted || imageSettings(this.#context, project).compression);
    if (compression.kind !== 'filter' || compression.argv[0] !== 'gzip' || !(await host.exists(PIGZ)))
      return compression;
    const [, ...options] = compression.argv;
    return { kind: 'filter', argv: [PIGZ, ...options] };
  }
}

async function* wholeImage(content: AsyncIterable<Buffer>): AsyncGenerator<UploadPart> {
  yield { name: 'metadata', content };
}

/** metadata.yaml with what the request changes in it, and the templates. */
async function filesOf(host: Host, root: ReadableRoot, request: PublishRequest): Promise<readonly TarFile[]> {
  const files: TarFile[] = [{ name: 'metadata.yaml', content: await metadataOf(host, root, request) }];
  for (const name of await host.list(root.templatesPath)) {
    const file = { name: `templates/${name}`, content: await host.readFile(join(root.templatesPath, name)) };
    if (Buffer.byteLength(file.name) > MAX_NAME_BYTES) {
      throw new AppError('invalid', `The name of template "${name}" is too long for an image`);
    }
    files.push(file);
  }
  return files;
}

async function metadataOf(host: Host, root: ReadableRoot, request: PublishRequest): Promise<string> {
  const { properties, expiresAt } = request;
  const own = (await host.exists(root.metadataPath)) ? await readMetadata(host, root.metadataPath) : undefined;
  const base = own ?? {
    architecture: root.architecture,
    creation_date: Math.floor(Date.now() / 1000),
    properties: {},
    templates: {},
  };
  const expiry = expiresAt === undefined ? {} : { expiry_date: Math.floor(Date.parse(expiresAt) / 1000) };
  return `${JSON.stringify({ ...base, ...(properties && { properties }), ...expiry })}\n`;
}

async function readMetadata(host: Host, path: string): Promise<object> {
  const text = await host.readFile(path);
  const { parse } = await import('yaml');
  const data: unknown = text.trimStart().startsWith('{') ? JSON.parse(text) : parse(text);
  if (typeof data !== 'object' || data === null) throw new AppError('internal', `${path} is not a map`);
  return data;
}
