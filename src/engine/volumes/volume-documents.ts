// What the backup of a custom volume, and its migration, say of it in LXD's names.
import { type IndexedBackup, PLAIN } from '../backups/documents.ts';
import { yamlText } from '../backups/yaml-text.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';

const COMMON = { content_type: 'filesystem' };

export function volumeDocuments(
  volume: VolumeRecord,
  snapshots: readonly VolumeSnapshotRecord[],
  { driver, form = PLAIN }: Omit<IndexedBackup, 'snapshots'>,
): Promise<string> {
  const { name, pool } = volume;
  const index = {
    name,
    backend: driver,
    pool,
    snapshots: snapshots.map((snapshot) => snapshot.name),
    ...form,
    type: 'custom',
    config: volumeConfigs(volume, snapshots),
  };
  return yamlText(index);
}

/** What LXD calls the backup configuration. */
export function volumeConfigs(volume: VolumeRecord, snapshots: readonly VolumeSnapshotRecord[]) {
  const { name, project, config, description, createdAt } = volume;
  return {
    volume: {
      ...COMMON,
      config,
      description,
      name,
      type: 'custom',
      used_by: [],
      location: 'none',
      project,
      created_at: createdAt,
    },
    volume_snapshots: snapshots.map((snapshot) => ({
      ...COMMON,
      name: snapshot.name,
      config: snapshot.config,
      description: snapshot.description,
      created_at: snapshot.createdAt,
      expires_at: snapshot.expiresAt,
    })),
  };
}
