// POST /1.0/images with a source in JSON: an instance, a snapshot, another server, a URL (lxd-engine-contract section 2.8).
import { Ajv } from 'ajv';
import type { Static } from 'typebox';
import type { Engine } from '#src/engine/engine.ts';
import { parseCompression } from '#src/engine/images/compression.ts';
import type { ImageSource } from '#src/engine/images/sources/remote.ts';
import type { UploadedImage } from '#src/engine/images/new-image.ts';
import type { RootKey } from '#src/engine/types.ts';
import { AppError } from '#src/lib/errors.ts';
import { ApiError } from './envelope.ts';
import { startImageToken } from './image-tokens.ts';
import { partial, StringMap } from './schema.ts';
import { Type } from './type.ts';

export const ImagePutFields = {
  public: Type.Boolean(),
  auto_update: Type.Boolean(),
  properties: StringMap,
  expires_at: Type.String(),
  profiles: Type.Array(Type.String()),
};
const Source = partial({
  type: Type.String(),
  mode: Type.String(),
  name: Type.String(),
  url: Type.String(),
  server: Type.String(),
  protocol: Type.String(),
  certificate: Type.String(),
  secret: Type.String(),
  alias: Type.String(),
  fingerprint: Type.String(),
  project: Type.String(),
  image_type: Type.String(),
});
const Post = partial({
  ...ImagePutFields,
  filename: Type.String(),
  compression_algorithm: Type.String(),
  aliases: Type.Array(partial({ name: Type.String(), description: Type.String() })),
  source: Source,
});
type Post = Static<typeof Post>;

type Deps = Pick<Engine, 'images' | 'operations' | 'publisher' | 'downloads' | 'aliases' | 'context'>;

const INSTANCE_TYPES: readonly string[] = ['instance', 'container', 'snapshot', 'virtual-machine'];
const isPost = new Ajv({ strict: false }).compile<Post>(Post);

/** Starts the operation and returns its id. */
export function startImageSource(deps: Deps, project: string, body: unknown): string {
  checkPost(body);
  const { type = '', mode, fingerprint = '' } = body.source ?? {};
  if (mode === 'push') return startImageToken(deps, { project, fingerprint }, toldOf(body));
  if (INSTANCE_TYPES.includes(type)) return startPublish(deps, project, body);
  if (type === 'image' || type === 'url') return startDownload(deps, project, body);
  throw new ApiError(500, 'Invalid images JSON');
}

function checkPost(body: unknown): asserts body is Post {
  if (!isPost(body)) throw new ApiError(400, `Invalid images JSON: ${isPost.errors?.[0]?.message ?? ''}`);
}

/** What the image will be that is uploaded with the token. */
function toldOf({
  aliases,
  expires_at,
  properties,
  public: isPublic = false,
}: Post): Readonly<Record<string, unknown>> {
  return {
    aliases: (aliases ?? []).map(({ name = '', description = '' }) => ({ name, description })),
    public: isPublic,
    ...(properties && { properties }),
    ...(isTime(expires_at) && { expires_at }),
  };
}

function startDownload(deps: Deps, project: string, body: Post): string {
  const { operations, downloads, images, aliases: names } = deps;
  const upload = uploadOf(project, body);
  const { isPublic, autoUpdate, aliases } = upload;
  const source = body.source ?? {};
  if (source.image_type === 'virtual-machine')
    throw new AppError('invalid', 'Images of virtual machines are not supported');
  const wanted = { project, isPublic, autoUpdate, cached: false, preferCached: false };
  if (source.type === 'url' && (source.url ?? '') === '') throw new ApiError(500, 'Missing URL');
  return operations.start(
    { class: 'task', description: 'Downloading image', resources: {}, project },
    async (running) => {
      images.checkAliases(project, aliases);
      const image =
        source.type === 'url'
          ? await downloads.fromUrl(source.url ?? '', wanted, running)
          : await downloads.download({ ...wanted, source: remoteOf(source) }, running);
      running.setMetadata({ fingerprint: image.fingerprint, size: String(image.sizeBytes) });
      images.amend(image, body.properties === undefined ? upload : { ...upload, properties: body.properties });
      for (const alias of aliases) names.create(project, { ...alias, target: image.fingerprint });
    },
  );
}

function remoteOf(source: Static<typeof Source>): ImageSource {
  const { server = '', protocol = '', certificate = '', secret = '', project = '' } = source;
  return { server, protocol, certificate, secret, project, alias: source.fingerprint || source.alias || '' };
}

function startPublish({ operations, publisher }: Deps, project: string, body: Post): string {
  const source = rootKey(project, body.source ?? {});
  const compression = body.compression_algorithm ?? '';
  if (compression !== '') parseCompression(compression);
  const { properties } = body;
  const request = { ...uploadOf(project, body), source, compression };
  return operations.start(
    { class: 'task', description: 'Downloading image', resources: {}, project },
    async (running) => {
      await publisher.publish(properties === undefined ? request : { ...request, properties }, running);
    },
  );
}

function rootKey(project: string, { type = '', name = '' }: Static<typeof Source>): RootKey {
  if (name === '') throw new ApiError(500, 'No source provided');
  const [instance = '', snapshot, ...rest] = name.split('/');
  if (type === 'snapshot') {
    if (snapshot === undefined || rest.length > 0) throw new ApiError(500, 'Not a snapshot');
    return { project, name: instance, snapshot };
  }
  if (snapshot !== undefined) throw new ApiError(500, 'This is a snapshot');
  return { project, name };
}

function uploadOf(project: string, body: Post): Omit<UploadedImage, 'properties' | 'fingerprint'> {
  const { profiles, expires_at: expiresAt } = body;
  return {
    project,
    filename: (body.filename ?? '').split('/').at(-1) ?? '',
    isPublic: body.public ?? false,
    autoUpdate: body.auto_update ?? false,
    aliases: (body.aliases ?? []).map(({ name = '', description = '' }) => ({ name, description })),
    ...(profiles && { profiles }),
    ...(isTime(expiresAt) && { expiresAt }),
  };
}

/** Go's zero time means none. */
export function isTime(text: string | undefined): text is string {
  if (text === undefined || text.startsWith('0001-')) return false;
  if (Number.isNaN(Date.parse(text))) throw new AppError('invalid', `Invalid expires_at "${text}"`);
  return true;
}
