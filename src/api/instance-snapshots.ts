// /1.0/instances/{name}/snapshots
import type { FastifyRequest } from 'fastify';
import type { SnapshotRecord } from '#src/engine/db/records.ts';
import type { InstanceRecord } from '#src/engine/db/records.ts';
import type { InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import type { SnapshotOf } from '#src/engine/instances/snapshots.ts';
import { expander, type Expanded } from '#src/engine/instances/expansion.ts';
import { ZERO_TIME } from '#src/engine/db/records.ts';
import { atATime } from '#src/lib/at-a-time.ts';
import { limited } from '#src/lib/wait.ts';
import type { ApiApp } from './app.ts';
import { ApiError, checkIfMatch, operation, sync, syncWithEtag } from './envelope.ts';
import { migrationOptions, RenameBody } from './instance-bodies.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { projectSuffix } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery } from './schema.ts';
import { Type } from './type.ts';

const Params = pathParams('name');
const SnapshotParams = pathParams('name', 'snapshot');
const CreateBody = partial({
  name: Type.String(),
  stateful: Type.Boolean(),
  expires_at: Type.String({ description: 'Absent: by snapshots.expiry; the zero time: never' }),
});
const ExpiryBody = partial({ expires_at: Type.String() });
const READ_MS = 30_000;
const SIZES_AT_A_TIME = 8;

export function registerSnapshotRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  registerCollection(app, prefix, deps);
  registerOne(app, prefix, deps);
  registerChanges(app, prefix, deps);
}

function registerCollection(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { snapshots } = deps.instances;
  const path = `/1.0/${prefix}/:name/snapshots`;

  app.get(
    path,
    { schema: { summary: 'List the snapshots of an instance', params: Params, querystring: ListQuery } },
    async (request) => {
      const { record } = instanceOf(request, deps);
      const { recursion = 0 } = request.query;
      if (recursion === 0) return sync(snapshots.names(record).map((name) => snapshotUrl(prefix, record, name)));
      return sync(await sizedSnapshotViews(deps.instances, record, limited(READ_MS)));
    },
  );

  app.post(
    path,
    {
      schema: { summary: 'Take a snapshot', params: Params, body: CreateBody, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const { record } = instanceOf(request, deps);
      const { name = '', stateful = false, expires_at } = request.body;
      const expiry = expires_at === undefined ? {} : { expiresAt: timeOf(expires_at) };
      return operation(reply, deps.operations, snapshots.create(record, { name, stateful, ...expiry }));
    },
  );
}

function registerOne(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { snapshots } = deps.instances;
  const path = `/1.0/${prefix}/:name/snapshots/:snapshot`;

  app.get(
    path,
    { schema: { summary: 'Get a snapshot', params: SnapshotParams, querystring: ProjectQuery } },
    async (request, reply) => {
      const found = snapshotOf(request, deps);
      const size = await snapshots.size(found, limited(READ_MS));
      const expanded = expandedOf(deps, found);
      return syncWithEtag(reply, { ...snapshotView(found.snapshot, size), ...expanded }, [found.snapshot.expiresAt]);
    },
  );

  app.delete(
    path,
    {
      schema: { summary: 'Delete a snapshot', params: SnapshotParams, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => operation(reply, deps.operations, snapshots.remove(snapshotOf(request, deps))),
  );
}

function registerChanges(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { snapshots, migrations } = deps.instances;
  const path = `/1.0/${prefix}/:name/snapshots/:snapshot`;

  app.post(
    path,
    {
      schema: { summary: 'Rename a snapshot', params: SnapshotParams, body: RenameBody, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const found = snapshotOf(request, deps);
      const migration = migrationOptions(request.body);
      const id = migration
        ? await migrations.start({ copied: { ...found, ...migration }, ...migration, live: false })
        : snapshots.rename(found, request.body.name ?? '');
      return operation(reply, deps.operations, id);
    },
  );

  for (const method of ['PUT', 'PATCH'] as const) {
    app.route({
      method,
      url: path,
      schema: {
        summary: 'Change when a snapshot expires',
        params: SnapshotParams,
        body: ExpiryBody,
        querystring: ProjectQuery,
      },
      config: { async: true },
      handler: async (request, reply) => {
        const found = snapshotOf(request, deps);
        checkIfMatch(request, [found.snapshot.expiresAt]);
        const { expires_at } = request.body;
        const unchanged = method === 'PATCH' ? found.snapshot.expiresAt : ZERO_TIME;
        const expiry = expires_at === undefined ? unchanged : timeOf(expires_at);
        return operation(reply, deps.operations, snapshots.setExpiry(found, expiry));
      },
    });
  }
}

/** In one form, so that times can be compared as text; nothing is no time. */
function timeOf(text: string): string {
  if (text === '') return ZERO_TIME;
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) throw new ApiError(400, `Invalid time: ${text}`);
  return time.getTime() <= Date.parse(ZERO_TIME) ? ZERO_TIME : time.toISOString();
}

function snapshotOf(request: FastifyRequest, deps: InstanceDeps): SnapshotOf {
  const { record } = instanceOf(request, deps);
  const { snapshot } = request.params as { readonly snapshot: string };
  return { record, snapshot: deps.instances.snapshots.get(record, snapshot) };
}

function snapshotUrl(prefix: string, { name, project }: InstanceRecord, snapshot: string): string {
  const path = `/1.0/${prefix}/${encodeURIComponent(name)}/snapshots/${encodeURIComponent(snapshot)}`;
  return `${path}${projectSuffix(project)}`;
}

/** What it would be now: its profiles may be gone. */
function expandedOf(deps: Pick<InstanceDeps, 'context'>, { record, snapshot }: SnapshotOf): object {
  const { database } = deps.context;
  const profiles = snapshot.profiles.filter((name) => database.profiles.find(record.project, name));
  const { config, devices }: Expanded = expander(database)({ ...snapshot, profiles, project: record.project });
  return { expanded_config: config, expanded_devices: devices };
}

function snapshotView(snapshot: SnapshotRecord, size: number): object {
  return {
    architecture: snapshot.architecture,
    config: snapshot.config,
    created_at: snapshot.createdAt,
    devices: snapshot.devices,
    ephemeral: snapshot.ephemeral,
    expires_at: snapshot.expiresAt,
    last_used_at: snapshot.lastUsedAt,
    name: snapshot.name,
    profiles: snapshot.profiles,
    stateful: snapshot.stateful,
    size,
  };
}

/** For lists of instances: the size of each would be a question to the file system. */
export function snapshotViews(snapshots: readonly SnapshotRecord[] = []): readonly object[] {
  return snapshots.map((snapshot) => snapshotView(snapshot, -1));
}

export async function sizedSnapshotViews(
  { snapshots }: Pick<InstancesOfEngine, 'snapshots'>,
  record: InstanceRecord,
  signal: AbortSignal,
): Promise<readonly object[]> {
  const found = snapshots.list(record);
  const sizes = new Map<string, number>();
  await atATime(SIZES_AT_A_TIME, found, async (snapshot) => {
    sizes.set(snapshot.name, await snapshots.size({ record, snapshot }, signal));
  });
  return found.map((snapshot) => snapshotView(snapshot, sizes.get(snapshot.name) ?? -1));
}
