// Whose rights a thread has where a container could have made the paths. Nothing here is asked of the C library that it would ask of all
// threads, and nothing is loaded later.
import koffi from 'koffi';
import { unwrapCall } from './thread-calls.ts';

/** Bits of a thread's capabilities. */
export const CAPABILITY = { dacOverride: 1n << 1n, sysAdmin: 1n << 21n, mknod: 1n << 27n } as const;

const CAPABILITY_VERSION_3 = 0x20080522;
const SETGROUPS = process.arch === 'arm64' ? 159 : 116;

const libc = koffi.load('libc.so.6');
const calls = {
  setfsuid: libc.func('int setfsuid(uint uid)'),
  setfsgid: libc.func('int setfsgid(uint gid)'),
  capget: libc.func('int capget(void *header, void *data)'),
  capset: libc.func('int capset(void *header, void *data)'),
  setgroups: libc.func('syscall', 'long', ['long', 'ulong', 'void *']),
};
const check = unwrapCall(koffi);

const header = Buffer.alloc(8);
header.writeUInt32LE(CAPABILITY_VERSION_3, 0);

/** For good: root's own groups would open to others what they may write to. */
export function leaveGroups(): void {
  check('setgroups', calls.setgroups(SETGROUPS, 0, null));
}

/** With the rights of an owner of files, and none of root's over files of others. */
export function asOwner<T>({ uid, gid }: { readonly uid: number; readonly gid: number }, work: () => T): T {
  calls.setfsgid(gid);
  calls.setfsuid(uid); // takes the capabilities over files away
  try {
    return work();
  } finally {
    calls.setfsuid(0);
    calls.setfsgid(0);
  }
}

/** With these beside those that the thread has. */
export function withCapabilities<T>(more: bigint, work: () => T): T {
  const before = Buffer.alloc(24); // twice effective, permitted, inheritable: the lower halves first
  check('capget', calls.capget(header, before));
  const raised = Buffer.from(before);
  raised.writeUInt32LE(Number(BigInt(raised.readUInt32LE(0)) | more), 0);
  check('capset', calls.capset(header, raised));
  try {
    return work();
  } finally {
    check('capset', calls.capset(header, before));
  }
}
