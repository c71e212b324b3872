// volatile.idmap.last and .next of custom volumes and their snapshots, as LXD has them: what clients and other servers are told of the owners
// on the disk. The truth is the pool's; while the two keys differ, the owners are being changed.
import type { IdMapRange } from '#drivers/storage/driver.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';
import { idMapFromJson, idMapJson } from '../instances/idmap.ts';
import { type CopySource, ownersOf } from '../storage/copy-volume.ts';
import type { ConfigMap } from '../types.ts';

const LAST = 'volatile.idmap.last';
const NEXT = 'volatile.idmap.next';

export function withoutOwners(config: ConfigMap): ConfigMap {
  const { [LAST]: _last, [NEXT]: _next, ...others } = config;
  return others;
}

/** What a configuration says; null: they are those of the inside. AppError 'invalid' for what is no map. */
export function toldOwners(config: ConfigMap): IdMapRange | null {
  return idMapFromJson(config[LAST]);
}

/** Says it; of files that no container ever had, nothing. */
export function withOwners(config: ConfigMap, owners: IdMapRange | null): ConfigMap {
  if (owners === null && config[LAST] === undefined && config[NEXT] === undefined) return config;
  const map = idMapJson(owners);
  return { ...config, [LAST]: map, [NEXT]: map };
}

/** The same configuration with what another one says of owners. */
export function withOwnersOf(config: ConfigMap, other: ConfigMap): ConfigMap {
  const said = [LAST, NEXT].flatMap((key) => (other[key] === undefined ? [] : [[key, other[key]] as const]));
  return { ...withoutOwners(config), ...Object.fromEntries(said) };
}

/** Before they are changed: a daemon that finds the two keys different looks at the disk. */
export function becoming(config: ConfigMap, owners: IdMapRange | null): ConfigMap {
  return { ...config, [LAST]: config[LAST] ?? idMapJson(null), [NEXT]: idMapJson(owners) };
}

/** Says that the files are on their way to be those of no container. */
export function willBePlain(
  { database }: Pick<EngineContext, 'database'>,
  { id, description, config }: VolumeRecord,
): void {
  if (toldOwners(config) !== null) database.volumes.update(id, { description, config: becoming(config, null) });
}

/** Whether the owners may be others than what is said. */
export function isUnsettled(config: ConfigMap): boolean {
  const { [LAST]: last, [NEXT]: next } = config;
  return last !== next;
}

export interface OwnersParts {
  readonly context: Pick<EngineContext, 'database' | 'log'>;
  readonly volumes: { readable(volume: VolumeRecord): CopySource };
}

/** Looks at the disk and says what is there. The caller holds the lock of the volume. */
export async function noteOwners(
  { context, volumes }: OwnersParts,
  volume: VolumeRecord,
  signal: AbortSignal,
): Promise<void> {
  const owners = await ownersOf(volumes.readable(volume), undefined, { log: context.log, signal });
  setOwners(context, volume, owners);
}

interface Copied {
  readonly copy: VolumeRecord;
  /** What it is a copy of. */
  readonly of: Pick<VolumeRecord, 'config'>;
  /** That went along. */
  readonly snapshots: readonly Pick<VolumeSnapshotRecord, 'config' | 'hostName'>[];
}

/** By the names of snapshots in the pool; undefined: the copy itself. Nothing is looked at where no container's owners can be. */
export async function ownersInCopy(
  { context: { log }, volumes }: OwnersParts,
  { copy, of, snapshots }: Copied,
  signal: AbortSignal,
): Promise<ReadonlyMap<string | undefined, IdMapRange | null>> {
  const found = new Map<string | undefined, IdMapRange | null>();
  if ([of, ...snapshots].every(({ config }) => toldOwners(config) === null)) return found;
  const source = { ...volumes.readable(copy), isInUse: false };
  for (const place of [...snapshots.map(({ hostName }) => hostName), undefined]) {
    found.set(place, await ownersOf(source, place, { log, signal }));
  }
  return found;
}

export function setOwners(
  { database }: Pick<EngineContext, 'database'>,
  { id, description, config }: VolumeRecord,
  owners: IdMapRange | null,
): void {
  const said = withOwners(config, owners);
  if (said !== config) database.volumes.update(id, { description, config: said });
}

/** Without the note of what owners there are on the disk. */
export function plainRecord<T extends { readonly config: ConfigMap }>(record: T): T {
  return { ...record, config: withoutOwners(record.config) };
}
