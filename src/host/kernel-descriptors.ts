// System calls on descriptors, and the ids that files are made with. Like kernel.ts: thin. None of these waits for anything.
import { constants } from 'node:fs';
import koffi from 'koffi';
import { KernelError } from './kernel.ts';

const O_CLOEXEC = 0o2000000;
const FIONREAD = 0x541b;
const TIOCSWINSZ = 0x5414;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTPEER = 0x5441;
const TIOCGPTN = 0x80045430;
const POLLOUT = 4;
const SYS = { pidfdOpen: 434, pidfdGetfd: 438 } as const;
const CAPABILITY_VERSION_3 = 0x20080522;

const libc = koffi.load('libc.so.6');
const pipeCall = libc.func('int pipe2(void *fds, int flags)');
const ioctlCall = libc.func('ioctl', 'int', ['int', 'ulong', 'void *']);
const ioctlNumberCall = libc.func('ioctl', 'int', ['int', 'ulong', 'long']);
const pollCall = libc.func('int poll(void *fds, ulong count, int timeout)');
const pidfdOpenCall = libc.func('syscall', 'long', ['long', 'int', 'uint']);
const pidfdGetfdCall = libc.func('syscall', 'long', ['long', 'int', 'int', 'uint']);
const setfsuidCall = libc.func('int setfsuid(uint uid)');
const setfsgidCall = libc.func('int setfsgid(uint gid)');
const capgetCall = libc.func('int capget(void *header, void *data)');
const capsetCall = libc.func('int capset(void *header, void *data)');

const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, value]) => [value, name]));

function checked(call: string, result: unknown): number {
  if (Number(result) >= 0) return Number(result);
  throw new KernelError(call, errnoNames.get(koffi.errno()) ?? `errno ${koffi.errno()}`);
}

export function pipe(): { readonly reader: number; readonly writer: number } {
  const fds = Buffer.alloc(8);
  checked('pipe2', pipeCall(fds, O_CLOEXEC));
  return { reader: fds.readInt32LE(0), writer: fds.readInt32LE(4) };
}

/** Bytes that can be read at once. */
export function pendingBytes(fd: number): number {
  const count = Buffer.alloc(4);
  checked('FIONREAD', ioctlCall(fd, FIONREAD, count));
  return count.readInt32LE(0);
}

/** The other side of a terminal's master, in the same devpts whatever is mounted at /dev/pts. */
export function terminalPeer(master: number): number {
  checked('TIOCSPTLCK', ioctlCall(master, TIOCSPTLCK, Buffer.alloc(4)));
  const flags = constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC;
  return checked('TIOCGPTPEER', ioctlNumberCall(master, TIOCGPTPEER, flags));
}

export function setWindowSize(terminal: number, { width, height }: { width: number; height: number }): void {
  const size = Buffer.alloc(8);
  size.writeUInt16LE(height, 0);
  size.writeUInt16LE(width, 2);
  checked('TIOCSWINSZ', ioctlCall(terminal, TIOCSWINSZ, size));
}

/** The number of a terminal in its devpts, from its master. */
export function terminalNumber(master: number): number {
  const number = Buffer.alloc(4);
  checked('TIOCGPTN', ioctlCall(master, TIOCGPTN, number));
  return number.readUInt32LE(0);
}

/** Whether a write would be taken at once, if only in part. */
export function takesWrites(fd: number): boolean {
  const poll = Buffer.alloc(8); // struct pollfd: fd, events, revents
  poll.writeInt32LE(fd, 0);
  poll.writeInt16LE(POLLOUT, 4);
  checked('poll', pollCall(poll, 1, 0));
  return (poll.readInt16LE(6) & POLLOUT) !== 0;
}

/** Names a process for as long as it is open, and after its end. */
export function openProcess(pid: number): number {
  return checked('pidfd_open', pidfdOpenCall(SYS.pidfdOpen, pid, 0));
}

/** What another process has open as `fd`, as a descriptor of this one. */
export function descriptorOf(processFd: number, fd: number): number {
  return checked('pidfd_getfd', pidfdGetfdCall(SYS.pidfdGetfd, processFd, fd, 0));
}

const capHeader = Buffer.alloc(8);
capHeader.writeUInt32LE(CAPABILITY_VERSION_3, 0);

/**
 * Runs `work`, which must not wait, with other owners for what it creates and all rights of this process: through a mount that maps
 * ids, only ids of that map can create anything. They are this thread's alone.
 */
export function creatingAs<T>({ uid, gid }: { readonly uid: number; readonly gid: number }, work: () => T): T {
  if (uid === 0 && gid === 0) return work();
  const capabilities = Buffer.alloc(24);
  checked('capget', capgetCall(capHeader, capabilities));
  setfsgidCall(gid);
  setfsuidCall(uid); // takes the rights over files away, and so they are put back
  try {
    checked('capset', capsetCall(capHeader, capabilities));
    return work();
  } finally {
    setfsuidCall(0);
    setfsgidCall(0);
  }
}
