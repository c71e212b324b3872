// The thread of one container: waits for what its monitor asks, does it, answers. Ends with the monitor.
import { isMainThread, workerData } from 'node:worker_threads';
import koffi from 'koffi';
import { send } from '../forwarding/calls.ts';
import { unwrapCall } from '../thread-calls.ts';
import { leaveGroups } from '../thread-rights.ts';
import { callerOf, closeAll } from './caller.ts';
import { answerTo, parseNotification } from './notification.ts';
import { perform } from './perform.ts';
import { nextMessage } from './sockets.ts';

const CLONE_FS = 0x200;
/** A head, what the kernel tells of a call, and a cookie are some hundred bytes. */
const MESSAGE_BYTES = 4096;

const unshare = koffi.load('libc.so.6').func('int unshare(int flags)');

function serve(connection: number): void {
  unwrapCall(koffi)('unshare', unshare(CLONE_FS)); // a root and a working directory of its own
  leaveGroups();
  const buffer = Buffer.alloc(MESSAGE_BYTES);
  for (;;) {
    const received = nextMessage(connection, buffer);
    if (!received) return;
    answer(connection, buffer.subarray(0, received.length), received.fds);
  }
}

function answer(connection: number, message: Buffer, fds: readonly number[]): void {
  try {
    const [processFd = -1, memory = -1] = fds;
    const notification = parseNotification(message);
    send(connection, answerTo(message, perform(notification, callerOf(processFd, memory))));
  } finally {
    closeAll(fds);
  }
}

if (!isMainThread) serve(workerData as number);
