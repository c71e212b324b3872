// The socket where monitors ask. These wait, and so threads of their own call them.
import koffi from 'koffi';
import {
  accept,
  AF,
  bind,
  close,
  connect,
  endProcess,
  listen,
  receiveWithFds,
  removeFile,
  socket,
} from '../forwarding/calls.ts';
import { descriptorOf, openProcess } from '../kernel-descriptors.ts';
import { HANDED_FD } from '../helpers/helper-process.ts';
import { readKernelFile } from '../kernel-files.ts';
import { credentialsAt } from '../peer-credentials.ts';
import { unwrapCall } from '../thread-calls.ts';
import { AppError } from '#src/lib/errors.ts';

const SOCK_SEQPACKET = 5;
/** Of sockaddr_un, with the zero at its end. */
const PATH_BYTES = 108;
const POLLIN = 1;
/** What its command line has. */
const SERVER = 'system-call-server';
/** Nothing there, nobody there, or somebody who has ended, or no server of ours. */
const GONE = new Set(['ENOENT', 'ECONNREFUSED', 'ESRCH', 'EBADF', 'EINVAL', 'EAGAIN']);

const pollCall = koffi.load('libc.so.6').func('int poll(void *fds, ulong count, int timeout)');
const check = unwrapCall(koffi);

/** A listening socket at `path`, in the place of what is there. AppError 'invalid' when the path is too long for a socket. */
export function listenAt(path: string): number {
  const address = addressOf(path);
  const fd = socket(AF.unix, SOCK_SEQPACKET);
  try {
    removeStale(path);
    bind(fd, address);
    listen(fd);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

function addressOf(path: string): Buffer {
  if (Buffer.byteLength(path) >= PATH_BYTES)
    throw new AppError('invalid', `${path} is too long for the name of a socket`);
  const address = Buffer.alloc(2 + PATH_BYTES);
  address.writeUInt16LE(AF.unix);
  address.write(path, 2);
  return address;
}

export interface FormerServer {
  readonly listening: number;
  /** Its pidfd. */
  readonly process: number;
}

/**
 * The listening socket of the server that a former daemon has left, as a descriptor of this process; undefined when there is none. The socket goes
 * on: a monitor that once finds nobody there lets nobody attach to its container any more (liblxc's seccomp_notify_add_listener).
 */
export function formerServer(path: string): FormerServer | undefined {
  const fd = socket(AF.unix, SOCK_SEQPACKET);
  try {
    connect(fd, addressOf(path));
    const pid = credentialsAt(fd)?.pid ?? 0;
    const server = openProcess(pid);
    if (isServer(pid)) return { listening: descriptorOf(server, HANDED_FD), process: server };
    close(server);
    return undefined;
  } catch (error) {
    if (GONE.has((error as { readonly errno?: string }).errno ?? '')) return undefined;
    throw error;
  } finally {
    close(fd);
  }
}

/** It answers what it was asked; with the next question the monitors connect again, to whoever listens then. */
export function endServer({ process }: FormerServer): void {
  endProcess(process);
  close(process);
}

/** Of this program: numbers of processes are used again. */
function isServer(pid: number): boolean {
  return readKernelFile(`/proc/${pid}/cmdline`)?.includes(SERVER) === true;
}

function removeStale(path: string): void {
  try {
    removeFile(path);
  } catch (error) {
    if ((error as { readonly errno?: string }).errno !== 'ENOENT') throw error;
  }
}

/** The next connection's descriptor; undefined once `end` is readable. */
export function nextConnection(listening: number, end: number): number | undefined {
  for (;;) {
    if (waitUntilReadable(listening, end).includes(end)) return undefined;
    const accepted = accept(listening);
    if (accepted) return accepted.fd;
  }
}

/** The next message's length and what came with it; undefined: the other end is gone. */
export function nextMessage(
  connection: number,
  into: Buffer,
): { readonly length: number; readonly fds: readonly number[] } | undefined {
  for (;;) {
    waitUntilReadable(connection);
    const received = receiveWithFds(connection, into);
    if (received) return received.length === 0 ? undefined : received;
  }
}

/** Those of them that are. */
function waitUntilReadable(...fds: readonly number[]): readonly number[] {
  const polled = Buffer.alloc(8 * fds.length); // struct pollfd: fd, events, revents
  for (const [index, fd] of fds.entries()) {
    polled.writeInt32LE(fd, 8 * index);
    polled.writeInt16LE(POLLIN, 8 * index + 4);
  }
  const result = Number(pollCall(polled, fds.length, -1));
  if (result < 0 && koffi.errno() !== koffi.os.errno['EINTR']) check('poll', result);
  return result < 0 ? [] : fds.filter((_, index) => polled.readInt16LE(8 * index + 6) !== 0);
}
