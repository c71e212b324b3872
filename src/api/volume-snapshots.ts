// /1.0/storage-pools/POOL/volumes/custom/VOLUME/snapshots
/* oxlint-disable max-lines-per-function -- a list of routes, each of them short */
import type { FastifyRequest } from 'fastify';
import type { VolumeRecord, VolumeSnapshotRecord } from '#src/engine/db/records.ts';
import { ZERO_TIME } from '#src/engine/db/records.ts';
import { urlOf } from '#src/engine/volumes/custom-volumes.ts';
import type { ApiApp } from './app.ts';
import { ApiError, checkIfMatch, operation, sync, syncWithEtag } from './envelope.ts';
import { parseFilter } from './filter.ts';
import { projectSuffix } from './project.ts';
import { ListQuery, partial, pathParams, ProjectQuery } from './schema.ts';
import { migrationTarget, MigrationTarget } from './migration-target.ts';
import { changeNotes, isRootVolume, mutableOfSnapshot, rootSnapshotView, rootVolumeOf } from './root-volumes.ts';
import { volumeSnapshotView, volumeUrl } from './storage-volumes.ts';
import { Type } from './type.ts';
import { customVolumeOf, type VolumeDeps, volumesOf } from './volumes.ts';

const Post = partial({ name: Type.String(), expires_at: Type.String(), description: Type.String() });
const Put = partial({ description: Type.String(), expires_at: Type.String() });
const Rename = Type.Object({
  name: Type.String({ minLength: 1 }),
  migration: Type.Optional(Type.Boolean()),
  target: Type.Optional(MigrationTarget),
});
const Snapshot = Type.Object({ name: Type.String(), description: Type.String() });
const Params = pathParams('pool', 'type', 'volume');
const SnapshotParams = pathParams('pool', 'type', 'volume', 'snapshot');
const BASE = '/1.0/storage-pools/:pool/volumes/:type/:volume/snapshots';

const mutableOf = ({ description, expiresAt }: VolumeSnapshotRecord) => [description, expiresAt];

export function registerVolumeSnapshotRoutes(app: ApiApp, deps: VolumeDeps): void {
  registerAll(app, deps);
  registerOne(app, deps);
}

function snapshotOf(
  request: FastifyRequest,
  deps: VolumeDeps,
): { readonly volume: VolumeRecord; readonly snapshot: VolumeSnapshotRecord } {
  const volume = customVolumeOf(request, deps, 'Snapshots of');
  const { snapshot } = request.params as { readonly snapshot: string };
  return { volume, snapshot: deps.volumes.snapshot(volume, snapshot) };
}

function checkedTime(text: string): string {
  if (text === '') return ZERO_TIME;
  if (Number.isNaN(Date.parse(text))) throw new ApiError(400, 'Invalid expiry date');
  return text;
}

function spec(description: string, volume: VolumeRecord, snapshot: string) {
  const resources = { storage_volumes: [urlOf(volume)], storage_volume_snapshots: [urlOf(volume, snapshot)] };
  return { class: 'task', description, project: volume.project, resources } as const;
}

function registerAll(app: ApiApp, deps: VolumeDeps): void {
  const { volumes, volumeSnapshots, operations } = deps;

  app.get(
    BASE,
    {
      schema: { summary: 'List the snapshots of a custom volume', params: Params, querystring: ListQuery },
      config: { answer: Type.Array(Snapshot) },
    },
    async (request) => {
      const { recursion = 0, filter } = request.query;
      if (isRootVolume(request)) {
        const { pool, type, volume: name } = request.params;
        const found = (await volumesOf(request, deps)).filter((one) => {
          return one.type === type && one.name.startsWith(`${name}/`);
        });
        if (recursion > 0) return sync(found.map(rootSnapshotView).filter(parseFilter(filter)));
        return sync(found.map((one) => `${volumeUrl(pool, one)}${projectSuffix(one.project)}`));
      }
      const volume = customVolumeOf(request, deps, 'Snapshots of');
      const list = volumes.snapshots(volume);
      const views = list.map((snapshot) => volumeSnapshotView(volume, snapshot)).filter(parseFilter(filter));
      if (recursion > 0) return sync(views);
      return sync(list.map(({ name }) => `${urlOf(volume, name)}${projectSuffix(volume.project)}`));
    },
  );

  app.post(
    BASE,
    {
      schema: { summary: 'Take a snapshot of a custom volume', params: Params, body: Post, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const volume = customVolumeOf(request, deps, 'Snapshots of');
      const { name: wanted = '', expires_at: expires, description } = request.body;
      const name = volumeSnapshots.nameFor(volume, wanted);
      const snapshot = {
        name,
        ...(expires !== undefined && { expiresAt: checkedTime(expires) }),
        ...(description !== undefined && description !== '' && { description }),
      };
      const id = operations.start(spec('Creating storage volume snapshot', volume, name), ({ signal }) => {
        return volumeSnapshots.create(volume, snapshot, signal);
      });
      return operation(reply, operations, id);
    },
  );
}

/** Of a snapshot of an instance: it expires with the instance's own snapshot. */
async function describe(
  request: FastifyRequest,
  deps: VolumeDeps,
  { description: text }: { readonly description?: string },
): Promise<void> {
  const found = rootVolumeOf(request, await volumesOf(request, deps));
  const isReplaced = request.method === 'PUT';
  changeNotes(request, deps, found, ({ description, config }) => {
    return { description: text ?? (isReplaced ? '' : description), config };
  });
}

function registerOne(app: ApiApp, deps: VolumeDeps): void {
  const { volumeSnapshots, volumeMigrations, operations } = deps;
  const path = `${BASE}/:snapshot`;

  app.get(
    path,
    {
      schema: { summary: 'Get a snapshot of a custom volume', params: SnapshotParams, querystring: ProjectQuery },
      config: { answer: Snapshot },
    },
    async (request, reply) => {
      // the bare name here, where the list has VOLUME/SNAPSHOT: as LXD does it
      const name = request.params.snapshot;
      if (isRootVolume(request)) {
        const found = rootVolumeOf(request, await volumesOf(request, deps));
        return syncWithEtag(reply, { ...rootSnapshotView(found), name }, mutableOfSnapshot(found));
      }
      const { volume, snapshot } = snapshotOf(request, deps);
      return syncWithEtag(reply, { ...volumeSnapshotView(volume, snapshot), name }, mutableOf(snapshot));
    },
  );

  app.put(
    path,
    {
      schema: {
        summary: 'Replace the description and expiry of a snapshot',
        params: SnapshotParams,
        body: Put,
        querystring: ProjectQuery,
      },
    },
    async (request) => {
      if (isRootVolume(request)) {
        await describe(request, deps, request.body);
        return sync();
      }
      const { volume, snapshot } = snapshotOf(request, deps);
      checkIfMatch(request, mutableOf(snapshot));
      const { description = '', expires_at: expires = '' } = request.body;
      await volumeSnapshots.update(volume, snapshot, { description, expiresAt: checkedTime(expires) });
      return sync();
    },
  );

  app.patch(
    path,
    {
      schema: {
        summary: 'Change the description or expiry of a snapshot',
        params: SnapshotParams,
        body: Put,
        querystring: ProjectQuery,
      },
    },
    async (request) => {
      if (isRootVolume(request)) {
        await describe(request, deps, request.body);
        return sync();
      }
      const { volume, snapshot } = snapshotOf(request, deps);
      checkIfMatch(request, mutableOf(snapshot));
      const { description = snapshot.description, expires_at: expires = snapshot.expiresAt } = request.body;
      await volumeSnapshots.update(volume, snapshot, { description, expiresAt: checkedTime(expires) });
      return sync();
    },
  );

  app.post(
    path,
    {
      schema: { summary: 'Rename or send a snapshot', params: SnapshotParams, body: Rename, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const { volume, snapshot } = snapshotOf(request, deps);
      const { name, migration = false } = request.body;
      if (migration) {
        const departure = { volume, snapshot, volumeOnly: true, ...migrationTarget(request.body) };
        return operation(reply, operations, volumeMigrations.send(departure));
      }
      const id = operations.start(spec('Renaming storage volume snapshot', volume, snapshot.name), () => {
        return volumeSnapshots.rename(volume, snapshot, name);
      });
      return operation(reply, operations, id);
    },
  );

  app.delete(
    path,
    {
      schema: { summary: 'Delete a snapshot', params: SnapshotParams, querystring: ProjectQuery },
      config: { async: true },
    },
    async (request, reply) => {
      const { volume, snapshot } = snapshotOf(request, deps);
      const id = operations.start(spec('Deleting storage volume snapshot', volume, snapshot.name), ({ signal }) => {
        return volumeSnapshots.remove(volume, snapshot.name, signal);
      });
      return operation(reply, operations, id);
    },
  );
}
