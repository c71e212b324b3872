// What a file of a container is, with owners as the container sees them.
import type { Stats } from 'node:fs';
import { toContainer, type IdMapRange } from '../id-map.ts';

const NOBODY = 65_534;

export type EntryKind = 'file' | 'directory' | 'symlink' | 'other';

export interface Attributes {
  readonly kind: EntryKind;
  /** As the container sees them. */
  readonly uid: number;
  readonly gid: number;
  /** With the bits of the type. */
  readonly mode: number;
  readonly sizeBytes: number;
  readonly accessed: Date;
  readonly modified: Date;
}

/** Of what is made; ids as the container sees them. */
export interface Ownership {
  readonly uid: number;
  readonly gid: number;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
}

export type AttributeChange = Partial<Ownership> & {
  readonly sizeBytes?: number;
  readonly times?: { readonly accessed: Date; readonly modified: Date };
};

export type Owner = Pick<Ownership, 'uid' | 'gid'>;

export function describe(stats: Stats, ids: IdMapRange | null): Attributes {
  const kinds = { file: stats.isFile(), directory: stats.isDirectory(), symlink: stats.isSymbolicLink() } as const;
  return {
    kind: (['file', 'directory', 'symlink'] as const).find((kind) => kinds[kind]) ?? 'other',
    uid: ids === null ? stats.uid : (toContainer(ids, 'uid', stats.uid) ?? NOBODY),
    gid: ids === null ? stats.gid : (toContainer(ids, 'gid', stats.gid) ?? NOBODY),
    mode: stats.mode,
    sizeBytes: stats.size,
    accessed: stats.atime,
    modified: stats.mtime,
  };
}
