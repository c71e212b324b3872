// Bodies of the instances' endpoints and what the engine is asked by them (lxd-engine-contract sections 1.4, 2.7).
import type { Static } from 'typebox';
import type { InstanceRecord } from '#src/engine/db/records.ts';
import type { CopiedInstance } from '#src/engine/instances/copy.ts';
import type { PeerOperation } from '#src/engine/migration/connections.ts';
import type { MoveRequest } from '#src/engine/instances/move.ts';
import type {
  InstanceContent,
  InstanceSource,
  NewInstanceRequest,
  StateAction,
  StateChange,
} from '#src/engine/instances/requests.ts';
import { ApiError } from './envelope.ts';
import { MigrationTarget, migrationTarget } from './migration-target.ts';
import { DeviceMapSchema, partial, StringMap } from './schema.ts';
import { Type } from './type.ts';

const Content = {
  architecture: Type.String(),
  config: StringMap,
  devices: DeviceMapSchema,
  ephemeral: Type.Boolean(),
  profiles: Type.Array(Type.String()),
  stateful: Type.Boolean(),
  description: Type.String(),
};

export const PutBody = partial({ ...Content, restore: Type.String() });
export type PutBody = Static<typeof PutBody>;

const Source = partial({
  type: Type.String(),
  alias: Type.String(),
  fingerprint: Type.String(),
  properties: StringMap,
  server: Type.String(),
  protocol: Type.String(),
  certificate: Type.String(),
  secret: Type.String(),
  source: Type.String(),
  project: Type.String(),
  instance_only: Type.Boolean(),
  container_only: Type.Boolean(),
  refresh: Type.Boolean(),
  allow_inconsistent: Type.Boolean(),
  live: Type.Boolean(),
  mode: Type.String(),
  operation: Type.String(),
  secrets: StringMap,
  'base-image': Type.String(),
});

export const PostBody = partial({
  ...Content,
  name: Type.String(),
  source: Source,
  instance_type: Type.String(),
  type: Type.String(),
  start: Type.Boolean(),
});
export type PostBody = Static<typeof PostBody>;

export const RenameBody = partial({
  name: Type.String(),
  migration: Type.Boolean(),
  live: Type.Boolean(),
  instance_only: Type.Boolean(),
  container_only: Type.Boolean(),
  allow_inconsistent: Type.Boolean(),
  pool: Type.String(),
  project: Type.String(),
  target: MigrationTarget,
});
export type RenameBody = Static<typeof RenameBody>;

export const RebuildBody = partial({ source: Source });

export const StateBody = partial({
  action: Type.String(),
  timeout: Type.Integer(),
  force: Type.Boolean(),
  stateful: Type.Boolean(),
});
export type StateBody = Static<typeof StateBody>;

export const BulkBody = partial({ state: StateBody });

/** Refuses virtual machines as a server without QEMU does. */
export function newInstanceRequest(body: PostBody): NewInstanceRequest {
  checkType(body.type ?? '');
  const { profiles, source = {} } = body;
  return {
    ...contentOf(body),
    name: body.name ?? '',
    source: sourceOf(source),
    ...(profiles !== undefined && { profiles }),
    instanceType: body.instance_type ?? '',
    stateful: body.stateful ?? false,
    start: body.start ?? false,
  };
}

function sourceOf(body: Static<typeof Source>): InstanceSource {
  const { instance_only = false, container_only = false, allow_inconsistent = false, ...rest } = body;
  const { 'base-image': baseImage = '', type = '', ...source } = rest;
  const instanceOnly = instance_only || container_only;
  return { ...source, type, baseImage, instanceOnly, allowInconsistent: allow_inconsistent };
}

/** Moves are asked for as migrations inside one server. */
export function moveRequest(body: RenameBody): MoveRequest {
  const { name = '', pool = '', project = '', instance_only = false, container_only = false } = body;
  return { name, pool, project, instanceOnly: instance_only || container_only };
}

interface MigrationOptions extends Pick<CopiedInstance, 'instanceOnly' | 'allowInconsistent'> {
  readonly live: boolean;
  readonly target?: PeerOperation;
}

/** Undefined: the move stays on this server. */
export function migrationOptions(body: RenameBody): MigrationOptions | undefined {
  const { migration = false, live = true, allow_inconsistent: allowInconsistent = false } = body;
  const { instanceOnly, pool, project } = moveRequest(body);
  if (!migration || pool !== '' || project !== '') return undefined;
  return { live, instanceOnly, allowInconsistent, ...migrationTarget(body) };
}

function checkType(type: string): void {
  if (type === 'virtual-machine') {
    throw new ApiError(400, 'Instance type "virtual-machine" is not supported on this server');
  }
  if (type !== '' && type !== 'container') throw new ApiError(400, 'Invalid instance type');
}

function contentOf(body: Omit<PutBody, 'profiles' | 'restore'>): Omit<InstanceContent, 'profiles'> {
  const { architecture = '', config = {}, devices = {}, ephemeral = false, description = '' } = body;
  return { architecture, config, devices, ephemeral, description };
}

/** PUT: what is not there is emptied. */
export function replacement(body: PutBody): InstanceContent {
  return { ...contentOf(body), profiles: body.profiles ?? [] };
}

/** PATCH: maps are merged key by key, devices whole; the rest only where it is named. */
export function merged(record: InstanceRecord, body: PutBody): InstanceContent {
  return {
    architecture: body.architecture ?? record.architecture,
    config: { ...record.config, ...body.config },
    devices: { ...record.devices, ...body.devices },
    ephemeral: body.ephemeral ?? record.ephemeral,
    profiles: body.profiles ?? record.profiles,
    description: body.description ?? record.description,
  };
}

const ACTIONS: readonly string[] = ['start', 'stop', 'restart', 'freeze', 'unfreeze'] satisfies StateAction[];

function isAction(action: string): action is StateAction {
  return ACTIONS.includes(action);
}

/** No timeout means no limit. */
export function stateChange({ action = '', timeout = -1, force = false, stateful = false }: StateBody): StateChange {
  if (!isAction(action)) throw new ApiError(400, `Unknown action: '${action}'`);
  return { action, timeoutSeconds: timeout, force, stateful };
}
