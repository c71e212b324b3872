// What a backup says of itself: backup/index.yaml, and backup.yaml in the instance's folder.
import type { IdMapRange } from '#src/host/id-map.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord, PoolRecord, SnapshotRecord } from '../db/records.ts';
import { ZERO_TIME } from '../db/records.ts';
import type { VolumeNotes } from '../db/root-volumes.ts';
import { idMapJson } from '../instances/idmap.ts';
import type { ConfigMap } from '../types.ts';
import { expander } from '../instances/expansion.ts';
import { yamlText } from './yaml-text.ts';

export interface BackupConfig {
  readonly container: object;
  readonly snapshots: readonly object[];
  readonly pool: object;
  readonly profiles: readonly object[];
  readonly volume: object;
  readonly volume_snapshots: readonly object[];
}

/** The instance with everything that it needs elsewhere. */
export function backupConfig(
  { database }: Pick<EngineContext, 'database'>,
  record: InstanceRecord,
  snapshots: readonly SnapshotRecord[],
): BackupConfig {
  const pool = database.pools.get(record.pool);
  const expand = expander(database); // once: it reads the profiles
  const profiles = record.profiles.flatMap((name) => {
    const { config, description, devices } = database.profiles.find(record.project, name) ?? {};
    return config ? [{ config, description, devices, name, used_by: [] }] : [];
  });
  return {
    container: instanceDocument(record, expand(record)),
    snapshots: snapshots.map((snapshot) => {
      const expanded = expand({ ...snapshot, project: record.project });
      return snapshotDocument(snapshot, expanded);
    }),
    pool: poolDocument(pool),
    profiles,
    volume: volumeDocument(record, database.rootVolumes.get('instance', record.id)),
    volume_snapshots: snapshots.map(({ id, name, createdAt, expiresAt }) => {
      const times = { created_at: createdAt, expires_at: expiresAt };
      return { ...database.rootVolumes.get('snapshot', id), name, content_type: 'filesystem', ...times };
    }),
  };
}

/** Never with a state: CRIU, which is root, does what is in one, and a backup can come from anybody. */
function instanceDocument(record: InstanceRecord, expanded: { readonly config: object; readonly devices: object }) {
  const { architecture, config, devices, ephemeral, profiles, description, name, type, project } = record;
  return {
    architecture,
    config,
    devices,
    ephemeral,
    profiles,
    stateful: false,
    description,
    created_at: record.createdAt,
    expanded_config: expanded.config,
    expanded_devices: expanded.devices,
    name,
    status: 'Stopped',
    status_code: 102,
    last_used_at: record.lastUsedAt,
    location: 'none',
    type,
    project,
  };
}

function snapshotDocument(
  snapshot: SnapshotRecord,
  expanded: { readonly config: object; readonly devices: object },
): object {
  const { name, architecture, config, devices, ephemeral, profiles, description } = snapshot;
  return {
    expires_at: snapshot.expiresAt,
    architecture,
    config,
    created_at: snapshot.createdAt,
    devices,
    ephemeral,
    expanded_config: expanded.config,
    expanded_devices: expanded.devices,
    last_used_at: snapshot.lastUsedAt,
    name,
    profiles,
    stateful: false,
    description,
    size: -1,
  };
}

function poolDocument({ config, description, name, driver }: PoolRecord): object {
  return { config, description, name, driver, used_by: [], status: 'Created', locations: ['none'] };
}

function volumeDocument({ name, project, createdAt }: InstanceRecord, notes: VolumeNotes): object {
  return {
    ...notes,
    name,
    type: 'container',
    used_by: [],
    location: 'none',
    content_type: 'filesystem',
    project,
    created_at: createdAt || ZERO_TIME,
  };
}

export function indexDocument(
  record: InstanceRecord,
  config: BackupConfig,
  { driver, snapshots, form = PLAIN }: IndexedBackup,
): Promise<string> {
  const index = {
    name: record.name,
    backend: driver,
    pool: record.pool,
    snapshots,
    ...form,
    type: 'container',
    config,
  };
  return yamlText(index);
}

/** Whether the content is streams of the storage driver, and those are told of in a file. */
export interface BackupForm {
  readonly optimized: boolean;
  readonly optimized_header: boolean;
}

export const PLAIN: BackupForm = { optimized: false, optimized_header: false };

export interface IndexedBackup {
  readonly driver: string;
  readonly snapshots: readonly string[];
  readonly form?: BackupForm;
}

/** The same, with the owners that the files in streams have, where LXD tells them. */
export function withOwners(config: BackupConfig, owners: (snapshot?: string) => IdMapRange | null): BackupConfig {
  const told = (document: object, snapshot?: string): object => {
    const own = 'config' in document ? document.config : {};
    return { ...document, config: { ...(own as ConfigMap), [OWNERS_KEY]: idMapJson(owners(snapshot)) } };
  };
  const snapshots = config.snapshots.map((document) => told(document, (document as { readonly name: string }).name));
  return { ...config, container: told(config.container), snapshots };
}

export const OWNERS_KEY = 'volatile.last_state.idmap';

/** For files that are written often, and read by machines alone: JSON, which is YAML too. */
export function toText(document: object): string {
  return `${JSON.stringify(document, undefined, 1)}\n`;
}
