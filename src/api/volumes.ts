// /1.0/storage-pools/POOL/volumes: those of instances and images to look at, custom ones to make and change.
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import type { VolumeRecord } from '#src/engine/db/records.ts';
import type { VolumeKey } from '#src/engine/db/volumes.ts';
import type { Engine } from '#src/engine/engine.ts';
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { ApiError, checkIfMatch, created, operation, sync, syncWithEtag } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { existingProject, projectSuffix } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery, StringMap } from './schema.ts';
import { listVolumes, VOLUME_TYPES, type Volume, volumeUrl, volumeView } from './storage-volumes.ts';
import { migrationTarget, MigrationTarget } from './migration-target.ts';
import { changeNotes, isRootVolume, mutableOfVolume, rootVolumeOf } from './root-volumes.ts';
import { Type } from './type.ts';
import { registerVolumeCreation } from './volume-creation.ts';
import { registerVolumeBackupRoutes } from './volume-backups.ts';
import { registerVolumeSnapshotRoutes } from './volume-snapshots.ts';

export const VOLUME_EXTENSIONS = [
  'storage_api_volume_rename',
  'storage_api_volume_snapshots',
  'storage_api_local_volume_handling',
  'storage_api_project',
  'storage_volume_project_move',
  'storage_api_remote_volume_handling',
  'storage_api_remote_volume_snapshot_copy',
  'custom_volume_refresh',
  'storage_rsync_bwlimit',
  'storage_rsync_compression',
  'storage_shifted',
  'storage_volumes_created_at',
  'custom_volume_snapshot_expiry',
  'custom_volume_backup',
];

export type VolumeDeps = Pick<
  Engine,
  'pools' | 'context' | 'volumes' | 'volumeSnapshots' | 'volumeBackups' | 'volumeMigrations' | 'operations'
>;

const Put = partial({ description: Type.String(), config: StringMap, restore: Type.String() });
const Rename = partial({
  name: Type.String(),
  pool: Type.String(),
  project: Type.String(),
  migration: Type.Boolean(),
  volume_only: Type.Boolean(),
  target: MigrationTarget,
});
const AnyVolume = Type.Object({ name: Type.String(), type: Type.String() });
const Params = pathParams('pool', 'type', 'volume');

const ASK_MS = 30_000;
const CHANGE_MS = 15 * 60_000;

export function registerVolumeRoutes(app: ApiApp, deps: VolumeDeps): void {
  registerLists(app, deps);
  registerVolumeCreation(app, deps);
  registerVolume(app, deps);
  registerChanges(app, deps);
  registerVolumeSnapshotRoutes(app, deps);
  registerVolumeBackupRoutes(app, deps);
}

/** The custom volume that a request names. AppError with LXD's text for anything else. */
export function customVolumeOf(request: FastifyRequest, { volumes, pools }: VolumeDeps, what: string): VolumeRecord {
  const { pool, type, volume: name } = request.params as { pool: string; type: string; volume: string };
  checkType(type);
  pools.get(pool);
  if (type !== 'custom') throw new ApiError(400, `${what} storage volumes of type "${type}" is not supported`);
  return volumes.get({ pool, project: volumes.holder(existingProject(request)), name });
}

function checkType(type: string): void {
  if (!VOLUME_TYPES.includes(type)) throw new AppError('invalid', `Invalid storage volume type name`);
}

const mutableOf = ({ name, config }: VolumeRecord) => [name, 'custom', config];

/** All that is on the pool, of the request's project. */
export async function volumesOf(
  request: FastifyRequest,
  { volumes, pools, context }: VolumeDeps,
): Promise<readonly Volume[]> {
  const { pool } = request.params as { readonly pool: string };
  pools.get(pool);
  const project = existingProject(request);
  return listVolumes({ context, volumes, pool, project, signal: limited(ASK_MS) });
}

function registerLists(app: ApiApp, deps: VolumeDeps): void {
  const answer = (volumes: readonly Volume[], pool: string, { recursion = 0, filter }: ListQuery) => {
    const passed = volumes.filter(parseFilter(filter));
    const url = (volume: Volume) => `${volumeUrl(pool, volume)}${projectSuffix(volume.project)}`;
    return sync(recursion === 0 ? passed.map(url) : passed);
  };

  app.get(
    '/1.0/storage-pools/:pool/volumes',
    {
      schema: { summary: 'List the volumes of a pool', params: pathParams('pool'), querystring: ListQuery },
      config: { answer: Type.Array(AnyVolume) },
    },
    async (request) => answer(await volumesOf(request, deps), request.params.pool, request.query),
  );

  app.get(
    '/1.0/storage-pools/:pool/volumes/:type',
    {
      schema: { summary: 'List the volumes of one type', params: pathParams('pool', 'type'), querystring: ListQuery },
      config: { answer: Type.Array(AnyVolume) },
    },
    async (request) => {
      const { pool, type } = request.params;
      checkType(type);
      const volumes = await volumesOf(request, deps);
      return answer(
        volumes.filter((volume) => volume.type === type && !volume.name.includes('/')),
        pool,
        request.query,
      );
    },
  );
}

export function checkSourceProject(request: FastifyRequest, project: string | undefined): void {
  const { projects } = request.caller;
  if (project !== undefined && project !== '' && projects && !projects.has(project)) {
    throw new AppError('forbidden', 'not authorized');
  }
}

function registerVolume(app: ApiApp, deps: VolumeDeps): void {
  const { pools, volumes } = deps;

  app.get(
    '/1.0/storage-pools/:pool/volumes/:type/:volume',
    {
      schema: { summary: 'Get a volume', params: Params, querystring: ListQuery },
      config: { answer: AnyVolume },
    },
    async (request, reply) => {
      const { type } = request.params;
      checkType(type);
      if (type === 'custom') {
        const record = customVolumeOf(request, deps, 'Reading');
        return syncWithEtag(reply, volumeView(record, volumes.usedBy(record)), mutableOf(record));
      }
      const found = rootVolumeOf(request, await volumesOf(request, deps));
      return syncWithEtag(reply, found, mutableOfVolume(found));
    },
  );

  app.get(
    '/1.0/storage-pools/:pool/volumes/:type/:volume/state',
    { schema: { summary: 'Get the usage of a volume', params: Params, querystring: ProjectQuery } },
    async (request) => {
      const { pool, type, volume } = request.params;
      checkType(type);
      if (type === 'custom') {
        const record = customVolumeOf(request, deps, 'Reading');
        return sync({ usage: { used: await volumes.usage(record, limited(ASK_MS)) } });
      }
      const found = (await volumesOf(request, deps)).find((v) => v.type === type && v.name === volume);
      if (!found) throw new AppError('not_found', 'Storage pool volume not found');
      const isRoot = found.type === 'container';
      const used = isRoot ? await pools.driver(pool).instanceUsage(volume, limited(ASK_MS)) : undefined;
      return sync({ usage: used === undefined ? null : { used } });
    },
  );

  app.delete(
    '/1.0/storage-pools/:pool/volumes/:type/:volume',
    { schema: { summary: 'Delete a custom volume', params: Params, querystring: ProjectQuery } },
    async (request) => {
      await volumes.remove(customVolumeOf(request, deps, 'Deleting'), limited(CHANGE_MS));
      return sync();
    },
  );
}

function registerChanges(app: ApiApp, deps: VolumeDeps): void {
  const { volumes, volumeSnapshots, operations } = deps;
  const path = '/1.0/storage-pools/:pool/volumes/:type/:volume';

  app.put(
    path,
    {
      schema: {
        summary: 'Replace what a volume says of itself, or restore a custom volume',
        params: Params,
        body: Put,
        querystring: ProjectQuery,
      },
    },
    async (request) => {
      if (isRootVolume(request) && (request.body.restore ?? '') === '') {
        const { description = '', config = {} } = request.body;
        const volume = rootVolumeOf(request, await volumesOf(request, deps));
        changeNotes(request, deps, volume, () => ({ description, config }));
        return sync();
      }
      const record = customVolumeOf(request, deps, 'Changing');
      checkIfMatch(request, mutableOf(record));
      const { restore = '', description = '', config = {} } = request.body;
      if (restore === '') await volumes.update(record, { description, config }, limited(CHANGE_MS));
      else await volumeSnapshots.restore(record, restore, limited(CHANGE_MS));
      return sync();
    },
  );

  app.patch(
    path,
    { schema: { summary: 'Change parts of a volume', params: Params, body: Put, querystring: ProjectQuery } },
    async (request) => {
      if (isRootVolume(request)) {
        const { description: text, config: more } = request.body;
        changeNotes(request, deps, rootVolumeOf(request, await volumesOf(request, deps)), ({ description, config }) => {
          return { description: text ?? description, config: { ...config, ...more } };
        });
        return sync();
      }
      const record = customVolumeOf(request, deps, 'Changing');
      checkIfMatch(request, mutableOf(record));
      const { description = record.description, config } = request.body;
      await volumes.update(record, { description, config: { ...record.config, ...config } }, limited(CHANGE_MS));
      return sync();
    },
  );

  app.post(
    path,
    {
      schema: {
        summary: 'Rename, move or send a custom volume',
        params: Params,
        body: Rename,
        querystring: ProjectQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      const record = customVolumeOf(request, deps, 'Renaming');
      const { name = '', migration = false, volume_only: volumeOnly = false } = request.body;
      if (migration) {
        const departure = { volume: record, volumeOnly, ...migrationTarget(request.body) };
        return operation(reply, operations, deps.volumeMigrations.send(departure));
      }
      const target = moveTarget(request, record, { ...request.body, volumes });
      if (target.pool === record.pool && target.project === record.project) {
        await volumes.rename(record, name, limited(CHANGE_MS));
        const url = volumeUrl(record.pool, { type: 'custom', name });
        return created(reply, `${url}${projectSuffix(record.project)}`);
      }
      volumes.checkMove(record, target);
      const resources = { storage_volumes: [volumeUrl(record.pool, { type: 'custom', name: record.name })] };
      const spec = { class: 'task', description: 'Moving storage volume', project: record.project, resources } as const;
      return operation(
        reply,
        operations,
        operations.start(spec, ({ signal }) => volumes.move(record, target, signal)),
      );
    },
  );
}

function moveTarget(
  request: FastifyRequest,
  record: VolumeRecord,
  { name = '', pool = '', project = '', volumes }: Static<typeof Rename> & Pick<VolumeDeps, 'volumes'>,
): VolumeKey {
  checkSourceProject(request, project);
  return {
    pool: pool === '' ? record.pool : pool,
    project: project === '' ? record.project : volumes.holder(project),
    name,
  };
}
