// The volumes of a pool as LXD shows them: roots of instances, their snapshots, and unpacked images.
import type { EngineContext } from '#src/engine/context.ts';
import type { VolumeRecord, VolumeSnapshotRecord } from '#src/engine/db/records.ts';
import { NO_NOTES, type VolumeNotes } from '#src/engine/db/root-volumes.ts';
import type { CustomVolumes } from '#src/engine/volumes/custom-volumes.ts';
import { ZERO_TIME } from '#src/engine/db/records.ts';

export const VOLUME_TYPES: readonly string[] = ['container', 'virtual-machine', 'custom', 'image'];

export interface Volume {
  readonly config: Readonly<Record<string, string>>;
  readonly description: string;
  /** NAME or NAME/SNAPSHOT. */
  readonly name: string;
  readonly type: 'container' | 'image' | 'custom';
  readonly used_by: readonly string[];
  readonly location: string;
  readonly content_type: 'filesystem';
  readonly project: string;
  readonly created_at: string;
}

export interface VolumeQuery {
  readonly context: EngineContext;
  readonly volumes: CustomVolumes;
  readonly pool: string;
  readonly project: string;
  readonly signal: AbortSignal;
}

export async function listVolumes({
  context,
  volumes,
  pool,
  project,
  signal,
}: VolumeQuery): Promise<readonly Volume[]> {
  const { database, pools } = context;
  const { rootVolumes } = database;
  const notes = {
    instance: rootVolumes.all('instance'),
    snapshot: rootVolumes.all('snapshot'),
    image: rootVolumes.images(pool),
  };
  const instances = database.instances
    .usingPool(pool)
    .filter((instance) => instance.project === project)
    .flatMap((instance) => {
      const owner = [`/1.0/instances/${instance.name}`];
      const snapshots = database.snapshots.list(instance.id).map((snapshot) => {
        const { name, createdAt, id } = snapshot;
        return { name: `${instance.name}/${name}`, createdAt, notes: notes.snapshot.get(id) };
      });
      const { name, createdAt, id } = instance;
      const all = [{ name, createdAt, notes: notes.instance.get(id) }, ...snapshots];
      return all.map((facts) => volume('container', { ...facts, owner }));
    });
  const unpacked = new Set(await pools.driver(pool).listImages(signal));
  const images = database.images
    .list(project)
    .filter(({ fingerprint }) => unpacked.has(fingerprint))
    .map(({ fingerprint: name, id }) => {
      const owner = [`/1.0/images/${name}`];
      return volume('image', { name, createdAt: ZERO_TIME, owner, notes: notes.image.get(id) });
    });
  const own = [...instances, ...images].map((found) => ({ ...found, project }));
  return [...own, ...customVolumes(volumes, pool, volumes.holder(project))];
}

function customVolumes(volumes: CustomVolumes, pool: string, project: string): readonly Volume[] {
  return volumes.list(pool, project).flatMap((record) => {
    const view = volumeView(record, volumes.usedBy(record));
    const snapshots = volumes.snapshots(record).map((snapshot) => {
      const { config, description, createdAt } = snapshot;
      return { ...view, name: `${record.name}/${snapshot.name}`, config, description, created_at: createdAt };
    });
    return [view, ...snapshots];
  });
}

export function volumeView(record: VolumeRecord, usedBy: readonly string[]): Volume {
  const { config, description, name, project, createdAt } = record;
  return {
    config,
    description,
    name,
    type: 'custom',
    used_by: usedBy,
    location: 'none',
    content_type: 'filesystem',
    project,
    created_at: createdAt,
  };
}

export function volumeSnapshotView(volume: VolumeRecord, snapshot: VolumeSnapshotRecord): object {
  const { config, description, createdAt, expiresAt } = snapshot;
  const name = `${volume.name}/${snapshot.name}`;
  return { config, content_type: 'filesystem', created_at: createdAt, description, expires_at: expiresAt, name };
}

interface Facts {
  readonly name: string;
  readonly createdAt: string;
  readonly owner: readonly string[];
  readonly notes: VolumeNotes | undefined;
}

function volume(type: Volume['type'], { name, createdAt, owner, notes = NO_NOTES }: Facts): Omit<Volume, 'project'> {
  return {
    ...notes,
    name,
    type,
    used_by: owner,
    location: 'none',
    content_type: 'filesystem',
    created_at: createdAt,
  };
}

export function volumeUrl(pool: string, { type, name }: Pick<Volume, 'type' | 'name'>): string {
  const [owner = '', snapshot] = name.split('/', 2).map(encodeURIComponent);
  const base = `/1.0/storage-pools/${encodeURIComponent(pool)}/volumes/${type}/${owner}`;
  return snapshot === undefined ? base : `${base}/snapshots/${snapshot}`;
}
