// POST /1.0/storage-pools/POOL/volumes: empty custom volumes, copies, and backups brought back.
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import type { VolumeSource } from '#src/engine/volumes/custom-volumes.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { ApiError, operation, sync } from './envelope.ts';
import { existingProject } from './project.ts';
import { partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { volumeUrl } from './storage-volumes.ts';
import { Type } from './type.ts';
import { checkSourceProject, type VolumeDeps } from './volumes.ts';

const CHANGE_MS = 15 * 60_000;

const Source = partial({
  type: Type.String(),
  name: Type.String(),
  pool: Type.String(),
  project: Type.String(),
  volume_only: Type.Boolean(),
  refresh: Type.Boolean(),
});
const Post = partial({
  name: Type.String(),
  type: Type.String(),
  description: Type.String(),
  config: StringMap,
  content_type: Type.String(),
  source: Source,
});
export function registerVolumeCreation(app: ApiApp, deps: VolumeDeps): void {
  const schema = { summary: 'Create a custom volume', body: Post, querystring: ProjectQuery };
  const path = '/1.0/storage-pools/:pool/volumes';
  const config = { async: true, rawBody: 'octet-stream' } as const;
  app.post(path, { schema: { ...schema, params: pathParams('pool') }, config }, (request, reply) => {
    return create(request, reply, { deps, type: request.body.type ?? '', body: request.body });
  });
  app.post(`${path}/:type`, { schema: { ...schema, params: pathParams('pool', 'type') }, config }, (request, reply) => {
    return create(request, reply, { deps, type: request.params.type, body: request.body });
  });
}

interface Creation {
  readonly deps: VolumeDeps;
  readonly type: string;
  readonly body: Static<typeof Post>;
}

/** Sync without a source, an operation with one. */
async function create(request: FastifyRequest, reply: FastifyReply, { deps, type, body }: Creation): Promise<object> {
  const { pool } = request.params as { readonly pool: string };
  const { volumes, operations } = deps;
  checkCreation(type, body.content_type);
  const project = volumes.holder(existingProject(request));
  if (request.body instanceof Readable) {
    const { headers } = request;
    const name = String(headers['x-lxd-name'] ?? headers['x-incus-name'] ?? '');
    const upload = request.body as AsyncIterable<Buffer>;
    return operation(
      reply,
      operations,
      await deps.volumeBackups.import({ pool, project, name }, upload, limited(CHANGE_MS)),
    );
  }
  const { name = '', description = '', config = {} } = body;
  const volume = { pool, project, name, description, config };
  const origin = sourceOf(request, body, { pool, project, deps });
  if (!origin) {
    await volumes.create(volume, limited(CHANGE_MS));
    return sync();
  }
  volumes.checkNew(volume);
  const resources = { storage_volumes: [volumeUrl(pool, { type: 'custom', name })] };
  const spec = { class: 'task', description: 'Copying storage volume', project, resources } as const;
  return operation(
    reply,
    operations,
    operations.start(spec, ({ signal }) => volumes.copy(volume, origin, signal)),
  );
}

function checkCreation(type: string, content = ''): void {
  if (type !== 'custom') {
    throw new ApiError(400, `Currently not allowed to create storage volumes of type "${type}"`);
  }
  if (content === 'block') throw new ApiError(400, 'Custom block volumes are not supported on this server');
  if (content !== '' && content !== 'filesystem') throw new ApiError(400, `Invalid content type "${content}"`);
}

/** Undefined: an empty volume. */
function sourceOf(
  request: FastifyRequest,
  { source = {} }: Static<typeof Post>,
  { pool, project, deps }: { readonly pool: string; readonly project: string; readonly deps: VolumeDeps },
): VolumeSource | undefined {
  const { type = '', name = '', volume_only: volumeOnly = false } = source;
  if (type === '') return undefined;
  const [owner = '', snapshot] = name.split('/');
  checkSource(source, owner);
  checkSourceProject(request, source.project);
  const place = {
    pool: source.pool || pool,
    project: source.project ? deps.volumes.holder(source.project) : project,
  };
  return { ...place, name: owner, volumeOnly, ...(snapshot !== undefined && { snapshot }) };
}

function checkSource({ type = '', refresh = false }: Static<typeof Source>, owner: string): void {
  if (type !== 'copy') throw new ApiError(400, `Unknown source type "${type}"`);
  if (refresh) throw new AppError('unsupported', 'Refreshing custom volumes is not supported');
  if (owner === '') throw new ApiError(400, 'No source volume name supplied');
}
