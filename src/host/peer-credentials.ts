// Who is at the other end of a unix socket, as the kernel saw it when the connection was made; and saying who we are.
import type { Socket } from 'node:net';
import koffi from 'koffi';

const SOL_SOCKET = 1;
const SO_PASSCRED = 16;
const SO_PEERCRED = 17;

const libc = koffi.load('libc.so.6');
const getsockoptCall = libc.func(
  'int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)',
);

const setsockoptCall = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)');

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** undefined: the socket is closed already. */
export function peerCredentials(socket: Socket): PeerCredentials | undefined {
  const fd = descriptorOf(socket);
  return fd === undefined ? undefined : credentialsAt(fd);
}

/** By the socket's descriptor. The other end of a connection that was made here is who has said listen() last. */
export function credentialsAt(fd: number): PeerCredentials | undefined {
  const value = Buffer.alloc(12); // struct ucred: pid, uid, gid
  if (Number(getsockoptCall(fd, SOL_SOCKET, SO_PEERCRED, value, [value.length])) < 0) return undefined;
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/**
 * From now on the kernel adds our credentials to what is sent on a unix socket, whether the other end has asked for them yet or
 * not. False: the socket is closed already.
 */
export function sendCredentials(socket: Socket): boolean {
  const fd = descriptorOf(socket);
  if (fd === undefined) return false;
  const on = Buffer.alloc(4);
  on.writeInt32LE(1);
  return Number(setsockoptCall(fd, SOL_SOCKET, SO_PASSCRED, on, on.length)) === 0;
}

function descriptorOf(socket: Socket): number | undefined {
  const fd = (socket as unknown as { readonly _handle?: { readonly fd?: number } | null })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
