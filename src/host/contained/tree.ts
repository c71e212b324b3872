// Files of one container as its root user would use them, from outside: the layer under the files API and SFTP.
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  type Stats,
  type StatsFs,
  symlinkSync,
} from 'node:fs';
import {
  chmod,
  chown,
  type FileHandle,
  open,
  readdir,
  readlink,
  rename,
  rmdir,
  statfs,
  truncate,
  unlink,
  utimes,
} from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import { hostIds, type IdMapRange } from '../id-map.ts';
import { creatingAs } from '../kernel-descriptors.ts';
import { type AttributeChange, type Attributes, describe, type Owner, type Ownership } from './attributes.ts';
import { CAREFUL, type FileAccess, flagsOf, inside, itself } from './descriptor-paths.ts';
import { requireStored, servedMounts } from './mount-policy.ts';
import {
  at,
  ContainedError,
  containedError,
  type Found,
  isOwned,
  mayAccess,
  mountIdOf,
  O_PATH,
  type Place,
  READ,
  type Root,
  SEARCH,
  stepInto,
  WRITE,
} from './walk.ts';

const DIRECTORY = O_PATH | constants.O_DIRECTORY;
export interface OpenedFile {
  readonly handle: FileHandle;
  readonly attributes: Attributes;
  readonly created: boolean;
}

/** The root that a process has; the caller closes it. */
export function servedRoot(pid: number, ids: IdMapRange | null): Root {
  const fd = openSync(`/proc/${pid}/root`, DIRECTORY);
  try {
    return { fd, ids, mounts: servedMounts(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

export class ContainedTree implements Disposable {
  readonly #root: Root;

  private constructor(root: Root) {
    this.#root = root;
  }

  /** What the process sees; whether it is still the process that was meant is to be checked after this. */
  static ofProcess(pid: number, ids: IdMapRange | null): ContainedTree {
    return new ContainedTree(servedRoot(pid, ids));
  }

  /** A directory of this host; no other mount in it is entered. */
  static ofDirectory(path: string, ids: IdMapRange | null): ContainedTree {
    const fd = openSync(path, DIRECTORY | constants.O_NOFOLLOW);
    return new ContainedTree({ fd, ids, mounts: new Set([mountIdOf(fd)]) });
  }

  [Symbol.dispose](): void {
    closeSync(this.#root.fd);
  }

  /** `follow`: of what a link at the end leads to. */
  attributes(path: string, { follow = false } = {}): Promise<Attributes> {
    return this.#at('look at', { path, follow }, async (place) => this.#describe(existing(place).stats));
  }

  async attributesOf(file: FileHandle): Promise<Attributes> {
    return this.#describe(await file.stat());
  }

  readLink(path: string): Promise<string> {
    return this.#at('read the link', { path, follow: false }, async ({ directory, name }) =>
      readlink(inside(directory, name)),
    );
  }

  /** Of the file system that it is on. */
  fileSystem(path: string): Promise<StatsFs> {
    return this.#at('measure', { path, follow: true }, (place) => statfs(itself(existing(place).fd)));
  }

  list(path: string): Promise<readonly string[]> {
    return this.#at('list', { path, follow: true }, async (place) => {
      const { fd, stats } = existing(place);
      if (!stats.isDirectory()) throw new ContainedError('ENOTDIR', 'not a directory');
      this.#require(stats, READ);
      return readdir(itself(fd));
    });
  }

  /** A regular file; the caller closes it. */
  open(path: string, access: FileAccess): Promise<OpenedFile> {
    return this.#at('open', { path, follow: true }, async (place) => {
      if (place.found) return this.#openExisting(place.found, access);
      if (!access.create) throw new ContainedError('ENOENT', 'no such file or directory');
      return this.#createFile(place, access, access.create);
    });
  }

  async #openExisting({ fd, stats }: Found, access: FileAccess): Promise<OpenedFile> {
    if (access.exclusive === true) throw new ContainedError('EEXIST', 'file exists');
    if (stats.isDirectory()) throw new ContainedError('EISDIR', 'is a directory');
    if (!stats.isFile()) throw new ContainedError('EPERM', 'not a regular file');
    this.#require(stats, (access.read === true ? READ : 0) | (access.write === true ? WRITE : 0));
    if (access.write === true) await requireStored(itself(fd));
    const handle = await open(itself(fd), flagsOf(access));
    return { handle, attributes: this.#describe(stats), created: false };
  }

  async #createFile(place: Place, access: FileAccess, owner: Ownership): Promise<OpenedFile> {
    this.#requireWritable(place);
    const flags = constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | CAREFUL | constants.O_WRONLY;
    const ids = this.#hostIds(owner);
    const fd = creatingAs(ids, () => openSync(inside(place.directory, place.name), flags, 0o600));
    try {
      await chown(itself(fd), ids.uid, ids.gid); // a directory with setgid gives its group
      await chmod(itself(fd), owner.mode);
      const handle = await open(itself(fd), flagsOf(access));
      return { handle, attributes: this.#describe(await handle.stat()), created: true };
    } finally {
      closeSync(fd);
    }
  }

  makeDirectory(path: string, owner: Ownership): Promise<void> {
    return this.#at('make directory', { path, follow: false }, async (place) => {
      if (place.found) throw new ContainedError('EEXIST', 'file exists');
      this.#requireWritable(place);
      const ids = this.#hostIds(owner);
      creatingAs(ids, () => mkdirSync(inside(place.directory, place.name), 0o700));
      await this.#settle(place, (stats) => stats.isDirectory(), { ...ids, mode: owner.mode });
    });
  }

  makeLink(path: string, target: string, owner: Pick<Ownership, 'uid' | 'gid'>): Promise<void> {
    return this.#at('make link', { path, follow: false }, async (place) => {
      if (place.found) throw new ContainedError('EEXIST', 'file exists');
      this.#requireWritable(place);
      const ids = this.#hostIds(owner);
      creatingAs(ids, () => symlinkSync(target, inside(place.directory, place.name)));
      await this.#settle(place, (stats) => stats.isSymbolicLink(), ids);
    });
  }

  /** Gives what was just made its owner and mode, unless the container has put something else in its place. */
  async #settle(
    { directory, name }: Place,
    isMade: (stats: Stats) => boolean,
    wanted: { readonly uid: number; readonly gid: number; readonly mode?: number },
  ): Promise<void> {
    const { fd, stats } = await stepInto(this.#root, directory, name);
    try {
      if (!isMade(stats) || !isOwned(this.#root.ids, stats)) throw new ContainedError('EBUSY', 'changed meanwhile');
      if (stats.uid !== wanted.uid || stats.gid !== wanted.gid) await chown(itself(fd), wanted.uid, wanted.gid);
      if (wanted.mode !== undefined) await chmod(itself(fd), wanted.mode);
    } finally {
      closeSync(fd);
    }
  }

  removeFile(path: string): Promise<void> {
    return this.#at('remove', { path, follow: false }, async (place) => {
      existing(place);
      this.#requireWritable(place);
      await unlink(inside(place.directory, place.name));
    });
  }

  /** An empty one. */
  removeDirectory(path: string): Promise<void> {
    return this.#at('remove', { path, follow: false }, async (place) => {
      existing(place);
      this.#requireWritable(place);
      await rmdir(inside(place.directory, place.name));
    });
  }

  rename(path: string, newPath: string): Promise<void> {
    return this.#at('rename', { path, follow: false }, (from) =>
      at(this.#root, { path: newPath, follow: false }, async (to) => {
        existing(from);
        this.#requireWritable(from);
        this.#requireWritable(to);
        await rename(inside(from.directory, from.name), inside(to.directory, to.name));
      }),
    );
  }

  /** Links at the end are followed, unless `follow` says not. */
  change(path: string, change: AttributeChange, { follow = true } = {}): Promise<void> {
    return this.#at('change', { path, follow }, (place) => this.#changeFound(existing(place), change));
  }

  /** Of a file that open() gave. */
  async changeOpened(file: FileHandle, change: AttributeChange): Promise<void> {
    await this.#changeFound({ fd: file.fd, stats: await file.stat() }, change);
  }

  async #changeFound({ fd, stats }: Found, change: AttributeChange): Promise<void> {
    if (change.sizeBytes !== undefined) await this.#truncate(fd, stats, change.sizeBytes);
    const { sizeBytes: _size, ...others } = change;
    if (Object.values(others).every((value) => value === undefined)) return;
    if (!isOwned(this.#root.ids, stats)) throw new ContainedError('EPERM', 'operation not permitted');
    await this.#changeOwned(fd, stats, others);
  }

  async #truncate(fd: number, stats: Stats, sizeBytes: number): Promise<void> {
    if (!stats.isFile()) throw new ContainedError('EPERM', 'not a regular file');
    this.#require(stats, WRITE);
    await truncate(itself(fd), sizeBytes);
  }

  async #changeOwned(fd: number, stats: Stats, { uid, gid, mode, times }: AttributeChange): Promise<void> {
    if (uid !== undefined || gid !== undefined) {
      const { uid: nowUid, gid: nowGid } = this.#describe(stats);
      const ids = this.#hostIds({ uid: uid ?? nowUid, gid: gid ?? nowGid });
      await chown(itself(fd), ids.uid, ids.gid);
    }
    if (mode !== undefined && !stats.isSymbolicLink()) await chmod(itself(fd), mode & 0o7777);
    if (times) await utimes(itself(fd), times.accessed, times.modified);
  }

  async #at<T>(
    what: string,
    where: { readonly path: string; readonly follow: boolean },
    use: (place: Place) => Promise<T>,
  ): Promise<T> {
    try {
      return await at(this.#root, where, use);
    } catch (error) {
      if (error instanceof AppError && error.kind === 'invalid') throw error;
      throw containedError(what, where.path, error);
    }
  }

  #require(stats: Stats, bits: number): void {
    if (!mayAccess(this.#root.ids, stats, bits)) throw new ContainedError('EACCES', 'permission denied');
  }

  #requireWritable({ directoryStats, name }: Place): void {
    if (name === '') throw new ContainedError('EBUSY', 'is the root directory');
    this.#require(directoryStats, WRITE | SEARCH);
  }

  #describe(stats: Stats): Attributes {
    return describe(stats, this.#root.ids);
  }

  #hostIds(owner: Owner): Owner {
    return hostIds(owner, this.#root.ids);
  }
}

function existing({ found }: Place): Found {
  if (!found) throw new ContainedError('ENOENT', 'no such file or directory');
  return found;
}
