// What the kernel says about hardware that comes and goes (NETLINK_KOBJECT_UEVENT).
import koffi from 'koffi';
import { readReports } from './pollable.ts';
import { unwrapCall } from './thread-calls.ts';

const AF_NETLINK = 16;
const SOCK_DGRAM = 2;
const NONBLOCK_CLOEXEC = 0o2004000;
const NETLINK_KOBJECT_UEVENT = 15;
/** The kernel's own messages; 2 would be udev's. */
const GROUP = 1;

const libc = koffi.load('libc.so.6');
const socketCall = libc.func('int socket(int domain, int type, int protocol)');
const bindCall = libc.func('int bind(int fd, void *address, uint length)');
const check = unwrapCall(koffi);

/** Calls `changed` for every device that came, went or changed. */
export function watchHardware(changed: () => void): { close(): void } {
  return watch(/^(add|remove|bind|unbind|change|move)@/, changed);
}

/** Calls `changed` for every processor that was switched on or off. */
export function watchProcessors(changed: () => void): { close(): void } {
  return watch(/^(online|offline)@.*\/system\/cpu\/cpu\d/, changed);
}

function watch(pattern: RegExp, changed: () => void): { close(): void } {
  const fd = check('socket', socketCall(AF_NETLINK, SOCK_DGRAM | NONBLOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT));
  const address = Buffer.alloc(12); // struct sockaddr_nl: family, padding, port (0: the kernel chooses), groups
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(GROUP, 8);
  check('bind', bindCall(fd, address, address.length));
  return readReports(fd, (data) => {
    if (pattern.test(data.toString('latin1', 0, 256))) changed();
  });
}
