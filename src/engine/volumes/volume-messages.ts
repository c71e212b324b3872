// Custom volumes and their snapshots in the messages of a migration, which nobody vouches for.
import { Ajv, type ValidateFunction } from 'ajv';
import { AppError } from '#src/lib/errors.ts';
import { type VolumeRecord, type VolumeSnapshotRecord, ZERO_TIME } from '../db/records.ts';
import { mapOf, pairs, secondsOf, timeOf } from '../instances/migration-rows.ts';
import type { SnapshotMessage } from '../migration/messages.ts';
import { indexOfVolume, parseIndex } from '../migration/volume-index.ts';
import { validateSnapshotName } from '../snapshots/names.ts';
import type { ConfigMap } from '../types.ts';
import type { SnapshotContent } from './custom-snapshots.ts';
import { volumeConfigs } from './volume-documents.ts';

export function messageOfVolumeSnapshot(snapshot: VolumeSnapshotRecord): SnapshotMessage {
  const { name, config, createdAt, expiresAt } = snapshot;
  return {
    name,
    config: pairs(config),
    profiles: [],
    ephemeral: false,
    devices: [],
    architecture: 0,
    stateful: false,
    createdAt: secondsOf(createdAt),
    lastUsedAt: 0,
    expiresAt: secondsOf(expiresAt),
  };
}

/** AppError 'invalid' for a name that cannot be one. Times that are not told are ZERO_TIME. */
export function volumeSnapshotOfMessage({ name, config, createdAt, expiresAt }: SnapshotMessage): SnapshotContent {
  validateSnapshotName(name);
  const times = { createdAt: knownTime(createdAt), expiresAt: knownTime(expiresAt) };
  return { name, description: '', config: mapOf(config), ...times };
}

/** LXD before 5.0.3 sends 0 where it knows nothing. */
function knownTime(seconds = 0): string {
  return seconds <= 0 ? ZERO_TIME : timeOf(seconds);
}

/** The index that goes before the files. */
export function volumeIndex(volume: VolumeRecord, snapshots: readonly VolumeSnapshotRecord[]): object {
  const config = volumeConfigs(volume, snapshots);
  return indexOfVolume(config.volume, config.volume_snapshots);
}

const text = { type: 'string', maxLength: 65_536 };
const SCHEMA = {
  type: 'object',
  properties: {
    config: {
      type: ['object', 'null'],
      properties: {
        volume_snapshots: {
          type: ['array', 'null'],
          items: {
            type: 'object',
            required: ['name'],
            properties: {
              name: text,
              description: text,
              config: { type: ['object', 'null'], additionalProperties: text },
              expires_at: {
                type: ['string', 'null'],
                pattern: String.raw`^\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)$`,
              },
            },
          },
        },
      },
    },
  },
};

interface IndexedSnapshot {
  readonly name: string;
  readonly description?: string;
  readonly config?: ConfigMap | null;
  readonly expires_at?: string | null;
}

interface Index {
  readonly config?: { readonly volume_snapshots?: readonly IndexedSnapshot[] | null } | null;
}

let validate: ValidateFunction<Index> | undefined;

/** What the index tells of snapshots that their messages do not. AppError 'invalid' for what is no index. */
export function indexedSnapshots(document: Buffer): ReadonlyMap<string, Partial<SnapshotContent>> {
  const data = parseIndex(document);
  validate ??= new Ajv({ strict: false }).compile<Index>(SCHEMA);
  if (!validate(data)) throw new AppError('invalid', 'The index of the migration is not valid');
  const found = data.config?.volume_snapshots ?? [];
  return new Map(
    found.map(({ name, description, config, expires_at: expiresAt }) => {
      const told = { ...(description !== undefined && { description }), ...(config && { config }) };
      return [name, { ...told, ...(expiresAt !== undefined && expiresAt !== null && { expiresAt }) }];
    }),
  );
}
