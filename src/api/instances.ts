// /1.0/instances, and /1.0/containers which is the same
import type { FastifyRequest } from 'fastify';
import type { InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import type { InstanceInfo } from '#src/engine/instances/instances.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { DEVICE_EXTENSIONS } from './device-extensions.ts';
import { ApiError, checkIfMatch, operation, sync, syncWithEtag, translating } from './envelope.ts';
import { parseFilter } from './filter.ts';
import {
  BulkBody,
  merged,
  migrationOptions,
  moveRequest,
  newInstanceRequest,
  PostBody,
  PutBody,
  RenameBody,
  replacement,
  StateBody,
  stateChange,
} from './instance-bodies.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { CONSOLE_EXTENSIONS, registerConsoleRoutes } from './instance-console.ts';
import { EXEC_EXTENSIONS, registerExecRoutes } from './instance-exec.ts';
import { FILE_EXTENSIONS, registerFileRoutes } from './instance-files.ts';
import { registerLogRoutes } from './instance-logs.ts';
import { METADATA_EXTENSIONS, registerMetadataRoutes } from './instance-metadata.ts';
import { rebuildRoute } from './instance-rebuild.ts';
import { registerSftpRoutes, SFTP_EXTENSIONS } from './instance-sftp.ts';
import { registerSnapshotRoutes, sizedSnapshotViews, snapshotViews } from './instance-snapshots.ts';
import { fullView, instanceView, mutableOf, stateView } from './instance-views.ts';
import { BACKUP_EXTENSIONS, importBackup, registerBackupRoutes } from './instance-backups.ts';
import { existingProject, projectOf, projectSuffix } from './project.ts';
import type { InstanceRoutes } from './register-routes.ts';
import { pathParams, ProjectQuery } from './schema.ts';
import { Type } from './type.ts';

const Params = pathParams('name');
const ListQuery = Type.Object({
  recursion: Type.Optional(Type.Integer({ minimum: 0, description: '0: URLs; 1: objects; 2: with state' })),
  project: Type.Optional(Type.String()),
  filter: Type.Optional(Type.String()),
  'all-projects': Type.Optional(Type.String()),
});
const OneQuery = Type.Object({
  recursion: Type.Optional(Type.Integer({ minimum: 0, description: '1: with state' })),
  project: Type.Optional(Type.String()),
});

/** Reading the state of all instances ends in this time; a change of one in that. */
const READ_MS = 30_000;
const EDIT_MS = 120_000;
const noProject = () => 'Failed loading project: ';
const PREFIXES = ['instances', 'containers'] as const;

export const instanceRoutes: InstanceRoutes<InstancesOfEngine> = {
  extensions: [
    'container_last_used_at',
    'container_host_shutdown_timeout',
    'container_stop_priority',
    'container_cpu_time',
    'container_image_properties',
    'container_syscall_filtering',
    'container_syscall_filtering_allow_deny_syntax',
    'container_full',
    'container_protection_delete',
    'container_mount_propagation',
    'id_map',
    'id_map_base',
    'id_map_current',
    'kernel_limits',
    'linux_sysctl',
    'limits_hugepages',
    // Of Incus: `limits.memory.swap` may be a size.
    'instance_memory_swap_bytes',
    'cloud_init',
    'instances',
    'instance_get_full',
    'instance_all_projects',
    'instance_bulk_state_change',
    'instance_create_start',
    ...DEVICE_EXTENSIONS,
    ...EXEC_EXTENSIONS,
    ...CONSOLE_EXTENSIONS,
    ...BACKUP_EXTENSIONS,
    'container_stateless_copy',
    'container_only_migration',
    'container_incremental_copy',
    'container_local_cross_pool_handling',
    'container_copy_project',
    'instance_allow_inconsistent_copy',
    'instance_pool_move',
    'instance_project_move',
    'snapshot_scheduling',
    'snapshot_schedule_aliases',
    'snapshot_expiry',
    'snapshot_expiry_creation',
    'snapshot_disk_usage',
    'instances_rebuild',
    'container_push',
    'container_push_target',
    'migration_progress',
    ...FILE_EXTENSIONS,
    ...METADATA_EXTENSIONS,
    ...SFTP_EXTENSIONS,
  ],
  register(app, engine, upgrades) {
    for (const prefix of PREFIXES) {
      registerList(app, prefix, engine);
      registerInstance(app, prefix, engine);
      registerChanges(app, prefix, engine);
      registerState(app, prefix, engine);
      registerLogRoutes(app, prefix, engine);
      registerExecRoutes(app, prefix, engine);
      registerConsoleRoutes(app, prefix, engine);
      registerBackupRoutes(app, prefix, engine);
      registerSnapshotRoutes(app, prefix, engine);
      rebuildRoute(app, prefix, engine);
      registerFileRoutes(app, prefix, engine);
      registerMetadataRoutes(app, prefix, engine);
      registerSftpRoutes(app, prefix, engine, upgrades);
    }
  },
};

function registerList(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { instances, operations } = deps;
  const all = instances.instances;

  app.get(`/1.0/${prefix}`, { schema: { summary: 'List instances', querystring: ListQuery } }, async (request) => {
    const { recursion = 0, filter } = request.query;
    const passes = parseFilter(filter);
    const found = all.list(projectOfList(request)).filter((info) => passes(instanceView(info)));
    if (recursion === 0) return sync(found.map((info) => instanceUrl(prefix, info)));
    if (recursion === 1) return sync(found.map(instanceView));
    const states = await all.states(found, limited(READ_MS));
    const snapshots = instances.snapshots.listAll();
    return sync(states.map(({ info, state }) => fullView(info, state, snapshotViews(snapshots.get(info.record.id)))));
  });

  app.post(
    `/1.0/${prefix}`,
    {
      schema: { summary: 'Create an instance', body: PostBody, querystring: ProjectQuery },
      config: { async: true, rawBody: 'octet-stream' },
    },
    async (request, reply) => {
      const imported = await importBackup(request, deps, reply);
      if (imported) return imported;
      const { operation: id } = all.create(existingProject(request, noProject), newInstanceRequest(request.body));
      return operation(reply, operations, id);
    },
  );

  app.put(
    `/1.0/${prefix}`,
    {
      schema: { summary: 'Change the state of all instances', body: BulkBody, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const change = stateChange(request.body.state ?? {});
      return operation(reply, operations, all.changeAll(existingProject(request, noProject), change));
    },
  );
}

function instanceUrl(prefix: string, { record }: InstanceInfo): string {
  return `/1.0/${prefix}/${encodeURIComponent(record.name)}${projectSuffix(record.project)}`;
}

/** Undefined: all projects. */
function projectOfList(request: FastifyRequest): string | undefined {
  const query = request.query as { readonly project?: string; readonly 'all-projects'?: string };
  if (query['all-projects'] !== 'true') return projectOf(request);
  if (query.project !== undefined && query.project !== '') {
    throw new ApiError(400, 'Cannot specify a project when requesting all projects');
  }
  return request.caller.projects ? projectOf(request) : undefined;
}

function registerInstance(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { instances } = deps.instances;

  app.get(
    `/1.0/${prefix}/:name`,
    { schema: { summary: 'Get an instance', params: Params, querystring: OneQuery } },
    async (request, reply) => {
      const info = instanceOf(request, deps);
      const { recursion = 0 } = request.query;
      const view = recursion === 0 ? instanceView(info) : await fullViewOf(info, deps);
      return syncWithEtag(reply, view, mutableOf(info.record));
    },
  );

  app.post(
    `/1.0/${prefix}/:name`,
    {
      schema: { summary: 'Rename an instance', params: Params, body: RenameBody, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const { record } = instanceOf(request, deps);
      const { moves, migrations } = deps.instances;
      const migration = migrationOptions(request.body);
      const id = migration
        ? await migrations.start({ copied: { record, ...migration }, ...migration })
        : moves.start(record, moveRequest(request.body));
      return operation(reply, deps.operations, id);
    },
  );

  app.delete(
    `/1.0/${prefix}/:name`,
    { schema: { summary: 'Delete an instance', params: Params, querystring: ProjectQuery }, config: { async: true } },
    async (request, reply) => operation(reply, deps.operations, instances.remove(instanceOf(request, deps))),
  );
}

async function fullViewOf(info: InstanceInfo, { instances }: InstanceDeps): Promise<object> {
  const signal = limited(READ_MS);
  const snapshots = await sizedSnapshotViews(instances, info.record, signal);
  return fullView(info, await instances.instances.state(info, signal), snapshots);
}

function registerChanges(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { instances } = deps.instances;

  app.put(
    `/1.0/${prefix}/:name`,
    {
      schema: { summary: 'Replace an instance', params: Params, body: PutBody, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const info = instanceOf(request, deps);
      checkIfMatch(request, mutableOf(info.record));
      const { restore = '', stateful = false } = request.body;
      if (restore !== '') {
        return operation(reply, deps.operations, deps.instances.restore.start(info.record, restore, { stateful }));
      }
      return operation(reply, deps.operations, instances.replace(info, replacement(request.body)));
    },
  );

  app.patch(
    `/1.0/${prefix}/:name`,
    { schema: { summary: 'Change parts of an instance', params: Params, body: PutBody, querystring: ProjectQuery } },
    async (request) => {
      const info = instanceOf(request, deps);
      checkIfMatch(request, mutableOf(info.record));
      if ((request.body.restore ?? '') !== '') throw new ApiError(400, "Can't call PATCH in restore mode");
      await translating({ invalid: { status: 500 } }, () => {
        return instances.edit(info, (current) => merged(current, request.body), limited(EDIT_MS));
      });
      return sync();
    },
  );
}

function registerState(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { instances } = deps.instances;

  app.get(
    `/1.0/${prefix}/:name/state`,
    { schema: { summary: 'Get the state of an instance', params: Params, querystring: ProjectQuery } },
    async (request) => sync(stateView(await instances.state(instanceOf(request, deps), limited(READ_MS)))),
  );

  app.put(
    `/1.0/${prefix}/:name/state`,
    {
      schema: {
        summary: 'Change the state of an instance',
        params: Params,
        body: StateBody,
        querystring: ProjectQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      const info = instanceOf(request, deps);
      return operation(reply, deps.operations, instances.changeState(info, stateChange(request.body)));
    },
  );
}
