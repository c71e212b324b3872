// The real machine: commands in process groups of their own, atomic files, trees removed without following anything.
import { constants } from 'node:fs';
import {
  access,
  chmod,
  cp,
  lchown,
  lstat,
  mkdir,
  type FileHandle,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, normalize } from 'node:path';
import { AppError, type ErrorKind, messageOf } from '#src/lib/errors.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Btrfs } from './btrfs/btrfs.ts';
import { LinuxBtrfs } from './btrfs/linux-btrfs.ts';
import { CommandError } from './command-error.ts';
import type {
  Argv,
  DeviceNode,
  FileStatus,
  FileSystemUsage,
  Host,
  OwnerShift,
  RunningCommand,
  RunOptions,
  RunResult,
} from './host.ts';
import { faultPoint } from './faults.ts';
import { exchange, getXattr, KernelError, listXattrs, makeNode, setXattr } from './kernel.ts';
import { LinuxLinks } from './linux-links.ts';
import { LinuxPorts } from './linux-ports.ts';
import { LinuxMounts } from './linux-mounts.ts';
import { markedBy } from './leftovers.ts';
import type { Links } from './links.ts';
import type { Ports } from './ports.ts';
import type { Mounts } from './mounts.ts';
import { launch, runToEnd } from './process.ts';
import { LinuxProjectQuotas, type ProjectQuotas } from './project-quota.ts';
import { unfinishedName } from './unfinished.ts';
import { shiftTree } from './shift-tree.ts';

const REMOVE_LIMIT_MS = 30 * 60_000;
/** File systems made of commands: a rename onto their files means nothing, so they are written in place. */
const IN_PLACE = ['/proc/', '/sys/'];

function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

function fileError(what: string, path: string, cause: unknown): AppError {
  return new AppError(kindOfFileError(cause), `cannot ${what} ${path}: ${messageOf(cause)}`, { cause });
}

function kindOfFileError(cause: unknown): ErrorKind {
  if (hasCode(cause, 'ENOENT', 'ENOTDIR')) return 'not_found';
  if (cause instanceof KernelError && ['ENOTSUP', 'EOPNOTSUPP'].includes(cause.errno)) return 'unsupported';
  return hasCode(cause, 'EEXIST', 'ENOTEMPTY') ? 'conflict' : 'internal';
}

/** What takes one call: an empty directory, or nothing at all. Never what is mounted or a link; anything else is left as it is. */
async function removeEmpty(path: string): Promise<boolean> {
  try {
    await rmdir(path);
    return true;
  } catch (error) {
    return hasCode(error, 'ENOENT');
  }
}

/** The first directory that was made. With parents, Node's own says ENOENT where a file system is read-only. */
async function makeIn(path: string, fresh: boolean): Promise<string | undefined> {
  try {
    return await mkdir(path, { recursive: !fresh });
  } catch (error) {
    if (fresh || !hasCode(error, 'ENOENT')) throw error;
    await mkdir(path);
    return path;
  }
}

async function translated<T>(what: string, path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw fileError(what, path, error);
  }
}

export interface LinuxHostOptions {
  /** By which the next daemon knows commands that outlive this one; see leftovers.ts. */
  readonly commandMark?: string;
  /** False: as if the kernel could not map the ids of a mount. */
  readonly mapIds?: boolean;
}

export class LinuxHost implements Host {
  readonly #mark: string | undefined;
  readonly btrfs: Btrfs = new LinuxBtrfs();
  readonly links: Links = new LinuxLinks((argv, options) => this.run(argv, options));
  readonly ports: Ports = new LinuxPorts(this.links);
  readonly mounts: Mounts;
  readonly projectQuotas: ProjectQuotas = new LinuxProjectQuotas();

  constructor({ commandMark, mapIds = true }: LinuxHostOptions = {}) {
    this.#mark = commandMark;
    this.mounts = new LinuxMounts(this, mapIds);
  }

  run(argv: Argv, options: RunOptions = {}): Promise<RunResult> {
    return runToEnd(argv, this.#marked(options));
  }

  start(argv: Argv, options: Omit<RunOptions, 'input'> = {}): RunningCommand {
    return launch(argv, this.#marked(options));
  }

  #marked(options: RunOptions): RunOptions {
    if (this.#mark === undefined) return options;
    return { ...options, env: { ...options.env, ...markedBy(this.#mark, { lasting: options.lasting === true }) } };
  }

  readFile(path: string): Promise<string> {
    return translated('read', path, readFile(path, 'utf8'));
  }

  readBytes(path: string): Promise<Uint8Array> {
    return translated('read', path, readFile(path));
  }

  writeFile(path: string, data: string | Uint8Array, options: { readonly mode?: number } = {}): Promise<void> {
    const inPlace = IN_PLACE.some((prefix) => path.startsWith(prefix));
    // files of the kernel may be for writing alone
    const work = inPlace
      ? writeFile(path, data, { flag: constants.O_WRONLY })
      : replaceFile(path, data, options.mode ?? 0o644);
    return translated('write', path, work);
  }

  async exists(path: string): Promise<boolean> {
    try {
      await access(path);
      return true;
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'ENOTDIR')) return false;
      throw fileError('look for', path, error);
    }
  }

  async list(path: string): Promise<readonly string[]> {
    try {
      return await readdir(path);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return [];
      throw fileError('list', path, error);
    }
  }

  async makeDirectory(path: string, options: { readonly mode?: number; readonly fresh?: boolean } = {}): Promise<void> {
    const { mode, fresh = false } = options;
    const made = await translated('make directory', path, makeIn(path, fresh));
    // mkdir's own mode is cut by the umask and would go to the parents, too.
    if (mode !== undefined && (fresh || made !== undefined))
      await translated('set the mode of', path, chmod(path, mode));
  }

  async status(path: string): Promise<FileStatus> {
    const status = await translated('look at', path, lstat(path));
    const kinds = { file: status.isFile(), directory: status.isDirectory(), link: status.isSymbolicLink() } as const;
    const kind = (['file', 'directory', 'link'] as const).find((name) => kinds[name]) ?? 'other';
    return { kind, mode: status.mode & 0o7777, uid: status.uid, gid: status.gid, sizeBytes: status.size };
  }

  chown(path: string, uid: number, gid: number): Promise<void> {
    return translated('set the owner of', path, lchown(path, uid, gid));
  }

  setMode(path: string, mode: number): Promise<void> {
    return translated('set the mode of', path, chmod(path, mode));
  }

  rename(path: string, newPath: string): Promise<void> {
    return translated(`rename to ${newPath}`, path, rename(path, newPath));
  }

  exchange(path: string, other: string): Promise<void> {
    return translated(`exchange with ${other}`, path, exchange(path, other));
  }

  copyTree(path: string, newPath: string): Promise<void> {
    const options = {
      recursive: true,
      errorOnExist: true,
      force: false,
      verbatimSymlinks: true,
      preserveTimestamps: true,
    };
    return translated(`copy to ${newPath}`, path, cp(path, newPath, options));
  }

  async usage(path: string): Promise<FileSystemUsage> {
    const { bsize, blocks, bfree, bavail, files, ffree } = await translated('measure', path, statfs(path));
    const used = { usedBytes: (blocks - bfree) * bsize, availableBytes: bavail * bsize, inodesUsed: files - ffree };
    return { totalBytes: blocks * bsize, inodesTotal: files, ...used };
  }

  shiftOwners(path: string, shift: OwnerShift, signal: AbortSignal): Promise<void> {
    return shiftTree(path, shift, signal);
  }

  async attribute(path: string, name: string): Promise<string | undefined> {
    const work = async (): Promise<string | undefined> => {
      const file = Buffer.from(path);
      return listXattrs(file).includes(name) ? getXattr(file, name).toString() : undefined;
    };
    return translated(`read ${name} of`, path, work());
  }

  async setAttribute(path: string, name: string, value: string): Promise<void> {
    faultPoint(`set ${name} of ${path}`);
    const work = async (): Promise<void> => setXattr(Buffer.from(path), name, Buffer.from(value));
    await translated(`set ${name} of`, path, work());
  }

  async makeNode(path: string, node: DeviceNode): Promise<void> {
    await translated('make', path, makeNode(path, node));
    await this.chown(path, node.uid, node.gid);
    await this.setMode(path, node.mode); // the umask has no say
  }

  /**
   * rm(1) walks with openat and O_NOFOLLOW, so a tree that changes under it cannot lead it elsewhere. It would descend into bind
   * mounts of the same file system, though: therefore the look at the mount table first. Neither is done for what is absent or
   * empty: a process costs more than the rest of a deletion.
   */
  async removeTree(path: string): Promise<void> {
    if (!isAbsolute(path) || normalize(path) === '/') throw new AppError('invalid', `refusing to remove ${path}`);
    if (await removeEmpty(path)) return;
    const mounted = await this.mounts.mountsUnder(path);
    if (mounted.length > 0) {
      throw new AppError('conflict', `refusing to remove ${path}: ${mounted.join(', ')} is mounted in it`);
    }
    const remove: Argv = ['rm', '-rf', '--one-file-system', '--', path];
    try {
      await this.run(remove, { timeoutMs: REMOVE_LIMIT_MS });
    } catch (error) {
      if (!(error instanceof CommandError) || !error.stderr.includes('Operation not permitted')) throw error;
      // A privileged container may have made files immutable. chattr -R neither follows links nor opens special files.
      await this.run(['chattr', '-R', '-f', '-i', '-a', path], { timeoutMs: REMOVE_LIMIT_MS, okExitCodes: [0, 1] });
      await this.run(remove, { timeoutMs: REMOVE_LIMIT_MS });
    }
  }
}

const writing = new KeyedLock();

/** Always by the same name, one writer at a time: what a killed process left of it is used up by the next. */
function replaceFile(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  return writing.run(path, () => replaceAlone(path, data, mode));
}

/** Another's of that name is one that a killed process left. */
async function openFresh(path: string, mode: number): Promise<FileHandle> {
  try {
    return await open(path, 'wx', mode);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error;
    await rm(path);
    return open(path, 'wx', mode);
  }
}

async function replaceAlone(path: string, data: string | Uint8Array, mode: number): Promise<void> {
  const temporary = join(dirname(path), unfinishedName(basename(path)));
  try {
    const file = await openFresh(temporary, mode);
    try {
      await file.writeFile(data);
      if ((mode & 0o077) !== 0) await file.chmod(mode); // the umask has no say
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
