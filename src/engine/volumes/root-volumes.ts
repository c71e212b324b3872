// Volumes that belong to instances and images: users may describe them and put keys of their own on them, nothing else.
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { VolumeNotes } from '../db/root-volumes.ts';
import type { ConfigMap } from '../types.ts';

/** What root disks say; a volume's own value would have no effect. */
const OF_THE_DISK = new Set(['size', 'size.state', 'block.filesystem']);

export type RootVolumeKey = { readonly project: string; readonly pool: string } & (
  | { readonly type: 'container'; readonly instance: string; readonly snapshot?: string }
  | { readonly type: 'image'; readonly fingerprint: string }
);

/** AppError 'not_found' or 'invalid' with LXD's text. */
export function changeRootVolume(
  { database }: Pick<EngineContext, 'database'>,
  key: RootVolumeKey,
  change: (notes: VolumeNotes) => VolumeNotes,
): void {
  database.transaction(() => {
    const { notes, store } = found(database, key);
    const wanted = change(notes);
    validate(key, notes.config, wanted.config);
    const config = Object.fromEntries(Object.entries(wanted.config).filter(([, value]) => value !== ''));
    store({ ...wanted, config });
  });
}

interface Found {
  readonly notes: VolumeNotes;
  readonly store: (notes: VolumeNotes) => void;
}

function found({ instances, snapshots, images, rootVolumes }: EngineContext['database'], key: RootVolumeKey): Found {
  const { project, pool } = key;
  if (key.type === 'image') {
    const image = images.list(project).find(({ fingerprint }) => fingerprint === key.fingerprint);
    if (!image) throw absent();
    const notes = rootVolumes.images(pool).get(image.id) ?? { description: '', config: {} };
    return { notes, store: (wanted) => rootVolumes.setImage(pool, image.id, wanted) };
  }
  const instance = instances.find(project, key.instance);
  if (instance?.pool !== pool) throw absent();
  if (key.snapshot === undefined) {
    const notes = rootVolumes.get('instance', instance.id);
    return { notes, store: (wanted) => rootVolumes.set('instance', instance.id, wanted) };
  }
  const snapshot = snapshots.find(instance.id, key.snapshot);
  if (!snapshot) throw absent();
  const notes = rootVolumes.get('snapshot', snapshot.id);
  return { notes, store: (wanted) => rootVolumes.set('snapshot', snapshot.id, wanted) };
}

function absent(): AppError {
  return new AppError('not_found', 'Storage pool volume not found');
}

function validate(key: RootVolumeKey, before: ConfigMap, after: ConfigMap): void {
  const name = key.type === 'image' ? key.fingerprint : key.instance;
  for (const [option, value] of Object.entries(after)) {
    if (option.startsWith('user.') || value === (before[option] ?? '')) continue;
    if (OF_THE_DISK.has(option)) {
      throw new AppError('invalid', `Instance volume "${option}" property cannot be changed`);
    }
    throw new AppError('invalid', `Invalid option for volume "${name}" option "${option}"`);
  }
}
