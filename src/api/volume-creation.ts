// POST /1.0/storage-pools/POOL/volumes: empty custom volumes, copies, and backups brought back.
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import type { NewCustomVolume, VolumeSource } from '#src/engine/volumes/custom-volumes.ts';
import { refreshVolume } from '#src/engine/volumes/volume-refresh.ts';
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
  mode: Type.String(),
  operation: Type.String(),
  certificate: Type.String(),
  secrets: StringMap,
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
    return operation(reply, operations, await importBackup(request, deps, { pool, project }));
  }
  const { name = '', description = '', config = {}, source = {} } = body;
  const volume = { pool, project, name, description, config };
  if (source.type === 'migration') return operation(reply, operations, arrive(deps, volume, source));
  const origin = sourceOf(request, body, { pool, project, deps });
  if (!origin) {
    await volumes.create(volume, limited(CHANGE_MS));
    return sync();
  }
  return operation(reply, operations, copy(deps, volume, { origin, refresh: source.refresh === true }));
}

function importBackup(
  { headers, body }: FastifyRequest,
  { volumeBackups }: VolumeDeps,
  place: Pick<NewCustomVolume, 'pool' | 'project'>,
): Promise<string> {
  const name = String(headers['x-lxd-name'] ?? headers['x-incus-name'] ?? '');
  return volumeBackups.import({ ...place, name }, body as AsyncIterable<Buffer>, limited(CHANGE_MS));
}

function arrive({ volumeMigrations }: VolumeDeps, volume: NewCustomVolume, source: Static<typeof Source>): string {
  const { volume_only: volumeOnly = false, refresh = false } = source;
  return volumeMigrations.receive(volume, { ...source, volumeOnly, refresh });
}

/** An operation. What is there already is brought up to date, if that is asked for. */
function copy(
  { volumes, volumeSnapshots: snapshots, context, operations }: VolumeDeps,
  volume: NewCustomVolume,
  { origin, refresh }: { readonly origin: VolumeSource; readonly refresh: boolean },
): string {
  const { pool, project, name } = volume;
  const isThere = refresh && volumes.list(pool, project).some((one) => one.name === name);
  if (!isThere) volumes.checkNew(volume);
  const resources = { storage_volumes: [volumeUrl(pool, { type: 'custom', name })] };
  const spec = { class: 'task', description: 'Copying storage volume', project, resources } as const;
  return operations.start(spec, ({ signal }) => {
    if (!isThere) return volumes.copy(volume, origin, signal);
    return refreshVolume({ context, volumes, snapshots }, { source: origin, target: volume }, signal);
  });
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

function checkSource({ type = '' }: Static<typeof Source>, owner: string): void {
  if (type !== 'copy') throw new ApiError(400, `Unknown source type "${type}"`);
  if (owner === '') throw new ApiError(400, 'No source volume name supplied');
}
