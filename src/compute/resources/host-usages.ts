// Reads from Nova who takes what on this node: its instances, and those on their way to or from it (contract section 4.7).
import { expectList } from '#src/nova/objects/wire.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES, VM_STATES } from '#src/nova/states.ts';
import { type Asking, findInstance, type Instance, instancesOfNode } from '../records.ts';
import { VolumeRoots } from './volume-roots.ts';
import { flavorUsage, type InstanceUsage, moveKey, usageOf } from './usage.ts';

export interface Place {
  readonly host: string;
  readonly node: string;
}

export interface HostUsages {
  readonly usages: ReadonlyMap<string, InstanceUsage>;
  /** Migrations under way; they may hold allocations of their own. */
  readonly migrationUuids: ReadonlySet<string>;
}

/** `more`: attributes of instances beside the flavor. */
export async function readHostUsages(
  asking: Asking,
  place: Place,
  { more = [], roots = new VolumeRoots() }: { readonly more?: readonly string[]; readonly roots?: VolumeRoots } = {},
): Promise<HostUsages> {
  const instances = await instancesOfNode(asking, place, ['flavor', ...more]);
  await roots.readOf(asking, instances);
  const usages = new Map<string, InstanceUsage>();
  const byUuid = new Map(instances.map((instance) => [instance.get('uuid'), instance]));
  for (const instance of instances) {
    const usage = usageOf(instance, { isOnVolume: roots.isOnVolume(instance) });
    if (usage) usages.set(instance.get('uuid'), usage);
  }
  const migrations = await migrationsUnderWay(asking, place);
  for (const migration of migrations) {
    const uuid = migration.get('instance_uuid');
    if (uuid === null) continue;
    const here = byUuid.get(uuid);
    const usage = here ? keptUsage(here, migration, { place, roots }) : await movingUsage(asking, migration, place);
    if (usage) usages.set(moveKey(uuid), usage);
  }
  return { usages, migrationUuids: new Set(migrations.map((migration) => migration.get('uuid'))) };
}

async function migrationsUnderWay(
  { conductor, context }: Asking,
  { host, node }: Place,
): Promise<readonly NovaObject<'Migration'>[]> {
  const call = { object: 'MigrationList', method: 'get_in_progress_and_error', args: [host, node] } as const;
  return expectList(await conductor.classMethod(context, call), 'MigrationList');
}

/** Within this host: beside the flavor that the instance has, the one that it had or is to have. */
function keptUsage(
  instance: Instance,
  migration: NovaObject<'Migration'>,
  { place: { host, node }, roots }: { readonly place: Place; readonly roots: VolumeRoots },
): InstanceUsage | undefined {
  const ends = [migration.get('source_compute'), migration.get('dest_compute')];
  const nodes = [migration.get('source_node'), migration.get('dest_node')];
  const isWithin = ends.every((end) => end === host) && nodes.every((end) => end === node);
  if (!isWithin || migration.get('status') === 'error' || !isMoving(instance)) return undefined;
  const hasOld = instance.get('instance_type_id') === migration.get('old_instance_type_id');
  const flavor = instance.find(hasOld ? 'new_flavor' : 'old_flavor');
  return flavor ? flavorUsage(flavor, roots.isOnVolume(instance)) : undefined;
}

const MOVING: ReadonlySet<string | null> = new Set([
  TASK_STATES.resizePrep,
  TASK_STATES.resizeMigrating,
  TASK_STATES.resizeMigrated,
  TASK_STATES.resizeFinish,
]);

function isMoving(instance: Instance): boolean {
  return instance.get('vm_state') === VM_STATES.resized || MOVING.has(instance.get('task_state'));
}

/** Incoming: the room for the new flavor; outgoing: that for the old one until the move is confirmed. */
async function movingUsage(
  asking: Asking,
  migration: NovaObject<'Migration'>,
  { host, node }: Place,
): Promise<InstanceUsage | undefined> {
  if (migration.get('status') === 'error') return undefined;
  const instance = await findInstance(asking, migration.get('instance_uuid') ?? '', ['flavor']);
  if (!instance) return undefined;
  const isIncoming = migration.get('dest_compute') === host && migration.get('dest_node') === node;
  const flavor = flavorOf(instance, isIncoming ? 'new_flavor' : 'old_flavor');
  return flavorUsage(flavor, !instance.find('image_ref'));
}

function flavorOf(instance: Instance, which: 'new_flavor' | 'old_flavor'): NovaObject<'Flavor'> {
  return instance.find(which) ?? instance.get('flavor');
}
