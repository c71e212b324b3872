// Reads what a backup says of itself. Nobody vouches for it: every field is checked before it is used.
import { Ajv, type ValidateFunction } from 'ajv';
import { AppError } from '#src/lib/errors.ts';
import { parseForeignYaml } from '#src/lib/foreign-yaml.ts';
import { ZERO_TIME } from '../db/records.ts';
import type { VolumeNotes } from '../db/root-volumes.ts';
import type { Unowned } from '../instances/copy.ts';
import type { ConfigMap, DeviceMap } from '../types.ts';

const READ_LIMIT_MS = 60_000;

export interface BackedUpInstance {
  readonly name: string;
  readonly architecture: string;
  readonly config: ConfigMap;
  readonly devices: DeviceMap;
  readonly ephemeral: boolean;
  readonly profiles: readonly string[];
  readonly description: string;
}

export interface BackupIndex {
  readonly name: string;
  readonly pool: string;
  readonly backend: string;
  readonly optimized: boolean;
  /** A file tells which streams there are. */
  readonly optimizedHeader: boolean;
  readonly type: string;
  readonly snapshots: readonly string[];
  readonly instance?: BackedUpInstance;
  readonly snapshotRows: readonly Unowned[];
  readonly createdAt: string;
  readonly lastUsedAt: string;
  readonly volume: VolumeNotes;
  /** Of the pool where it was; absent: it says nothing. */
  readonly poolNotes?: VolumeNotes;
  readonly volumeSnapshots: ReadonlyMap<string, VolumeNotes>;
}

const text = { type: 'string', maxLength: 65_536 };
const map = { type: 'object', additionalProperties: text };
const texts = { type: ['array', 'null'], items: text };
const INSTANCE = {
  name: text,
  architecture: text,
  config: { ...map, type: ['object', 'null'] },
  devices: { type: ['object', 'null'], additionalProperties: map },
  ephemeral: { type: 'boolean' },
  stateful: { type: 'boolean' },
  profiles: texts,
  description: text,
};
const time = { type: 'string', pattern: String.raw`^\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)$` };
const SNAPSHOT = {
  type: 'object',
  required: ['name'],
  properties: { ...INSTANCE, created_at: time, expires_at: time, last_used_at: time },
};
const NOTES = { config: { ...map, type: ['object', 'null'] }, description: text };
const SCHEMA = {
  type: 'object',
  required: ['name'],
  properties: {
    name: text,
    pool: text,
    backend: text,
    optimized: { type: ['boolean', 'null'] },
    optimized_header: { type: ['boolean', 'null'] },
    type: text,
    snapshots: texts,
    config: {
      type: ['object', 'null'],
      properties: {
        container: { type: ['object', 'null'], properties: { ...INSTANCE, created_at: time, last_used_at: time } },
        pool: { type: ['object', 'null'], properties: NOTES },
        volume: { type: ['object', 'null'], properties: NOTES },
        volume_snapshots: {
          type: ['array', 'null'],
          items: { type: 'object', required: ['name'], properties: { ...NOTES, name: text } },
        },
        snapshots: { type: ['array', 'null'], items: SNAPSHOT },
      },
    },
  },
};

interface IndexFile {
  readonly name: string;
  readonly pool?: string;
  readonly backend?: string;
  readonly optimized?: boolean | null;
  readonly optimized_header?: boolean | null;
  readonly type?: string;
  readonly snapshots?: readonly string[] | null;
  readonly config?: {
    readonly container?: (Nullable<Partial<BackedUpInstance>> & Times) | null;
    readonly snapshots?: readonly SnapshotFile[] | null;
    readonly pool?: NotesFile | null;
    readonly volume?: NotesFile | null;
    readonly volume_snapshots?: readonly (NotesFile & { readonly name: string })[] | null;
  } | null;
}

interface NotesFile {
  readonly config?: ConfigMap | null;
  readonly description?: string;
}

interface Times {
  readonly created_at?: string;
  readonly last_used_at?: string;
}

interface SnapshotFile extends Nullable<Partial<BackedUpInstance>> {
  readonly name: string;
  readonly stateful?: boolean;
  readonly created_at?: string;
  readonly expires_at?: string;
  readonly last_used_at?: string;
}

type Nullable<T> = { readonly [Key in keyof T]: T[Key] | null };

let validate: ValidateFunction<IndexFile> | undefined;

/** AppError 'invalid' when it is not the index of a backup. */
export async function parseIndex(content: string): Promise<BackupIndex> {
  return checked(await parsed(content, 'index.yaml'));
}

/** backup.yaml, which is the part of an index that tells of the instance. AppError 'invalid' when it is none. */
export async function parseRecord(content: string): Promise<BackupIndex> {
  const config = (await parsed(content, 'backup.yaml')) as { readonly container?: { readonly name?: unknown } } | null;
  return checked({ name: config?.container?.name, config });
}

async function parsed(content: string, file: string): Promise<unknown> {
  try {
    return await parseForeignYaml(content, { maxAliasCount: 0, limitMs: READ_LIMIT_MS });
  } catch (cause) {
    throw new AppError('invalid', `Backup is not valid: ${file} is not YAML`, { cause });
  }
}

function checked(data: unknown): BackupIndex {
  validate ??= new Ajv({ strict: false }).compile<IndexFile>(SCHEMA);
  if (!validate(data)) {
    const [error] = validate.errors ?? [];
    throw new AppError(
      'invalid',
      `Backup is not valid: index.yaml${error?.instancePath ?? ''} ${error?.message ?? ''}`,
    );
  }
  return indexOf(data);
}

function orNone<T>(list: readonly T[] | null | undefined): readonly T[] {
  return list ?? [];
}

function volumeOf({ config, description = '' }: NotesFile): VolumeNotes {
  return { config: config ?? {}, description };
}

function indexOf(file: IndexFile): BackupIndex {
  const { name, pool = '', backend = '', type = 'container' } = file;
  const config = file.config ?? {};
  const container = config.container;
  return {
    name,
    pool,
    backend,
    type,
    optimized: file.optimized === true,
    optimizedHeader: file.optimized_header === true,
    snapshots: orNone(file.snapshots),
    snapshotRows: orNone(config.snapshots).map(snapshotOf),
    ...timesOf(container ?? {}),
    ...(config.pool && { poolNotes: volumeOf(config.pool) }),
    volume: volumeOf(config.volume ?? {}),
    volumeSnapshots: new Map(orNone(config.volume_snapshots).map((one) => [one.name, volumeOf(one)])),
    ...(container && { instance: instanceOf(name, container) }),
  };
}

function timesOf({ created_at: createdAt = ZERO_TIME, last_used_at: lastUsedAt = ZERO_TIME }: Times) {
  return { createdAt, lastUsedAt };
}

function instanceOf(name: string, container: Nullable<Partial<BackedUpInstance>>): BackedUpInstance {
  return {
    name: container.name ?? name,
    architecture: container.architecture ?? '',
    config: container.config ?? {},
    devices: container.devices ?? {},
    ephemeral: container.ephemeral ?? false,
    profiles: container.profiles ?? [],
    description: container.description ?? '',
  };
}

function snapshotOf(snapshot: SnapshotFile): Unowned {
  const { created_at: createdAt = ZERO_TIME, expires_at: expiresAt = ZERO_TIME } = snapshot;
  return {
    ...instanceOf(snapshot.name, snapshot),
    stateful: false,
    createdAt,
    expiresAt,
    lastUsedAt: snapshot.last_used_at ?? ZERO_TIME,
  };
}

/** Of a volume or a snapshot of it; of one that the backup does not tell of, what the volume has. */
export function configOf({ volume, volumeSnapshots }: BackupIndex, snapshot: string | undefined): ConfigMap {
  return (snapshot === undefined ? volume : (volumeSnapshots.get(snapshot) ?? volume)).config;
}
