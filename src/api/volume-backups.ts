// /1.0/storage-pools/POOL/volumes/custom/VOLUME/backups
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { urlOf } from '#src/engine/volumes/custom-volumes.ts';
import type { ApiApp } from './app.ts';
import { operation, sync } from './envelope.ts';
import { backupRequest, closeWhenIdle, PostBackup } from './instance-backups.ts';
import { projectSuffix } from './project.ts';
import { ListQuery, pathParams, ProjectQuery } from './schema.ts';
import { Type } from './type.ts';
import { customVolumeOf, type VolumeDeps } from './volumes.ts';
import type { BackupRecord } from '#src/engine/db/records.ts';

const Params = pathParams('pool', 'type', 'volume');
const BackupParams = pathParams('pool', 'type', 'volume', 'backup');
const Rename = Type.Object({ name: Type.String({ minLength: 1 }) });
const BASE = '/1.0/storage-pools/:pool/volumes/:type/:volume/backups';

function view({ name, createdAt, expiresAt, instanceOnly, optimized }: BackupRecord): object {
  const times = { created_at: createdAt, expires_at: expiresAt };
  return { name, ...times, volume_only: instanceOnly, optimized_storage: optimized };
}

type Resources = Readonly<Record<string, readonly string[]>>;

function specOf(description: string, volume: ReturnType<typeof customVolumeOf>, more: Resources = {}) {
  const resources = { storage_volumes: [urlOf(volume)], ...more };
  return { class: 'task', description, project: volume.project, resources } as const;
}

export function registerVolumeBackupRoutes(app: ApiApp, deps: VolumeDeps): void {
  const { volumeBackups, operations } = deps;

  app.get(
    BASE,
    { schema: { summary: 'List the backups of a custom volume', params: Params, querystring: ListQuery } },
    async (request) => {
      const volume = customVolumeOf(request, deps, 'Backups of');
      const list = volumeBackups.list(volume);
      if ((request.query.recursion ?? 0) > 0) return sync(list.map(view));
      const suffix = projectSuffix(volume.project);
      return sync(list.map(({ name }) => `${urlOf(volume)}/backups/${encodeURIComponent(name)}${suffix}`));
    },
  );

  app.post(
    BASE,
    {
      schema: { summary: 'Back up a custom volume', params: Params, body: PostBackup, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const volume = customVolumeOf(request, deps, 'Backups of');
      const wanted = backupRequest(request.body);
      volumeBackups.check(volume, wanted);
      const name = volumeBackups.nameFor(volume, wanted.name);
      const made = { backups: [`/1.0/backups/${encodeURIComponent(name)}`] };
      const spec = specOf('Backing up storage volume', volume, made);
      const id = operations.start(spec, ({ signal }) => volumeBackups.create(volume, { ...wanted, name }, signal));
      return operation(reply, operations, id);
    },
  );

  app.get(
    `${BASE}/:backup`,
    { schema: { summary: 'Get a backup', params: BackupParams, querystring: ProjectQuery } },
    async (request) => {
      const volume = customVolumeOf(request, deps, 'Backups of');
      return sync(view(volumeBackups.get(volume, request.params.backup)));
    },
  );

  app.post(
    `${BASE}/:backup`,
    {
      schema: { summary: 'Rename a backup', params: BackupParams, body: Rename, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const volume = customVolumeOf(request, deps, 'Backups of');
      const backup = volumeBackups.get(volume, request.params.backup);
      const spec = specOf('Renaming storage volume backup', volume);
      const id = operations.start(spec, async () => volumeBackups.rename(volume, backup, request.body.name));
      return operation(reply, operations, id);
    },
  );

  app.delete(
    `${BASE}/:backup`,
    {
      schema: { summary: 'Delete a backup', params: BackupParams, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const volume = customVolumeOf(request, deps, 'Backups of');
      const backup = volumeBackups.get(volume, request.params.backup);
      const spec = specOf('Removing storage volume backup', volume);
      const id = operations.start(spec, () => volumeBackups.remove(volume, backup));
      return operation(reply, operations, id);
    },
  );

  app.get(
    `${BASE}/:backup/export`,
    { schema: { summary: 'Download a backup', params: BackupParams, querystring: ProjectQuery } },
    async (request, reply) => {
      const volume = customVolumeOf(request, deps, 'Backups of');
      const path = volumeBackups.path(volumeBackups.get(volume, request.params.backup));
      const { size } = await stat(path);
      closeWhenIdle(reply);
      return reply
        .header('content-type', 'application/octet-stream')
        .header('content-length', size)
        .send(createReadStream(path));
    },
  );
}
