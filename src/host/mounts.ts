// Mounts of this machine, as the drivers need them: an interface, so that tests can do without a kernel.
import type { IdMapRange } from './id-map.ts';

export interface MountRequest {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  readonly flags?: readonly MountFlag[];
  /** The file system's own options, comma separated. */
  readonly data?: string;
}

export type MountFlag =
  | 'readonly'
  | 'nosuid'
  | 'nodev'
  | 'noexec'
  | 'noatime'
  | 'nodiratime'
  | 'relatime'
  | 'strictatime'
  | 'sync'
  | 'dirsync'
  | 'bind'
  | 'recursive'
  | 'private'
  | 'shared'
  | 'slave'
  | 'unbindable'
  | 'remount';

/** A tree seen through an id map that is mounted nowhere: reachable by `path` until disposed, and gone with this process. */
export interface DetachedTree extends Disposable {
  readonly path: string;
}

/** A user namespace that outlives nothing but this process; one per id map, kept. */
export interface UserNamespace {
  /** A path that setns(2) and nsenter(1) accept. */
  readonly path: string;
}

export interface GivenMount {
  /** Path inside of something that is mounted there already, by propagation. */
  readonly from: string;
  /** Path inside; made when it is absent. */
  readonly target: string;
  readonly kind: 'directory' | 'file';
  /** Who makes what is absent: root of the container, as the host sees it. */
  readonly owner: { readonly uid: number; readonly gid: number };
}

export interface TakenMount {
  readonly target: string;
  /** The empty file below is removed as well. */
  readonly removeFile: boolean;
  readonly owner: { readonly uid: number; readonly gid: number };
}

/** `path` names it, for every process of root, until it is closed. */
export interface HeldPath extends Disposable {
  readonly path: string;
}

export interface Mounts {
  /** mount(2). Rejects with AppError that names source and target. */
  mount(request: MountRequest): Promise<void>;
  /** Takes off the topmost mount; not mounted or absent is success. Busy: detached lazily. */
  unmount(target: string): Promise<void>;
  /** Whether `path` itself is where something is mounted; absent is false. */
  isMountPoint(path: string): Promise<boolean>;
  /** Whether the file system that the path lies on cannot be written. */
  isReadonly(path: string): Promise<boolean>;
  /** Mount points at or under a path, deepest first. */
  mountsUnder(path: string): Promise<readonly string[]>;
  /** Whether the file system of this directory can be mounted through an id map. */
  canMapIds(path: string): Promise<boolean>;
  /**
   * Holds what is at `path` below `parent`, whatever becomes of the path. undefined: absent. AppError 'forbidden' when a link leads
   * out of `parent`.
   */
  openBeneath(parent: string, path: string): Promise<HeldPath | undefined>;
  /** Binds `source` on `target` so that its unmapped ids appear as the ids of `map`. */
  bindMapped(source: string, target: string, map: IdMapRange): Promise<void>;
  /**
   * The same without a place; for programs that are started with it as their working directory, or a file as their input.
   * AppError 'unsupported' where canMapIds() is false.
   */
  openMapped(source: string, map: IdMapRange, options?: { readonly readonly?: boolean }): Promise<DetachedTree>;
  userNamespace(map: IdMapRange): Promise<UserNamespace>;
  /**
   * Puts a copy of the mount at `from` on `target` in the mount namespace of process `pid`, whose files are hostile: paths are looked
   * up below its root, and what is made is made with the owner's rights.
   */
  give(mount: GivenMount, pid: number): Promise<void>;
  /** Takes the topmost mount off `target`, there. Not mounted or absent is success. */
  takeBack(mount: TakenMount, pid: number): Promise<void>;
}
