// Subvolumes of btrfs, as the storage driver needs them: an interface, so that tests can do without the file system.

export interface SubvolumeUsage {
  /** What it refers to, shared or not. */
  readonly referencedBytes: number;
  /** What would come back if it were deleted. */
  readonly exclusiveBytes: number;
}

export interface SubvolumeIdentity {
  /** 32 hexadecimal digits. */
  readonly uuid: string;
  /** Of what it was received from; undefined: it was made here. */
  readonly receivedUuid: string | undefined;
}

export interface NestedSubvolume {
  /** From the subvolume that it is nested in, without a slash before it. */
  readonly path: string;
  readonly readonly: boolean;
}

/** Paths are those of subvolumes. Those who use a subvolume may be hostile: what is nested in it is never found by its path. */
export interface Btrfs {
  /** Whether the path lies on btrfs; absent is false. */
  isBtrfs(path: string): Promise<boolean>;
  /** Whether there is a subvolume at this very path; absent is false. */
  isSubvolume(path: string): Promise<boolean>;
  /** AppError 'conflict' when something is there. */
  create(path: string): Promise<void>;
  /**
   * With subvolumes nested in it, those keep their own readonly flags; a writable one has no limit. One step of the kernel without them; with them several, so make
   * it where nobody looks. AppError 'conflict' when something is there, 'not_found' without the source.
   */
  snapshot(from: string, to: string, options?: { readonly readonly?: boolean }): Promise<void>;
  /** With what is nested in it, readonly or not. Absent is success. */
  remove(path: string): Promise<void>;
  /** Whether subvolumes are nested in it. */
  hasNested(path: string): Promise<boolean>;
  /** At every depth, sorted by path; of one in which nobody renames directories meanwhile. AppError 'invalid' for names that are not UTF-8. */
  nested(path: string): Promise<readonly NestedSubvolume[]>;
  setReadonly(path: string, readonly: boolean): Promise<void>;
  /** rename(2), but AppError 'conflict' when something is at the new path. A readonly one stays in its directory. */
  publish(path: string, newPath: string): Promise<void>;
  /** Limit of what the subvolume refers to (a qgroup); switches quotas of the file system on. undefined: none. */
  limit(path: string, bytes: number | undefined): Promise<void>;
  limitOf(path: string): Promise<number | undefined>;
  /** As of the last transaction, at most half a minute ago. undefined: quotas are off. */
  usage(path: string): Promise<SubvolumeUsage | undefined>;
  /** Who the subvolume is, wherever it is sent. */
  identity(path: string): Promise<SubvolumeIdentity>;
  /** Lets a writable subvolume count as received from the one of that UUID. */
  markReceived(path: string, uuid: string): Promise<void>;
  /** The file system in which this directory lies grows into its device. */
  grow(path: string): Promise<void>;
}
