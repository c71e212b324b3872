// Reads what the kernel reports through descriptors that are neither files, pipes nor streams (inotify, netlink), from the event
// loop and without a thread.
import { Socket } from 'node:net';
import koffi from 'koffi';
import { unwrapCall } from './thread-calls.ts';

const O_CLOEXEC = 0o2000000;

const libc = koffi.load('libc.so.6');
const pipe2Call = libc.func('int pipe2(_Out_ int *fds, int flags)');
const dup3Call = libc.func('int dup3(int from, int to, int flags)');
const closeCall = libc.func('int close(int fd)');
const check = unwrapCall(koffi);

/**
 * Calls `report` with what every read gives. The descriptor, which must not block, is the stream's from now on. Does not keep the
 * process.
 */
export function readReports(fd: number, report: (data: Buffer) => void): { close(): void } {
  // Node opens streams of pipes only: it gets one, and the descriptor takes the pipe's place before anything is read.
  const ends = [0, 0];
  check('pipe2', pipe2Call(ends, O_CLOEXEC));
  const [input = -1, output = -1] = ends;
  const stream = new Socket({ fd: input, readable: true, writable: false, manualStart: true } as ConstructorParameters<
    typeof Socket
  >[0]);
  check('dup3', dup3Call(fd, input, O_CLOEXEC));
  closeCall(fd);
  closeCall(output);
  stream.on('data', report);
  stream.on('error', () => stream.destroy());
  stream.unref();
  return { close: () => void stream.destroy() };
}
