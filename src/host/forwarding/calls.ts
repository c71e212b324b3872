// System calls of the forward server. All of them return at once: its only wait is for the kernel's events.
import koffi from 'koffi';
import { unwrapCall } from '../thread-calls.ts';

export const AF = { unix: 1, inet: 2, inet6: 10 } as const;
export const SOCK = { stream: 1, datagram: 2 } as const;
const SOCK_FLAGS = 0o2004000; // close-on-exec, non-blocking
export const O = {
  readonly: 0,
  path: 0o10000000,
  nofollow: 0o400000,
  directory: 0o200000,
  cloexec: 0o2000000,
} as const;
export const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const CLONE_NEWNET = 0x40000000;
const RESOLVE_IN_ROOT = 16n;
const RESOLVE_NO_MAGICLINKS = 2n;
const AT_EMPTY_PATH = 0x1000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
export const OPTION = {
  reuseAddress: [SOL_SOCKET, 2],
  error: [SOL_SOCKET, 4],
  noDelay: [6, 1],
  onlyV6: [41, 26],
  freeBind: [0, 15],
  freeBindV6: [41, 78],
} as const satisfies Record<string, readonly [number, number]>;
const KEEP = 0xffff_ffff; // -1: an id that stays as it is
/** For each architecture: the calls whose C library version would speak to all threads. */
const SYS =
  process.arch === 'arm64'
    ? { openat2: 437, setresuid: 147, setresgid: 149, setgroups: 159, pidfdOpen: 434, pidfdSignal: 424 }
    : { openat2: 437, setresuid: 117, setresgid: 119, setgroups: 116, pidfdOpen: 434, pidfdSignal: 424 };

const libc = koffi.load('libc.so.6');
const calls = {
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, void *address, uint length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  connect: libc.func('int connect(int fd, void *address, uint length)'),
  accept: libc.func('int accept4(int fd, void *address, void *length, int flags)'),
  recv: libc.func('long recv(int fd, void *data, ulong length, int flags)'),
  send: libc.func('long send(int fd, void *data, ulong length, int flags)'),
  recvfrom: libc.func('long recvfrom(int fd, void *data, ulong length, int flags, void *address, void *addressLength)'),
  sendto: libc.func('long sendto(int fd, void *data, ulong length, int flags, void *address, uint addressLength)'),
  recvmsg: libc.func('long recvmsg(int fd, void *message, int flags)'),
  sendmsg: libc.func('long sendmsg(int fd, void *message, int flags)'),
  shutdown: libc.func('int shutdown(int fd, int how)'),
  close: libc.func('int close(int fd)'),
  setsockopt: libc.func('int setsockopt(int fd, int level, int name, void *value, uint length)'),
  getsockopt: libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)'),
  getsockname: libc.func('int getsockname(int fd, void *address, void *length)'),
  open: libc.func('int open(str path, int flags)'),
  setns: libc.func('int setns(int fd, int type)'),
  fchmod: libc.func('int fchmod(int fd, uint mode)'),
  fchownat: libc.func('int fchownat(int fd, str path, uint uid, uint gid, int flags)'),
  unlink: libc.func('int unlink(str path)'),
  umask: libc.func('uint umask(uint mask)'),
  openat2: libc.func('syscall', 'long', ['long', 'int', 'str', 'void *', 'ulong']),
  setIds: libc.func('syscall', 'long', ['long', 'uint', 'uint', 'uint']),
  setGroups: libc.func('syscall', 'long', ['long', 'ulong', 'void *']),
  pidfdOpen: libc.func('syscall', 'long', ['long', 'int', 'uint']),
  pidfdSignal: libc.func('syscall', 'long', ['long', 'int', 'int', 'void *', 'uint']),
};
const check = unwrapCall(koffi);

/** Errors that mean "not now". */
const LATER = new Set([koffi.os.errno['EAGAIN'], koffi.os.errno['EINTR']]);
const NOT_OURS = koffi.os.errno['EPERM'];
const GONE = koffi.os.errno['ESRCH'];
const SIGTERM = 15;
const IN_PROGRESS = koffi.os.errno['EINPROGRESS'];
const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

/** undefined: not now. CallError for any other failure. */
function unlessLater(call: string, result: unknown): number | undefined {
  const value = Number(result);
  if (value < 0 && LATER.has(koffi.errno())) return undefined;
  return check(call, value);
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

export function socket(domain: number, type: number): number {
  return check('socket', calls.socket(domain, type | SOCK_FLAGS, 0));
}

export function bind(fd: number, address: Buffer): void {
  check('bind', calls.bind(fd, address, address.length));
}

export function listen(fd: number): void {
  check('listen', calls.listen(fd, 4096));
}

/** False: it goes on, and the socket becomes writable when it has succeeded or failed. */
export function connect(fd: number, address: Buffer): boolean {
  const result = Number(calls.connect(fd, address, address.length));
  if (result < 0 && koffi.errno() === IN_PROGRESS) return false;
  check('connect', result);
  return true;
}

export interface Accepted {
  readonly fd: number;
  readonly address: Buffer;
}

const ADDRESS_BYTES = 128;
const addressBuffer = Buffer.alloc(ADDRESS_BYTES);
const lengthBuffer = Buffer.alloc(4);

export function accept(fd: number): Accepted | undefined {
  lengthBuffer.writeUInt32LE(ADDRESS_BYTES);
  const accepted = unlessLater('accept', calls.accept(fd, addressBuffer, lengthBuffer, SOCK_FLAGS));
  return accepted === undefined ? undefined : { fd: accepted, address: takenAddress() };
}

function takenAddress(): Buffer {
  return Buffer.from(addressBuffer.subarray(0, Math.min(lengthBuffer.readUInt32LE(), ADDRESS_BYTES)));
}

export function localAddress(fd: number): Buffer {
  lengthBuffer.writeUInt32LE(ADDRESS_BYTES);
  check('getsockname', calls.getsockname(fd, addressBuffer, lengthBuffer));
  return takenAddress();
}

/** Bytes received; undefined: none yet. */
export function receive(fd: number, into: Buffer): number | undefined {
  return unlessLater('recv', calls.recv(fd, into, into.length, 0));
}

/** Bytes sent; undefined: none can be sent now. */
export function send(fd: number, data: Buffer): number | undefined {
  return unlessLater('send', calls.send(fd, data, data.length, MSG_NOSIGNAL));
}

export function receiveFrom(fd: number, into: Buffer): { readonly length: number; readonly from: Buffer } | undefined {
  lengthBuffer.writeUInt32LE(ADDRESS_BYTES);
  const length = unlessLater('recvfrom', calls.recvfrom(fd, into, into.length, 0, addressBuffer, lengthBuffer));
  return length === undefined ? undefined : { length, from: takenAddress() };
}

export function sendTo(fd: number, data: Buffer, to: Buffer): number | undefined {
  return unlessLater('sendto', calls.sendto(fd, data, data.length, MSG_NOSIGNAL, to, to.length));
}

const MAX_FDS = 253;
const CONTROL_BYTES = 16 + MAX_FDS * 4;
/** struct msghdr, struct iovec and the control data, where the kernel finds them by their addresses. */
const message = koffi.alloc('uint8', 56 + 16 + CONTROL_BYTES);
const messageBytes = Buffer.from(koffi.view(message, 56 + 16 + CONTROL_BYTES));
const iovec = messageBytes.subarray(56, 72);
const control = messageBytes.subarray(72);

function prepareMessage(data: Buffer, controlBytes: number): void {
  const start = koffi.address(message);
  messageBytes.fill(0, 0, 56);
  messageBytes.writeBigUInt64LE(start + 56n, 16);
  messageBytes.writeBigUInt64LE(1n, 24);
  messageBytes.writeBigUInt64LE(controlBytes === 0 ? 0n : start + 72n, 32);
  messageBytes.writeBigUInt64LE(BigInt(controlBytes), 40);
  iovec.writeBigUInt64LE(koffi.address(data), 0);
  iovec.writeBigUInt64LE(BigInt(data.length), 8);
}

/** Like receive(), with the file descriptors that came along: the caller's to close. */
export function receiveWithFds(
  fd: number,
  into: Buffer,
): { readonly length: number; readonly fds: readonly number[] } | undefined {
  prepareMessage(into, CONTROL_BYTES);
  const length = unlessLater('recvmsg', calls.recvmsg(fd, message, MSG_CMSG_CLOEXEC));
  if (length === undefined) return undefined;
  return { length, fds: rightsIn(Number(messageBytes.readBigUInt64LE(40))) };
}

function rightsIn(controlLength: number): readonly number[] {
  const fds: number[] = [];
  for (let at = 0; at + 16 <= controlLength; ) {
    const length = Number(control.readBigUInt64LE(at));
    if (length < 16) break;
    const isRights = control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS;
    if (isRights) for (let place = at + 16; place < at + length; place += 4) fds.push(control.readInt32LE(place));
    at += (length + 7) & ~7;
  }
  return fds;
}

export function sendWithFds(fd: number, data: Buffer, fds: readonly number[]): number | undefined {
  const length = 16 + fds.length * 4;
  prepareMessage(data, length);
  control.writeBigUInt64LE(BigInt(length), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  for (const [index, one] of fds.entries()) control.writeInt32LE(one, 16 + index * 4);
  return unlessLater('sendmsg', calls.sendmsg(fd, message, MSG_NOSIGNAL));
}

/** Says to the other end that nothing more comes. */
export function finishSending(fd: number): void {
  calls.shutdown(fd, 1);
}

export function close(fd: number): void {
  calls.close(fd);
}

export function setOption(fd: number, [level, name]: readonly [number, number], value: number): void {
  const bytes = int(value);
  check('setsockopt', calls.setsockopt(fd, level, name, bytes, bytes.length));
}

/** What became of a connect(): the name of an error, or undefined. */
export function pendingError(fd: number): string | undefined {
  const value = Buffer.alloc(4);
  const [level, name] = OPTION.error;
  check('getsockopt', calls.getsockopt(fd, level, name, value, int(4)));
  const errno = value.readInt32LE();
  return errno === 0 ? undefined : (errnoNames.get(errno) ?? `errno ${errno}`);
}

export function open(path: string, flags: number): number {
  return check('open', calls.open(path, flags | O.cloexec));
}

/** Nothing leads out of `root`, neither links nor "..". */
export function openWithin(root: number, path: string, flags: number): number {
  const how = Buffer.alloc(24); // struct open_how: flags, mode, resolve
  how.writeBigUInt64LE(BigInt(flags | O.cloexec), 0);
  how.writeBigUInt64LE(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, 16);
  return check('openat2', calls.openat2(SYS.openat2, root, path, how, how.length));
}

/** Of the socket itself, before it is bound: the permissions of its file. */
export function setMode(fd: number, mode: number): void {
  check('fchmod', calls.fchmod(fd, mode));
}

export function setOwner(fd: number, { uid, gid }: { readonly uid: number; readonly gid: number }): void {
  check('fchownat', calls.fchownat(fd, '', uid, gid, AT_EMPTY_PATH));
}

export function removeFile(path: string): void {
  check('unlink', calls.unlink(path));
}

/** New files have the mode that they are given. */
export function keepModes(): void {
  calls.umask(0);
}

export function enterNetwork(namespaceFd: number): void {
  check('setns', calls.setns(namespaceFd, CLONE_NEWNET));
}

/** Runs `work` with the rights of somebody, as the kernel and the other end of a socket see it. This thread alone. */
export function as<T>({ uid, gid }: { readonly uid: number; readonly gid: number }, work: () => T): T {
  check('setresgid', calls.setIds(SYS.setresgid, KEEP, gid, KEEP));
  try {
    check('setresuid', calls.setIds(SYS.setresuid, KEEP, uid, KEEP));
    return work();
  } finally {
    check('setresuid', calls.setIds(SYS.setresuid, KEEP, 0, KEEP));
    check('setresgid', calls.setIds(SYS.setresgid, KEEP, 0, KEEP));
  }
}

export function leaveGroups(): void {
  check('setgroups', calls.setGroups(SYS.setgroups, 0, null));
}

/** Readable once the process is gone. CallError when it is. */
export function openProcess(pid: number): number {
  return check('pidfd_open', calls.pidfdOpen(SYS.pidfdOpen, pid, 0));
}

export function isAlive(processFd: number): boolean {
  const result = Number(calls.pidfdSignal(SYS.pidfdSignal, processFd, 0, null, 0));
  return result === 0 || koffi.errno() === NOT_OURS;
}

/** Nothing more can be sent to us; what has been sent can still be read. */
export function finishReceiving(fd: number): void {
  calls.shutdown(fd, 0);
}

/** By SIGTERM. Success when it has ended. */
export function endProcess(processFd: number): void {
  const result = Number(calls.pidfdSignal(SYS.pidfdSignal, processFd, SIGTERM, null, 0));
  if (result < 0 && koffi.errno() !== GONE) check('pidfd_send_signal', result);
}
