// The thread that enters a container's mount namespace, does one thing there and comes back. Everything that it needs is loaded
// before it goes in, and all of it blocks: nothing of the container's files is ever run or read as ours.
import { fstatSync } from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import koffi from 'koffi';
import { unwrapCall } from './thread-calls.ts';
import { asOwner, CAPABILITY, leaveGroups, withCapabilities } from './thread-rights.ts';

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export type ContainerMountWork =
  | (Owner & {
      readonly what: 'attach';
      readonly from: string;
      readonly target: string;
      readonly kind: 'directory' | 'file';
    })
  | (Owner & { readonly what: 'detach'; readonly target: string; readonly removeFile: boolean })
  | { readonly what: 'lift'; readonly target: string };

export interface ContainerMountJob {
  /** An open file descriptor. */
  readonly namespace: number;
  readonly work: ContainerMountWork;
}

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const O = { rdonly: 0, wronly: 1, creat: 0o100, excl: 0o200, nofollow: 0o400000, path: 0o10000000, cloexec: 0o2000000 };
const CLONE_FS = 0x200;
const CLONE_NEWNS = 0x20000;
const RESOLVE_NO_MAGICLINKS = 2n;
const RESOLVE_IN_ROOT = 16n;
const OPEN_TREE_CLONE = 1;
const MOVE_MOUNT_EMPTY_PATHS = 0x04 | 0x40;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
const SYS = { openTree: 428, moveMount: 429, openat2: 437 } as const;

const libc = koffi.load('libc.so.6');
const calls = {
  unshare: libc.func('int unshare(int flags)'),
  setns: libc.func('int setns(int fd, int type)'),
  open: libc.func('int open(str path, int flags)'),
  close: libc.func('int close(int fd)'),
  mkdirat: libc.func('int mkdirat(int fd, str path, uint mode)'),
  unlinkat: libc.func('int unlinkat(int fd, str path, int flags)'),
  umount2: libc.func('int umount2(str path, int flags)'),
  openat2: libc.func('syscall', 'long', ['long', 'int', 'str', 'void *', 'ulong']),
  openTree: libc.func('syscall', 'long', ['long', 'int', 'str', 'uint']),
  moveMount: libc.func('syscall', 'long', ['long', 'int', 'str', 'int', 'str', 'uint']),
};
const check = unwrapCall(koffi);

function openInRoot(root: number, path: string, flags: number, mode = 0): number {
  const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve
  how.writeBigUInt64LE(BigInt(flags | O.cloexec), 0);
  how.writeBigUInt64LE(BigInt(mode), 8);
  how.writeBigUInt64LE(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, 16);
  return check('openat2', calls.openat2(SYS.openat2, root, path, how, how.length));
}

/** The existing or made path; a file descriptor. */
function makePath(place: Place, parts: readonly string[], kind: 'directory' | 'file'): number {
  try {
    return openInRoot(place.root, parts.join('/') || '.', O.path);
  } catch (error) {
    if (!['ENOENT', 'EACCES'].includes(errnoOf(error)) || parts.length === 0) throw error;
  }
  const parent = makePath(place, parts.slice(0, -1), 'directory');
  try {
    return withRightsIn(parent, place.owner, () => makeIn(parent, parts.at(-1) ?? '', kind));
  } finally {
    calls.close(parent);
  }
}

interface Place {
  readonly root: number;
  readonly owner: Owner;
}

/** A link there is not followed: it would be looked up from the wrong root. */
function makeIn(parent: number, name: string, kind: 'directory' | 'file'): number {
  const found = foundIn(parent, name);
  if (found !== undefined) return found;
  if (kind === 'directory') check('mkdirat', calls.mkdirat(parent, name, 0o755));
  else check('close', calls.close(openInRoot(parent, name, O.wronly | O.creat | O.excl | O.nofollow, 0o600)));
  return openInRoot(parent, name, O.path | O.nofollow);
}

function foundIn(parent: number, name: string): number | undefined {
  try {
    const found = openInRoot(parent, name, O.path | O.nofollow);
    if (!fstatSync(found).isSymbolicLink()) return found;
    calls.close(found);
    throw Object.assign(new Error('a link'), { call: 'openat2', errno: 'ELOOP' });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function errnoOf(error: unknown): string {
  return (error as { readonly errno?: string }).errno ?? '';
}

/**
 * Root may do anything in a directory of its own, whatever its mode; the ids alone do not give us that. What is not its own (the
 * host's, in a container that was given it) stays closed.
 */
function withRightsIn<T>(directory: number, owner: Owner, work: () => T): T {
  const { uid, gid } = fstatSync(directory);
  if (uid !== owner.uid || gid !== owner.gid) return work();
  return withCapabilities(CAPABILITY.dacOverride, work);
}

function partsOf(path: string): readonly string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.');
}

function attach(work: Extract<ContainerMountWork, { what: 'attach' }>): void {
  const root = check('open', calls.open('/', O.path | O.cloexec));
  const target = asOwner(work, () => makePath({ root, owner: work }, partsOf(work.target), work.kind));
  const source = openInRoot(root, work.from, O.path | O.nofollow);
  const flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE | O.cloexec;
  const tree = check('open_tree', calls.openTree(SYS.openTree, source, '', flags));
  check('move_mount', calls.moveMount(SYS.moveMount, tree, '', target, '', MOVE_MOUNT_EMPTY_PATHS));
  for (const fd of [root, target, source, tree]) calls.close(fd);
}

function detach(work: Extract<ContainerMountWork, { what: 'detach' }>): void {
  const path = `/${partsOf(work.target).join('/')}`;
  try {
    check('umount2', calls.umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW));
  } catch (error) {
    if (!['EINVAL', 'ENOENT', 'ENOTDIR'].includes((error as { errno?: string }).errno ?? '')) throw error;
  }
  if (work.removeFile) asOwner(work, () => calls.unlinkat(AT_FDCWD, path, 0)); // a left placeholder harms nobody
}

/** A copy of what is mounted at `target`, as a descriptor of the whole process. */
function lift(target: string): number {
  return check('open_tree', calls.openTree(SYS.openTree, AT_FDCWD, target, OPEN_TREE_CLONE | O.cloexec));
}

export type ContainerMountAnswer = { readonly call: string; readonly errno: string } | { readonly fd: number };

function run({ namespace, work }: ContainerMountJob): ContainerMountAnswer | undefined {
  check('unshare', calls.unshare(CLONE_FS));
  leaveGroups();
  const home = check('open', calls.open('/proc/thread-self/ns/mnt', O.rdonly | O.cloexec));
  check('setns', calls.setns(namespace, CLONE_NEWNS));
  try {
    if (work.what === 'lift') return { fd: lift(work.target) };
    if (work.what === 'attach') attach(work);
    else detach(work);
    return undefined;
  } catch (error) {
    const { call = 'call', errno = 'EIO' } = error as { call?: string; errno?: string };
    return { call, errno };
  } finally {
    check('setns', calls.setns(home, CLONE_NEWNS));
    calls.close(home);
  }
}

if (!isMainThread) {
  const answer = run(workerData as ContainerMountJob);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
  if (answer) parentPort?.postMessage(answer);
}
