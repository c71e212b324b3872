// System calls that Node does not have: the only module that uses the FFI. Thin: numbers and structs in, errno out.
import { constants } from 'node:fs';
import koffi from 'koffi';
import { AppError } from '#src/lib/errors.ts';
import { faultPoint } from './faults.ts';

/** A failed system call. */
export class KernelError extends AppError {
  readonly errno: string;

  constructor(call: string, errno: string) {
    super('internal', `${call}: ${errno}`);
    this.errno = errno;
  }
}

export const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
const RESOLVE_NO_MAGICLINKS = 2n;
const RESOLVE_BENEATH = 8n;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_RDONLY = 1n;
const MOUNT_ATTR_IDMAP = 0x00100000n;
const STATX_ATTR_MOUNT_ROOT = 0x2000n;
const ST_RDONLY = 1n;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
/** Numbers from 424 on are the same on every architecture. */
const SYS = { openTree: 428, moveMount: 429, openat2: 437, mountSetattr: 442, quotactlFd: 443 } as const;

/** Used by one blocking call at a time; 64 KiB is the kernel's own limit. */
const xattrBuffer = Buffer.alloc(64 * 1024);

const libc = koffi.load('libc.so.6');
const mountCall = libc.func('int mount(str source, str target, str type, ulong flags, str data)');
const umountCall = libc.func('int umount2(str target, int flags)');
const openTreeCall = libc.func('syscall', 'long', ['long', 'int', 'str', 'uint']);
const moveMountCall = libc.func('syscall', 'long', ['long', 'int', 'str', 'int', 'str', 'uint']);
const openat2Call = libc.func('syscall', 'long', ['long', 'int', 'str', 'void *', 'ulong']);
const mountSetattrCall = libc.func('syscall', 'long', ['long', 'int', 'str', 'uint', 'void *', 'ulong']);
const quotactlCall = libc.func('syscall', 'long', ['long', 'int', 'uint', 'uint', 'void *']);
const statxCall = libc.func('int statx(int fd, str path, int flags, uint mask, void *buffer)');
const statfsCall = libc.func('int statfs(str path, void *buffer)');
const mknodCall = libc.func('int mknod(str path, uint mode, ulong device)');
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;
const renameCall = libc.func('int renameat2(int fd, str path, int otherFd, str other, uint flags)');
const openHandleCall = libc.func('int open_by_handle_at(int mountFd, void *handle, int flags)');
const ioctlCall = libc.func('ioctl', 'int', ['int', 'ulong', 'void *']);
const llistxattrCall = libc.func('long llistxattr(void *path, void *list, ulong size)');
const lgetxattrCall = libc.func('long lgetxattr(void *path, str name, void *value, ulong size)');
const lsetxattrCall = libc.func('int lsetxattr(void *path, str name, void *value, ulong size, int flags)');

type ForeignCall = Pick<ReturnType<typeof libc.func>, 'async'>;
type Arguments = readonly (string | number | bigint | Buffer | null)[];

const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

function failure(call: string): KernelError {
  const errno = koffi.errno();
  return new KernelError(call, errnoNames.get(errno) ?? `errno ${errno}`);
}

/** Runs the call on another thread: a mount may have to wait for a disk, and the daemon must not. */
function onThread(name: string, call: ForeignCall, args: Arguments): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: Error | null, result: number | bigint) => {
      if (error) reject(error);
      else if (Number(result) < 0) reject(failure(name));
      else resolve(Number(result));
    });
  });
}

export async function mount(
  source: string,
  target: string,
  { type, flags, data }: { readonly type: string; readonly flags: number; readonly data: string | null },
): Promise<void> {
  faultPoint(`mount ${source} ${target}`);
  await onThread('mount', mountCall, [source, target, type, flags, data]);
}

/** Detaches lazily: what is in use goes away with its last user, and a busy mount is no error. */
export async function unmountDetached(target: string): Promise<void> {
  faultPoint(`umount ${target}`);
  await onThread('umount2', umountCall, [target, MNT_DETACH | UMOUNT_NOFOLLOW]);
}

/** A private copy of the mount that `path` lies in, with `path` as its root; a file descriptor. */
export function openTree(path: string): Promise<number> {
  return onThread('open_tree', openTreeCall, [SYS.openTree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC]);
}

/** What is at `path` below the directory that `parentFd` is, with no link leading out of it: a descriptor that only names it. */
export function openBeneath(parentFd: number, path: string): Promise<number> {
  const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve
  how.writeBigUInt64LE(BigInt(O_PATH | O_CLOEXEC), 0);
  how.writeBigUInt64LE(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, 16);
  return onThread('openat2', openat2Call, [SYS.openat2, parentFd, path, how, how.length]);
}

export async function mapIds(treeFd: number, userNamespaceFd: number, readonly: boolean): Promise<void> {
  const attributes = Buffer.alloc(32); // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
  attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP | (readonly ? MOUNT_ATTR_RDONLY : 0n), 0);
  attributes.writeBigUInt64LE(BigInt(userNamespaceFd), 24);
  const flags = AT_EMPTY_PATH | AT_RECURSIVE;
  await onThread('mount_setattr', mountSetattrCall, [
    SYS.mountSetattr,
    treeFd,
    '',
    flags,
    attributes,
    attributes.length,
  ]);
}

export async function attachTree(treeFd: number, target: string): Promise<void> {
  faultPoint(`move_mount ${target}`);
  await onThread('move_mount', moveMountCall, [SYS.moveMount, treeFd, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH]);
}

/** Whether something is mounted at this very path. */
export async function isMountRoot(path: string): Promise<boolean> {
  const buffer = Buffer.alloc(256); // struct statx; stx_attributes at 8
  await onThread('statx', statxCall, [AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, buffer]);
  return (buffer.readBigUInt64LE(8) & STATX_ATTR_MOUNT_ROOT) !== 0n;
}

/** Whether the mount that holds the path, or its whole file system, takes no writes. In a time that no number of mounts changes. */
export async function isOnReadonlyMount(path: string): Promise<boolean> {
  const buffer = Buffer.alloc(256); // struct statfs; f_flags at 80 on 64 bit machines
  await onThread('statfs', statfsCall, [path, buffer]);
  return (buffer.readBigUInt64LE(80) & ST_RDONLY) !== 0n;
}

/** Lets two paths change places in one step. */
export async function exchange(path: string, other: string): Promise<void> {
  faultPoint(`exchange ${path} ${other}`);
  await onThread('renameat2', renameCall, [AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE]);
}

/** The same, without letting anything else happen meanwhile; the kernel does not wait for disks here. */
export function exchangeNow(path: string, other: string): void {
  faultPoint(`exchange ${path} ${other}`);
  if (renameCall(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE) < 0) throw failure('renameat2');
}

/** Rejects with EEXIST when the new path is there, whatever it is. */
export async function renameFresh(path: string, newPath: string): Promise<void> {
  faultPoint(`rename ${path} ${newPath}`);
  await onThread('renameat2', renameCall, [AT_FDCWD, path, AT_FDCWD, newPath, RENAME_NOREPLACE]);
}

/** Opens a directory by struct file_handle, on the file system of `mountFd`: no path is walked. */
export function openDirectoryByHandle(mountFd: number, handle: Buffer): Promise<number> {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | O_CLOEXEC;
  return onThread('open_by_handle_at', openHandleCall, [mountFd, handle, flags]);
}

const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;

/** Nobody's but root's until its owner and mode are set. */
export async function makeNode(
  path: string,
  { kind, major, minor }: { readonly kind: 'char' | 'block'; readonly major: number; readonly minor: number },
): Promise<void> {
  const high = (BigInt(major & 0xfffff000) << 32n) | (BigInt(minor & 0xffffff00) << 12n);
  const device = high | BigInt(((major & 0xfff) << 8) | (minor & 0xff));
  faultPoint(`mknod ${path}`);
  await onThread('mknod', mknodCall, [path, (kind === 'char' ? S_IFCHR : S_IFBLK) | 0o600, device]);
}

/** `change`: what it changes, for those that do. */
export async function ioctl(fd: number, request: number, argument: Buffer, change?: string): Promise<void> {
  if (change !== undefined) faultPoint(`ioctl ${change}`);
  await onThread('ioctl', ioctlCall, [fd, request, argument]);
}

export async function quotactl(
  fd: number,
  command: number,
  { id, argument, change }: { id: number; argument: Buffer; change?: string },
): Promise<void> {
  if (change !== undefined) faultPoint(`quotactl ${change} ${id}`);
  await onThread('quotactl_fd', quotactlCall, [SYS.quotactlFd, fd, command, id, argument]);
}

/** File names are bytes, not always UTF-8: hence buffers. */
function cString(path: Buffer): Buffer {
  return Buffer.concat([path, Buffer.alloc(1)]);
}

/** Names of the extended attributes of a file, links not followed; [] where the file system has none. Blocks. */
export function listXattrs(path: Buffer): readonly string[] {
  const length = Number(llistxattrCall(cString(path), xattrBuffer, xattrBuffer.length));
  if (length < 0) {
    const error = failure('llistxattr');
    if (error.errno === 'ENOTSUP' || error.errno === 'EOPNOTSUPP' || error.errno === 'ENOSYS') return [];
    throw error;
  }
  return xattrBuffer.toString('latin1', 0, length).split('\0').slice(0, -1);
}

/** Blocks. */
export function getXattr(path: Buffer, name: string): Buffer {
  const length = Number(lgetxattrCall(cString(path), name, xattrBuffer, xattrBuffer.length));
  if (length < 0) throw failure('lgetxattr');
  return Buffer.from(xattrBuffer.subarray(0, length));
}

/** Blocks. */
export function setXattr(path: Buffer, name: string, value: Buffer): void {
  if (Number(lsetxattrCall(cString(path), name, value, value.length, 0)) < 0) throw failure('lsetxattr');
}
