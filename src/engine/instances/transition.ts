// A note on disk about a step that spans the pool and the database, so that a daemon that was killed in it can settle it.
import { rm } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import type { Log } from '#src/lib/log.ts';
import { shortageIn } from '#src/lib/shortage.ts';
import type { ConfigMap } from '../types.ts';
import type { InstancePaths } from './instance-paths.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

interface Frozen {
  /** The container was frozen for it, and is to go on. */
  readonly frozen?: boolean;
}

export type Transition = Frozen & Step;

type Step =
  | { readonly kind: 'create' | 'delete'; readonly pool: string }
  | { readonly kind: 'rename'; readonly pool: string; readonly from: string }
  | SnapshotTransition
  | MoveTransition
  | RebuildTransition
  /** Nothing but that: its files are read. */
  | { readonly kind: 'still'; readonly pool: string };

/** Of a snapshot of the instance in whose directory the note is. */
export interface SnapshotTransition {
  readonly kind: 'snapshot' | 'snapshot-delete' | 'snapshot-rename' | 'restore';
  readonly pool: string;
  readonly snapshot: string;
  /** Of a rename. */
  readonly from?: string;
  /** Of a restore: with the state of the snapshot's processes. */
  readonly stateful?: boolean;
}

/** From one pool to another: the row says which of the two counts. */
export interface MoveTransition {
  readonly kind: 'move';
  readonly pool: string;
  readonly to: string;
}

/** `done`: the new root is complete, and the rest has only to follow. */
export interface RebuildTransition {
  readonly kind: 'rebuild';
  readonly pool: string;
  readonly done?: {
    readonly config: ConfigMap;
    /** Fingerprint; absent: an empty root. */
    readonly image?: string;
  };
}

/** LXD's: nobody but root reads there, as the files of a privileged container are root's. */
const HOME_MODE = 0o100;

export async function noteTransition(host: Host, paths: InstancePaths, transition: Transition): Promise<void> {
  await host.makeDirectory(paths.home, { mode: HOME_MODE });
  await host.writeFile(paths.transition, JSON.stringify(transition), { mode: 0o600 });
}

/** For a step that makes room: on a full disk it goes on without its note, and can be asked for again when it was cut off. */
export async function noteRemoval(
  { host, log }: { readonly host: Host; readonly log: Log },
  paths: InstancePaths,
  transition: Transition,
): Promise<void> {
  try {
    await noteTransition(host, paths, transition);
  } catch (error) {
    if (shortageIn(error) !== 'full') throw error;
    log.warn('no space for the note of a removal', { path: paths.transition, error });
  }
}

export async function endTransition(paths: InstancePaths): Promise<void> {
  await rm(paths.transition, { force: true });
}

/** undefined: nothing was under way. */
export async function readTransition(host: Host, paths: InstancePaths): Promise<Transition | undefined> {
  const text = await readIfPresent(host, paths.transition);
  // Written by noteTransition alone, and whole.
  return text === undefined ? undefined : (JSON.parse(text) as Transition);
}
