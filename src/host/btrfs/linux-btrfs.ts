// Subvolumes on the real kernel, without the btrfs command.
import { closeSync, openSync } from 'node:fs';
import { lstat, rmdir, statfs } from 'node:fs/promises';
import { constants } from 'node:os';
import { basename, dirname } from 'node:path';
import { getSystemErrorMessage } from 'node:util';
import { AppError, type ErrorKind, messageOf } from '#src/lib/errors.ts';
import { KernelError, renameFresh } from '../kernel.ts';
import type { Btrfs, NestedSubvolume, SubvolumeIdentity, SubvolumeUsage } from './btrfs.ts';
import {
  createSnapshot,
  createSubvolume,
  destroySubvolume,
  directoryPath,
  isReadonly,
  KEY,
  openDirectory,
  resizeToDevice,
  ROOT_INODE,
  searchItems,
  setReadonly,
  setReceivedUuid,
  subvolumeId,
  subvolumeUuids,
  TREE,
} from './calls.ts';
import { limitOf, removeLimit, setLimit, usageOf } from './qgroups.ts';

const BTRFS_MAGIC = 0x9123683e;
/** Somebody in it may make new subvolumes while we remove the old. */
const REMOVE_TRIES = 16;

interface Child {
  readonly id: bigint;
  /** Inode of the directory that it lies in. */
  readonly directory: bigint;
  readonly name: Buffer;
}

/** A snapshot to be made in a directory. */
interface Copy {
  readonly sourceFd: number;
  readonly parentFd: number;
  readonly name: Buffer;
  readonly readonly: boolean;
}

export class LinuxBtrfs implements Btrfs {
  async isBtrfs(path: string): Promise<boolean> {
    try {
      return (await statfs(path)).type === BTRFS_MAGIC;
    } catch (error) {
      if (isAbsent(error)) return false;
      throw failure(`look at ${path}`, error);
    }
  }

  async isSubvolume(path: string): Promise<boolean> {
    try {
      const status = await lstat(path, { bigint: true });
      return status.isDirectory() && status.ino === ROOT_INODE && (await this.isBtrfs(path));
    } catch (error) {
      if (isAbsent(error)) return false;
      throw failure(`look at ${path}`, error);
    }
  }

  create(path: string): Promise<void> {
    return withDirectory(`make subvolume ${path}`, dirname(path), (fd) => createSubvolume(fd, nameOf(path)));
  }

  snapshot(from: string, to: string, options: { readonly readonly?: boolean } = {}): Promise<void> {
    const { readonly = false } = options;
    return withDirectory(`make a snapshot of ${from} at ${to}`, from, async (sourceFd) => {
      using parent = open(dirname(to));
      await copySubvolume({ sourceFd, parentFd: parent.fd, name: nameOf(to), readonly });
    });
  }

  async remove(path: string): Promise<void> {
    if (!(await this.isSubvolume(path))) return;
    const what = `remove subvolume ${path}`;
    await withDirectory(what, dirname(path), async (fsFd) => {
      const id = await identify(path);
      if (id !== undefined) await removeSubvolume(fsFd, id);
    });
  }

  hasNested(path: string): Promise<boolean> {
    return withDirectory(`look into subvolume ${path}`, path, async (fd) => {
      return (await children(fd, await subvolumeId(fd))).length > 0;
    });
  }

  nested(path: string): Promise<readonly NestedSubvolume[]> {
    return withDirectory(`look into subvolume ${path}`, path, async (fd) => {
      const found = await nestedBelow(fd, await subvolumeId(fd), '');
      return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
    });
  }

  setReadonly(path: string, readonly: boolean): Promise<void> {
    return withDirectory(`change subvolume ${path}`, path, (fd) => setReadonly(fd, readonly));
  }

  async publish(path: string, newPath: string): Promise<void> {
    try {
      await renameFresh(path, newPath);
    } catch (error) {
      throw failure(`rename subvolume ${path} to ${newPath}`, error);
    }
  }

  /** By its parent: whoever is over a limit cannot change it from within. */
  limit(path: string, bytes: number | undefined): Promise<void> {
    return withDirectory(`limit subvolume ${path}`, path, async (fd) => {
      using parent = open(dirname(path));
      await setLimit(parent.fd, await subvolumeId(fd), bytes);
    });
  }

  limitOf(path: string): Promise<number | undefined> {
    return withDirectory(`ask for the limit of ${path}`, path, async (fd) => limitOf(fd, await subvolumeId(fd)));
  }

  usage(path: string): Promise<SubvolumeUsage | undefined> {
    return withDirectory(`measure subvolume ${path}`, path, async (fd) => usageOf(fd, await subvolumeId(fd)));
  }

  identity(path: string): Promise<SubvolumeIdentity> {
    return withDirectory(`identify subvolume ${path}`, path, async (fd) => {
      const { uuid, receivedUuid } = await subvolumeUuids(fd);
      const isReceived = receivedUuid.some((byte) => byte !== 0);
      return { uuid: uuid.toString('hex'), receivedUuid: isReceived ? receivedUuid.toString('hex') : undefined };
    });
  }

  markReceived(path: string, uuid: string): Promise<void> {
    return withDirectory(`mark subvolume ${path}`, path, (fd) => setReceivedUuid(fd, Buffer.from(uuid, 'hex')));
  }

  grow(path: string): Promise<void> {
    return withDirectory(`grow the file system of ${path}`, path, resizeToDevice);
  }
}

async function identify(path: string): Promise<bigint | undefined> {
  try {
    using directory = open(path);
    return await subvolumeId(directory.fd);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** ROOT_REF items of the tree of roots: directory, sequence, length of the name, name. */
async function children(fsFd: number, id: bigint): Promise<readonly Child[]> {
  const items = await searchItems(fsFd, { tree: TREE.roots, objectId: id, type: KEY.rootReference });
  return items.map(({ offset, data }) => {
    return { id: offset, directory: data.readBigUInt64LE(0), name: data.subarray(18, 18 + data.readUInt16LE(16)) };
  });
}

async function nestedBelow(fsFd: number, id: bigint, prefix: string): Promise<readonly NestedSubvolume[]> {
  const found: NestedSubvolume[] = [];
  for (const child of await children(fsFd, id)) {
    const bytes = Buffer.concat([await directoryPath(fsFd, id, child.directory), child.name]);
    const path = `${prefix}${bytes.toString()}`;
    if (!Buffer.from(bytes.toString()).equals(bytes)) {
      throw new AppError('invalid', `the name of the nested subvolume ${path} is not UTF-8`);
    }
    using self = descriptor(await openDirectory(fsFd, child.id));
    found.push({ path, readonly: await isReadonly(self.fd) });
    found.push(...(await nestedBelow(fsFd, child.id, `${path}/`)));
  }
  return found;
}

/**
 * A snapshot has the inodes of its source, and empty directories where subvolumes are nested. Those, too, are then found by inode: a
 * path that the instance changes meanwhile cannot lead elsewhere.
 */
async function copySubvolume({ sourceFd, parentFd, name, readonly }: Copy): Promise<void> {
  const nested = await children(sourceFd, await subvolumeId(sourceFd));
  const isDone = readonly && nested.length === 0;
  await createSnapshot(parentFd, { sourceFd, name, readonly: isDone });
  if (isDone) return;
  using copy = open(inDirectory(parentFd, name));
  const id = await subvolumeId(copy.fd);
  await setLimit(parentFd, id, undefined); // it has the limit of its source
  for (const child of nested) await copyChild(child, { fsFd: parentFd, copyId: id });
  if (readonly) await setReadonly(copy.fd, true);
}

async function copyChild(child: Child, { fsFd, copyId }: { fsFd: number; copyId: bigint }): Promise<void> {
  try {
    using source = descriptor(await openDirectory(fsFd, child.id));
    using directory = descriptor(await openDirectory(fsFd, copyId, child.directory));
    await rmdir(inDirectory(directory.fd, child.name));
    const readonly = await isReadonly(source.fd);
    await copySubvolume({ sourceFd: source.fd, parentFd: directory.fd, name: child.name, readonly });
  } catch (error) {
    if (!isAbsent(error)) throw error; // gone before it was copied, or made after the snapshot
  }
}

async function removeSubvolume(fsFd: number, id: bigint): Promise<void> {
  await removeLimit(fsFd, id);
  for (let tries = 1; ; tries++) {
    try {
      return await destroySubvolume(fsFd, id);
    } catch (error) {
      if (isAbsent(error)) return;
      if (!hasErrno(error, 'ENOTEMPTY') || tries === REMOVE_TRIES) throw error;
    }
    using self = descriptor(await openDirectory(fsFd, id));
    if (await isReadonly(self.fd)) await setReadonly(self.fd, false);
    for (const child of await children(fsFd, id)) await removeSubvolume(fsFd, child.id);
  }
}

interface Descriptor extends Disposable {
  readonly fd: number;
}

function descriptor(fd: number): Descriptor {
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}

function open(path: string | Buffer): Descriptor {
  return descriptor(openSync(path, 'r'));
}

function inDirectory(fd: number, name: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name]);
}

function nameOf(path: string): Buffer {
  return Buffer.from(basename(path));
}

async function withDirectory<T>(what: string, path: string, work: (fd: number) => Promise<T>): Promise<T> {
  try {
    using directory = open(path);
    return await work(directory.fd);
  } catch (error) {
    throw failure(what, error);
  }
}

function hasErrno(error: unknown, ...names: readonly string[]): boolean {
  const errno = error instanceof KernelError ? error.errno : error instanceof Error && 'code' in error && error.code;
  return typeof errno === 'string' && names.includes(errno);
}

/** ESTALE: of an inode that was asked for by its number. */
function isAbsent(error: unknown): boolean {
  return hasErrno(error, 'ENOENT', 'ENOTDIR', 'ESTALE');
}

function failure(what: string, cause: unknown): AppError {
  if (cause instanceof AppError && !(cause instanceof KernelError)) return cause;
  let kind: ErrorKind = 'internal';
  if (isAbsent(cause)) kind = 'not_found';
  if (hasErrno(cause, 'EEXIST', 'ENOTEMPTY')) kind = 'conflict';
  return new AppError(kind, `cannot ${what}: ${inWords(cause)}`, { cause });
}

function inWords(cause: unknown): string {
  if (!(cause instanceof KernelError)) return messageOf(cause);
  if (cause.errno === 'EDQUOT') return 'Disk quota exceeded'; // one that Node has no words for
  const number = Object.entries(constants.errno).find(([name]) => name === cause.errno)?.[1];
  return number === undefined ? cause.message : getSystemErrorMessage(-number);
}
