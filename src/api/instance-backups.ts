// /1.0/instances/NAME/backups: made, listed, fetched; and instances made of what was fetched.
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Static } from 'typebox';
import type { BackupRequest } from '#src/engine/backups/instance-backups.ts';
import { type BackupRecord, ZERO_TIME } from '#src/engine/db/records.ts';
import type { ApiApp } from './app.ts';
import { ApiError, operation, sync } from './envelope.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { existingProject, projectSuffix } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery } from './schema.ts';
import { Type } from './type.ts';

export const BACKUP_EXTENSIONS = [
  'container_backup',
  'container_backup_override_pool',
  'backup_compression',
  'backup_compression_algorithm',
  'backup_override_name',
  'direct_backup',
];

export const PostBackup = partial({
  name: Type.String(),
  expires_at: Type.String(),
  instance_only: Type.Boolean(),
  container_only: Type.Boolean(),
  volume_only: Type.Boolean(),
  optimized_storage: Type.Boolean(),
  compression_algorithm: Type.String(),
});
const Rename = Type.Object({ name: Type.String({ minLength: 1 }) });
const Backup = Type.Object({
  name: Type.String(),
  created_at: Type.String(),
  expires_at: Type.String(),
  instance_only: Type.Boolean(),
  container_only: Type.Boolean(),
  optimized_storage: Type.Boolean(),
});
const Params = pathParams('name');
const BackupParams = pathParams('name', 'backup');
/** A client that takes nothing for so long is gone. */
const IDLE_MS = 60_000;

export function backupView({ name, createdAt, expiresAt, instanceOnly, optimized }: BackupRecord): object {
  return {
    name,
    created_at: createdAt,
    expires_at: expiresAt,
    instance_only: instanceOnly,
    container_only: instanceOnly,
    optimized_storage: optimized,
  };
}

export function backupRequest(body: Static<typeof PostBackup>): BackupRequest {
  const { name = '', expires_at: expiresAt = ZERO_TIME, optimized_storage: optimized = false } = body;
  if (Number.isNaN(Date.parse(expiresAt))) throw new ApiError(400, 'Invalid expiry date');
  const instanceOnly = [body.instance_only, body.container_only, body.volume_only].includes(true);
  return { name, expiresAt, instanceOnly, optimized, compression: body.compression_algorithm ?? '' };
}

export function registerBackupRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { backups } = deps.instances;
  const find = (request: FastifyRequest) => {
    const { record } = instanceOf(request, deps);
    return { record, backup: backups.get(record, (request.params as { readonly backup: string }).backup) };
  };

  app.get(
    `/1.0/${prefix}/:name/backups`,
    {
      schema: { summary: 'List the backups of an instance', params: Params, querystring: ListQuery },
      config: { answer: Type.Array(Backup) },
    },
    async (request) => {
      const { record } = instanceOf(request, deps);
      const list = backups.list(record);
      if ((request.query.recursion ?? 0) > 0) return sync(list.map(backupView));
      const base = `/1.0/${prefix}/${encodeURIComponent(record.name)}/backups`;
      return sync(list.map(({ name }) => `${base}/${encodeURIComponent(name)}${projectSuffix(record.project)}`));
    },
  );

  app.post(
    `/1.0/${prefix}/:name/backups`,
    {
      schema: {
        summary: 'Back up an instance; with Accept: application/octet-stream the answer is the backup itself',
        params: Params,
        body: PostBackup,
        querystring: ProjectQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      const { record } = instanceOf(request, deps);
      const wanted = backupRequest(request.body);
      if (request.headers.accept !== 'application/octet-stream') {
        return operation(reply, deps.operations, backups.create(record, wanted));
      }
      closeWhenIdle(reply);
      return reply.header('content-type', 'application/octet-stream').send(backups.direct(record, wanted));
    },
  );

  app.get(
    `/1.0/${prefix}/:name/backups/:backup`,
    {
      schema: { summary: 'Get a backup', params: BackupParams, querystring: ProjectQuery },
      config: { answer: Backup },
    },
    async (request) => sync(backupView(find(request).backup)),
  );

  app.post(
    `/1.0/${prefix}/:name/backups/:backup`,
    {
      schema: { summary: 'Rename a backup', params: BackupParams, body: Rename, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const { record, backup } = find(request);
      return operation(reply, deps.operations, backups.rename(record, backup, request.body.name));
    },
  );

  app.delete(
    `/1.0/${prefix}/:name/backups/:backup`,
    {
      schema: { summary: 'Delete a backup', params: BackupParams, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const { record, backup } = find(request);
      return operation(reply, deps.operations, backups.remove(record, backup));
    },
  );

  app.get(
    `/1.0/${prefix}/:name/backups/:backup/export`,
    { schema: { summary: 'Download a backup', params: BackupParams, querystring: ProjectQuery } },
    async (request, reply) => {
      const { record, backup } = find(request);
      const path = backups.file(record, backup);
      const { size } = await stat(path);
      closeWhenIdle(reply);
      return reply
        .header('content-type', 'application/octet-stream')
        .header('content-length', size)
        .send(createReadStream(path));
    },
  );
}

export function closeWhenIdle(reply: FastifyReply): void {
  reply.raw.setTimeout(IDLE_MS, () => reply.raw.destroy());
}

/** POST /1.0/instances with a tarball for its body; undefined: it has another. */
export async function importBackup(
  request: FastifyRequest,
  { instances, operations }: InstanceDeps,
  reply: FastifyReply,
): Promise<object | undefined> {
  const { body, headers } = request;
  if (!(body instanceof Readable)) return undefined;
  const header = (name: string): string => String(headers[`x-lxd-${name}`] ?? headers[`x-incus-${name}`] ?? '');
  const gone = new AbortController();
  const wanted = {
    project: existingProject(request, () => 'Failed loading project: '),
    name: header('name'),
    pool: header('pool'),
  };
  const id = await instances.imports.import(wanted, body as AsyncIterable<Buffer>, gone.signal);
  return operation(reply, operations, id);
}
