// Datasets and snapshots of a pool: LXD's names (lxd-engine-contract section 5.1), plus what is ours.
import { createHash, randomUUID } from 'node:crypto';
import { AppError } from '#src/lib/errors.ts';
import { checkName } from '../common/layout.ts';
import type { VolumeKind, VolumeRef } from '../driver.ts';

/** Snapshot of an image that its instances are clones of. */
export const READONLY = 'readonly';
/** Snapshot that a re-owning rolls back to when it fails. */
export const REMAP = 'lighter-remap';

/** Before the names of users' own snapshots; all others are hidden. */
const OWN = 'snapshot-';
/** Snapshots that a copy is a clone of, and deleted ones that clones keep. */
const INTERNAL = { copy: 'copy-', deleted: 'deleted-' } as const;

/** User properties of ours. */
export const PROPERTY = {
  /**
   * Map of the owners on the disk (idMapKey); a snapshot has its own. While it is changed FROM>TO and then =TO (see OwnersOnDisk), or @ and
   * the snapshot that is restored.
   */
  owners: 'lighter:owners',
  /** On an image: ready when it is complete, deleted when only its clones keep it. Without it: the leftover of a crash. */
  state: 'lighter:state',
  /** On an instance that was deleted while it was busy: it does not exist for anybody and goes away later. */
  deleted: 'lighter:deleted',
  /** On the root: what createPool made, and deletePool removes: pool, dataset or nothing. */
  made: 'lighter:made',
  /** On work in progress that takes the place of a volume when it is promoted: that volume's dataset. */
  replaces: 'lighter:replaces',
} as const;

export const PARENTS = [
  'containers',
  'custom',
  'images',
  'buckets',
  'virtual-machines',
  'deleted',
  'deleted/containers',
  'deleted/custom',
  'deleted/images',
  'deleted/buckets',
  'deleted/virtual-machines',
  'work',
] as const;

export class DatasetNames {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  parent(name: (typeof PARENTS)[number]): string {
    return `${this.root}/${name}`;
  }

  image(fingerprint: string): string {
    return `${this.parent('images')}/${checkName('image', fingerprint)}`;
  }

  volume({ kind, name }: VolumeRef): string {
    const what = kind === 'container' ? 'instance' : 'volume';
    return `${this.parent(PARENT_OF[kind])}/${checkName(what, name)}`;
  }

  snapshot(volume: VolumeRef, snapshot: string): string {
    if (!/^[A-Za-z0-9_.:-]+$/u.test(snapshot)) {
      throw new AppError('invalid', `invalid snapshot name ${JSON.stringify(snapshot)} on zfs`);
    }
    return `${this.volume(volume)}@${OWN}${snapshot}`;
  }

  /** A clone through which a snapshot is read; `transaction` makes it that one, whatever has its name later. */
  view(snapshot: string, transaction: string): string {
    const id = createHash('sha256').update(`${snapshot}\n${transaction}`).digest('hex').slice(0, 32);
    return `${this.parent('work')}/view-${id}`;
  }
}

export const PARENT_OF = { container: 'containers', custom: 'custom' } as const satisfies Record<VolumeKind, string>;

/** The name that the user gave; undefined: it is none of his. */
export function ownSnapshotName(snapshot: string): string | undefined {
  const name = snapshot.slice(snapshot.indexOf('@') + 1);
  return name.startsWith(OWN) ? name.slice(OWN.length) : undefined;
}

export function internalSnapshot(dataset: string, purpose: keyof typeof INTERNAL): string {
  return `${dataset}@${INTERNAL[purpose]}${randomUUID()}`;
}

export function isInternal(snapshot: string): boolean {
  const name = snapshot.slice(snapshot.indexOf('@') + 1);
  return Object.values(INTERNAL).some((prefix) => name.startsWith(prefix));
}

export function lastName(dataset: string): string {
  return dataset.slice(dataset.lastIndexOf('/') + 1);
}
