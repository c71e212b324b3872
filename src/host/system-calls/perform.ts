// Does for a container what its root may not do by itself: in the caller's own mount namespace, root directory and working directory, with
// its ids for every look-up, and one capability more for the one call. The container is hostile: what is waited for here (a file system of
// its own that does not answer) keeps its own thread and no other.
import { fstatSync } from 'node:fs';
import koffi from 'koffi';
import { unwrapCall } from '../thread-calls.ts';
import { asOwner, CAPABILITY, withCapabilities } from '../thread-rights.ts';
import { type Answer, type Notification } from './notification.ts';
import {
  type Caller,
  closeAll,
  covers,
  idRanges,
  type IdRanges,
  isOfContainer,
  openNamespace,
  openPlace,
  readBytes,
  readText,
  type Rights,
  rightsOf,
} from './caller.ts';
import { AT_FDCWD, HOST_DEVICES, OPAQUE, type Request, requestOf } from './requests.ts';

const PATH_MAX = 4096;
const S_IRUSR = 0o400;
const AT_EMPTY_PATH = 0x1000;
const O = {
  rdonly: 0,
  wronly: 1,
  creat: 0o100,
  excl: 0o200,
  noctty: 0o400,
  nonblock: 0o4000,
  directory: 0o200000,
  nofollow: 0o400000,
  path: 0o10000000,
  cloexec: 0o2000000,
};
const CLONE_NEWNS = 0x20000;
const RESOLVE_NO_MAGICLINKS = 2n;
const OPEN_TREE_CLONE = 1;
const MOVE_MOUNT_EMPTY_PATHS = 0x04 | 0x40;
const SYS = { openTree: 428, moveMount: 429, openat2: 437 } as const;

const libc = koffi.load('libc.so.6');
const calls = {
  setns: libc.func('int setns(int fd, int type)'),
  fchdir: libc.func('int fchdir(int fd)'),
  chroot: libc.func('int chroot(str path)'),
  umask: libc.func('uint umask(uint mask)'),
  open: libc.func('open', 'int', ['str', 'int']),
  openat: libc.func('openat', 'int', ['int', 'void *', 'int', 'uint']),
  mknodat: libc.func('int mknodat(int fd, void *path, uint mode, ulong device)'),
  unlinkat: libc.func('int unlinkat(int fd, void *path, int flags)'),
  setxattr: libc.func('int setxattr(str path, str name, void *value, ulong size, int flags)'),
  close: libc.func('int close(int fd)'),
  openat2: libc.func('syscall', 'long', ['long', 'int', 'void *', 'void *', 'ulong']),
  openTree: libc.func('syscall', 'long', ['long', 'int', 'str', 'uint']),
  moveMount: libc.func('syscall', 'long', ['long', 'int', 'str', 'int', 'str', 'uint']),
};
const check = unwrapCall(koffi);
const { errno: ERRNO } = koffi.os;

/** What is looked up with the caller's ids. */
interface Scene {
  readonly rights: Rights;
  readonly uids: IdRanges;
  readonly gids: IdRanges;
  /** The device of this host, for a place where nodes are of no use. */
  readonly spare?: number;
}

/** This thread is where it must not look at anything: it ends. */
class Stranded extends Error {}

/** 'continue' for everything that is none of the few calls that are done for containers. After an error the thread must end. */
export function perform(notification: Notification, caller: Caller): Answer {
  const request = requestOf(notification);
  if (!request) return 'continue';
  try {
    return done(request, notification.initPid, caller);
  } catch (error) {
    if (error instanceof Stranded) throw error;
    const { errno = '' } = error as { readonly errno?: string };
    const code = ERRNO[errno];
    // an error of our own look at /proc: the caller is gone, or nobody's business here
    return code === undefined ? 'continue' : { errno: code };
  }
}

function done(request: Request, initPid: number, caller: Caller): Answer {
  const rights = rightsOf(caller);
  const needed = request.kind === 'mknod' ? CAPABILITY.mknod : CAPABILITY.sysAdmin;
  if ((rights.capabilities & needed) === 0n || !isOfContainer(caller, initPid)) return 'continue';
  const path = readText(caller, request.path, PATH_MAX);
  if (path === undefined || path.length === 0) return 'continue';
  const scene = { rights, uids: idRanges(initPid, 'uid'), gids: idRanges(initPid, 'gid') };
  if (request.kind === 'mknod') return makeNode(request, path, { caller, scene });
  return markOpaque(request, path, { caller, scene });
}

interface Place {
  readonly caller: Caller;
  readonly scene: Scene;
}

function makeNode(request: Extract<Request, { kind: 'mknod' }>, path: Buffer, { caller, scene }: Place): Answer {
  const cut = path.lastIndexOf(0x2f);
  const name = path.subarray(cut + 1);
  if (name.length === 0) return 'continue';
  const parent = cut === -1 ? Buffer.from('.') : path.subarray(0, Math.max(cut, 1));
  const device = HOST_DEVICES.get(request.device);
  const spare = device === undefined ? undefined : copyOfMount(device);
  const from = path[0] === 0x2f || request.directory === AT_FDCWD ? 'cwd' : `fd/${request.directory}`;
  try {
    inside(caller, { from, scene }, () => {
      const directory = openDirectory(parent);
      try {
        nodeIn(directory, name, { request, scene: { ...scene, ...(spare !== undefined && { spare }) } });
      } finally {
        calls.close(directory);
      }
    });
  } finally {
    if (spare !== undefined) calls.close(spare);
  }
  return 'done';
}

/** Of a device of this host; mounted nowhere. */
function copyOfMount(path: string): number {
  const source = check('open', calls.open(path, O.path | O.nofollow | O.cloexec));
  try {
    return check('open_tree', calls.openTree(SYS.openTree, source, '', OPEN_TREE_CLONE | AT_EMPTY_PATH | O.cloexec));
  } finally {
    calls.close(source);
  }
}

interface Node {
  readonly request: Extract<Request, { kind: 'mknod' }>;
  readonly scene: Scene;
}

function nodeIn(directory: number, name: Buffer, { request, scene }: Node): void {
  const path = Buffer.concat([name, Buffer.alloc(1)]);
  const more = overriding(directory, scene);
  withCapabilities(CAPABILITY.mknod | more, () => {
    check('mknodat', calls.mknodat(directory, path, request.mode, request.device));
  });
  const { spare } = scene;
  if (spare === undefined || isUsable(directory, path, request.mode & ~scene.rights.umask)) return;
  // No node can be opened on a file system that the container has mounted itself: the host's device takes its place.
  withCapabilities(more, () => {
    check('unlinkat', calls.unlinkat(directory, path, 0));
    const flags = O.wronly | O.creat | O.excl | O.nofollow | O.cloexec;
    const file = check('openat', calls.openat(directory, path, flags, request.mode & 0o777));
    try {
      check('move_mount', calls.moveMount(SYS.moveMount, spare, '', file, '', MOVE_MOUNT_EMPTY_PATHS));
    } finally {
      calls.close(file);
    }
  });
}

/** With the caller's own rights, and so only where its owner may read: EACCES is what the kernel has for devices where there may be none. */
function isUsable(directory: number, path: Buffer, mode: number): boolean {
  if ((mode & S_IRUSR) === 0) return true;
  const node = calls.openat(directory, path, O.rdonly | O.nonblock | O.noctty | O.nofollow | O.cloexec, 0) as number;
  if (node < 0) return koffi.errno() !== ERRNO['EACCES'];
  calls.close(node);
  return true;
}

function markOpaque(request: Extract<Request, { kind: 'setxattr' }>, path: Buffer, { caller, scene }: Place): Answer {
  const name = readText(caller, request.name, OPAQUE.name.length + 1);
  const value = readBytes(caller, request.value, OPAQUE.value.length);
  if (name?.toString('latin1') !== OPAQUE.name || value?.toString('latin1') !== OPAQUE.value) return 'continue';
  let answer: Answer = 'done';
  inside(caller, { from: 'cwd', scene }, () => {
    const directory = openDirectory(path, request.follow ? 0 : O.nofollow);
    try {
      const { uid, gid } = fstatSync(directory);
      // who is root in a container is so for its own files
      if (!covers(scene.uids, uid) || !covers(scene.gids, gid)) answer = 'continue';
      else {
        check('fchdir', calls.fchdir(directory));
        check('setxattr', calls.setxattr('.', OPAQUE.name, Buffer.from(OPAQUE.value), 1, request.flags));
      }
    } finally {
      calls.close(directory);
    }
  });
  return answer;
}

/** No link of /proc is followed: they lead out of what paths lead to. */
function openDirectory(path: Buffer, flags = 0): number {
  const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve
  how.writeBigUInt64LE(BigInt(O.path | O.directory | O.cloexec | flags), 0);
  how.writeBigUInt64LE(RESOLVE_NO_MAGICLINKS, 16);
  const text = Buffer.concat([path, Buffer.alloc(1)]);
  return check('openat2', calls.openat2(SYS.openat2, AT_FDCWD, text, how, how.length));
}

/** Where the caller is and as whom it is there: `work` must not look at anything of this host. */
function inside(
  caller: Caller,
  { from, scene }: { readonly from: string; readonly scene: Scene },
  work: () => void,
): void {
  const namespace = openNamespace(caller);
  const places = [namespace];
  const home = check('open', calls.open('/proc/thread-self/ns/mnt', O.rdonly | O.cloexec));
  try {
    const root = openPlace(caller, 'root');
    places.push(root);
    const start = openPlace(caller, from);
    places.push(start);
    check('setns', calls.setns(namespace, CLONE_NEWNS));
    check('fchdir', calls.fchdir(root));
    check('chroot', calls.chroot('.'));
    check('fchdir', calls.fchdir(start));
    asCaller(scene.rights, work);
  } finally {
    goHome(home);
    closeAll([...places, home]);
  }
}

/** Stranded when this thread does not get out of the container. */
function goHome(namespace: number): void {
  // its root directory is this one's again, too
  if ((calls.setns(namespace, CLONE_NEWNS) as number) < 0)
    throw new Stranded('a thread did not get out of a container');
}

function asCaller({ umask, ...owner }: Rights, work: () => void): void {
  const before = calls.umask(umask) as number;
  try {
    asOwner(owner, work);
  } finally {
    calls.umask(before);
  }
}

/** What root of a container may: anything in a directory that one of its own ids has. */
function overriding(directory: number, { rights, uids, gids }: Scene): bigint {
  if ((rights.capabilities & CAPABILITY.dacOverride) === 0n) return 0n;
  const { uid, gid } = fstatSync(directory);
  return covers(uids, uid) && covers(gids, gid) ? CAPABILITY.dacOverride : 0n;
}
