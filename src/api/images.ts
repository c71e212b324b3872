// /1.0/images
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import { randomBytes } from 'node:crypto';
import type { AliasRecord, ImageRecord } from '#src/engine/db/records.ts';
import type { Engine } from '#src/engine/engine.ts';
import type { StagedImage } from '#src/engine/images/image-files.ts';
import { imageUrl, type UploadedImage } from '#src/engine/images/new-image.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ApiApp } from './app.ts';
import { checkIfMatch, operation, sync, syncWithEtag } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { ImagePutFields, isTime, startImageSource } from './image-sources.ts';
import { describedBy, findImageToken, takeUploadToken } from './image-tokens.ts';
import { receiveImage } from './image-upload.ts';
import { allProjects, AllProjectsQuery, existingProject, projectSuffix } from './project.ts';
import { partial, pathParams, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Properties = StringMap;
const Put = partial(ImagePutFields);
const Image = Type.Object({
  fingerprint: Type.String(),
  filename: Type.String(),
  size: Type.Integer(),
  public: Type.Boolean(),
  auto_update: Type.Boolean(),
  cached: Type.Boolean(),
  architecture: Type.String(),
  type: Type.String(),
  properties: Properties,
  profiles: Type.Array(Type.String()),
  aliases: Type.Array(Type.Object({ name: Type.String(), description: Type.String() })),
  created_at: Type.String(),
  expires_at: Type.String(),
  last_used_at: Type.String(),
  uploaded_at: Type.String(),
});
export const ImageParams = pathParams('fingerprint');
export const ImageQuery = Type.Object({ project: Type.Optional(Type.String()), secret: Type.Optional(Type.String()) });

const mutableOf = ({ isPublic, autoUpdate, properties }: ImageRecord) => [isPublic, autoUpdate, properties];
const noProjectImages = () => 'Check if project has images: fetch project: ';

type Deps = Pick<Engine, 'images' | 'operations' | 'context' | 'publisher' | 'downloads' | 'aliases'>;

export function registerImageRoutes(app: ApiApp, deps: Deps): void {
  registerList(app, deps);
  registerImage(app, deps);
}

/** `names`: aliases of this image. */
function imageView(image: ImageRecord, names: readonly AliasRecord[]): object {
  const { properties, expiresAt, profiles, architecture, cached, filename, fingerprint, updateSource } = image;
  return {
    auto_update: image.autoUpdate,
    properties,
    public: image.isPublic,
    expires_at: expiresAt,
    profiles,
    aliases: names.map(({ name, description }) => ({ name, description })),
    architecture,
    cached,
    filename,
    fingerprint,
    size: image.sizeBytes,
    ...(updateSource && { update_source: updateSource }),
    type: image.type,
    created_at: image.createdAt,
    last_used_at: image.lastUsedAt,
    uploaded_at: image.uploadedAt,
  };
}

function registerList(app: ApiApp, deps: Deps): void {
  const { images, operations, context } = deps;
  const { database } = context;

  app.get(
    '/1.0/images',
    {
      schema: { summary: 'List images', querystring: AllProjectsQuery },
      config: { answer: Type.Array(Image), untrusted: true },
    },
    async (request) => {
      const { recursion = 0, filter } = request.query;
      const sees = allProjects(request);
      if (sees) return sync(imagesOfAll(database, { sees, recursion, filter }));
      const project = existingProject(request, noProjectImages);
      const visible = database.images.list(project).filter(({ isPublic }) => isPublic || request.caller.trusted);
      const passes = parseFilter(filter);
      if (recursion === 0 && (filter ?? '') === '') {
        return sync(visible.map((image) => `${imageUrl(image)}${projectSuffix(project)}`));
      }
      const aliases = Map.groupBy(database.aliases.list(project), ({ target }) => target);
      const views = visible.map((image) => ({ image, view: imageView(image, aliases.get(image.fingerprint) ?? []) }));
      const passed = views.filter(({ view }) => passes(view));
      return sync(passed.map(({ image, view }) => (recursion === 0 ? imageUrl(image) : view)));
    },
  );

  app.post(
    '/1.0/images',
    { schema: { summary: 'Add an image' }, config: { rawBody: 'stream', async: true, untrusted: true } },
    async (request, reply) => {
      const token = takeUploadToken(request, operations);
      const project = existingProject(request, noProjectImages);
      const maxBytes = deps.context.gate.imageBudget(project);
      const received = await receiveImage(request, project, { files: images.files, maxBytes });
      if (received.kind === 'source') {
        if (!request.caller.trusted) throw new AppError('forbidden', 'not authorized');
        return operation(reply, operations, startImageSource(deps, project, received.body));
      }
      const upload = token ? describedBy(token, received.upload) : received.upload;
      return operation(reply, operations, startUpload(deps, { ...received, upload, waitable: token !== undefined }));
    },
  );
}

interface AllImages {
  readonly sees: (project: string) => boolean;
  readonly recursion: number;
  readonly filter: string | undefined;
}

function imagesOfAll({ images, aliases }: Deps['context']['database'], { sees, recursion, filter }: AllImages) {
  const found = images.list().filter(({ project }) => sees(project));
  const owners = [...new Set(found.map(({ project }) => project))];
  const names = new Map(owners.map((owner) => [owner, Map.groupBy(aliases.list(owner), ({ target }) => target)]));
  const passes = parseFilter(filter);
  const passed = found
    .map((image) => ({ image, view: imageView(image, names.get(image.project)?.get(image.fingerprint) ?? []) }))
    .filter(({ view }) => passes(view));
  return passed.map(({ image, view }) => {
    return recursion === 0 ? `${imageUrl(image)}${projectSuffix(image.project)}` : { ...view, project: image.project };
  });
}

interface StartedUpload {
  readonly staged: StagedImage;
  readonly upload: UploadedImage;
  /** Whoever gave it is not trusted and wants to know how it ended. */
  readonly waitable: boolean;
}

function startUpload({ operations, images }: Deps, { staged, upload, waitable }: StartedUpload): string {
  const { project } = upload;
  const metadata = waitable ? { metadata: { secret: randomBytes(32).toString('hex') } } : {};
  return operations.start(
    { class: 'task', description: 'Downloading image', resources: {}, project, ...metadata },
    async (running) => {
      await using held = staged;
      running.setMetadata({ fingerprint: held.fingerprint, size: String(held.sizeBytes) });
      images.checkAliases(project, upload.aliases);
      await images.publish(held, upload, running.signal);
    },
  );
}

function registerImage(app: ApiApp, { images, operations, context }: Deps): void {
  const { database } = context;

  app.get(
    '/1.0/images/:fingerprint',
    {
      schema: { summary: 'Get an image', params: ImageParams, querystring: ImageQuery },
      config: { answer: Image, untrusted: true },
    },
    async (request, reply) => {
      const image = visibleImage(request, { images, operations });
      const names = database.aliases.list(image.project).filter(({ target }) => target === image.fingerprint);
      return syncWithEtag(reply, imageView(image, names), mutableOf(image));
    },
  );

  app.put(
    '/1.0/images/:fingerprint',
    {
      schema: {
        summary: 'Replace the properties of an image',
        params: ImageParams,
        body: Put,
        querystring: ImageQuery,
      },
    },
    async (request) => {
      const image = database.images.get(existingProject(request), request.params.fingerprint);
      checkIfMatch(request, mutableOf(image));
      const { public: isPublic = false, auto_update: autoUpdate = false, properties = {}, ...rest } = request.body;
      images.update(image, { isPublic, autoUpdate, properties, profiles: ['default'], ...limitsOf(rest) });
      return sync();
    },
  );

  app.patch(
    '/1.0/images/:fingerprint',
    {
      schema: { summary: 'Change the properties of an image', params: ImageParams, body: Put, querystring: ImageQuery },
    },
    async (request) => {
      const image = database.images.get(existingProject(request), request.params.fingerprint);
      checkIfMatch(request, mutableOf(image));
      const { public: isPublic, auto_update: autoUpdate, properties, ...rest } = request.body;
      images.update(image, {
        ...(isPublic !== undefined && { isPublic }),
        ...(autoUpdate !== undefined && { autoUpdate }),
        ...(properties && { properties: { ...image.properties, ...properties } }),
        ...limitsOf(rest),
      });
      return sync();
    },
  );

  app.delete(
    '/1.0/images/:fingerprint',
    { schema: { summary: 'Delete an image', params: ImageParams, querystring: ImageQuery }, config: { async: true } },
    async (request, reply) => {
      // Of the request, whoever holds the images: its client waits for events of that project.
      const project = existingProject(request);
      const image = database.images.get(project, request.params.fingerprint);
      const resources = { images: [imageUrl(image)] };
      const id = operations.start({ class: 'task', description: 'Deleting image', resources, project }, ({ signal }) =>
        images.delete(image, signal),
      );
      return operation(reply, operations, id);
    },
  );
}

function limitsOf({ expires_at, profiles }: { expires_at?: string; profiles?: readonly string[] }) {
  return { ...(isTime(expires_at) && { expiresAt: expires_at }), ...(profiles && { profiles }) };
}

type ImageRequest = Parameters<typeof existingProject>[0] & {
  readonly params: { readonly fingerprint: string };
  readonly query: { readonly secret?: string };
};

/** Untrusted clients see public images, and any image whose token they hold. */
export function visibleImage(
  request: ImageRequest,
  { images, operations }: Pick<Deps, 'images' | 'operations'>,
): ImageRecord {
  const { fingerprint } = request.params;
  const project = existingProject(request);
  const image = images.resolve(project, { fingerprint });
  if (request.caller.trusted || image.isPublic) return image;
  const token = findImageToken(operations, { project, fingerprint: image.fingerprint }, request.query.secret);
  if (!token) throw new AppError('not_found', 'Image not found');
  return image;
}
