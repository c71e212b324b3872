// What the backup of a custom volume says of itself, in LXD's names.
import type { VolumeRecord, VolumeSnapshotRecord } from '../db/records.ts';

export function volumeDocuments(
  volume: VolumeRecord,
  snapshots: readonly VolumeSnapshotRecord[],
  driver: string,
): string {
  const { name, pool, project, config, description, createdAt } = volume;
  const common = { content_type: 'filesystem' };
  const index = {
    name,
    backend: driver,
    pool,
    snapshots: snapshots.map((snapshot) => snapshot.name),
    optimized: false,
    optimized_header: false,
    type: 'custom',
    config: {
      volume: {
        ...common,
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
        ...common,
        name: snapshot.name,
        config: snapshot.config,
        description: snapshot.description,
        created_at: snapshot.createdAt,
        expires_at: snapshot.expiresAt,
      })),
    },
  };
  return `${JSON.stringify(index, undefined, 1)}\n`;
}
