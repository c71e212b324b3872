// What liblxc's monitor asks about a system call that the filter holds, and what it is answered: the kernel's struct seccomp_notif and
// struct seccomp_notif_resp behind liblxc's own head (struct seccomp_notify_proxy_msg), in the byte order of the machine.
import { AppError } from '#src/lib/errors.ts';

/** liblxc's head: reserved, the pids, the sizes of what follows, the length of a cookie that comes last. */
const HEAD = { bytes: 32, initPid: 12, notificationBytes: 16, answerBytes: 18 } as const;
const NOTIFICATION = { id: 0, pid: 8, number: 16, architecture: 20, arguments: 32, bytes: 80 } as const;
const ANSWER = { id: 0, value: 8, error: 16, flags: 20, bytes: 24 } as const;
const ARGUMENTS = 6;
const CONTINUE = 1;

/** A system call that waits for an answer. */
export interface Notification {
  /** Of the container, as this host sees it. */
  readonly initPid: number;
  /** Of the thread that waits. */
  readonly pid: number;
  readonly number: number;
  /** One of the kernel's AUDIT_ARCH_…: the same number is another call elsewhere. */
  readonly architecture: number;
  readonly arguments: readonly bigint[];
}

/** The call's own result, 0, an errno that it fails with, or the kernel's: the call goes on as if nobody had been asked. */
export type Answer = 'done' | 'continue' | { readonly errno: number };

/** AppError 'invalid' for what cannot be such a message. */
export function parseNotification(message: Buffer): Notification {
  const { notification } = partsOf(message);
  return {
    initPid: message.readInt32LE(HEAD.initPid),
    pid: notification.readUInt32LE(NOTIFICATION.pid),
    number: notification.readInt32LE(NOTIFICATION.number),
    architecture: notification.readUInt32LE(NOTIFICATION.architecture),
    arguments: Array.from({ length: ARGUMENTS }, (_, index) =>
      notification.readBigUInt64LE(NOTIFICATION.arguments + index * 8),
    ),
  };
}

/** The message to send back: the same, without a cookie. */
export function answerTo(message: Buffer, answer: Answer): Buffer {
  const whole = Buffer.from(message.subarray(0, partsOf(message).end));
  const { notification, answer: fields } = partsOf(whole);
  fields.fill(0);
  notification.copy(fields, ANSWER.id, NOTIFICATION.id, NOTIFICATION.id + 8);
  if (answer === 'continue') fields.writeUInt32LE(CONTINUE, ANSWER.flags);
  else if (answer !== 'done') fields.writeInt32LE(-answer.errno, ANSWER.error);
  return whole;
}

function partsOf(message: Buffer): { readonly notification: Buffer; readonly answer: Buffer; readonly end: number } {
  if (message.length < HEAD.bytes) throw new AppError('invalid', 'a message of no container');
  const notificationBytes = message.readUInt16LE(HEAD.notificationBytes);
  const answerBytes = message.readUInt16LE(HEAD.answerBytes);
  const middle = HEAD.bytes + notificationBytes;
  const end = middle + answerBytes;
  if (notificationBytes < NOTIFICATION.bytes || answerBytes < ANSWER.bytes || message.length < end) {
    throw new AppError('invalid', 'a message of another kernel or library');
  }
  return { notification: message.subarray(HEAD.bytes, middle), answer: message.subarray(middle, end), end };
}
