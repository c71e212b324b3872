// What a held system call wants, and whether that is anything that may be done for a container.
import type { Notification } from './notification.ts';

/** Pointers are into the memory of the thread that waits. */
export type Request =
  | {
      readonly kind: 'mknod';
      readonly directory: number;
      readonly path: bigint;
      readonly mode: number;
      readonly device: number;
    }
  | {
      readonly kind: 'setxattr';
      readonly path: bigint;
      readonly name: bigint;
      readonly value: bigint;
      readonly flags: number;
      readonly follow: boolean;
    };

type Name = 'mknod' | 'mknodat' | 'setxattr' | 'lsetxattr';

/** "Relative to the working directory". */
export const AT_FDCWD = -100;
const S_IFMT = 0o170000;
const S_IFCHR = 0o020000;
/** The x32 calls have the numbers of the others and this bit. */
const X32 = 0x40000000;

/** AUDIT_ARCH_… → the numbers of the calls there (asm/unistd.h of each). */
const NUMBERS: Readonly<Record<number, Readonly<Record<number, Name>>>> = {
  0xc000003e: { 133: 'mknod', 259: 'mknodat', 188: 'setxattr', 189: 'lsetxattr' }, // x86_64
  0x40000003: { 14: 'mknod', 297: 'mknodat', 226: 'setxattr', 227: 'lsetxattr' }, // i386
  0xc00000b7: { 33: 'mknodat', 5: 'setxattr', 6: 'lsetxattr' }, // aarch64
  0x40000028: { 14: 'mknod', 324: 'mknodat', 226: 'setxattr', 227: 'lsetxattr' }, // arm
};

/**
 * Devices by which nobody reaches anything of the host: LXD's list (lxd-engine-contract section 4.4) without 5:1, the console, which
 * would be the host's. The number is what mknod(2) takes.
 */
const HARMLESS = new Set([
  0x000, // 0:0, what an overlay file system takes for a removed file
  0x103, // null
  0x105, // zero
  0x107, // full
  0x108, // random
  0x109, // urandom
  0x500, // tty: of whoever opens it
]);
/** The path of the same device on this host; the mark of an overlay has none. */
export const HOST_DEVICES: ReadonlyMap<number, string> = new Map([
  [0x103, '/dev/null'],
  [0x105, '/dev/zero'],
  [0x107, '/dev/full'],
  [0x108, '/dev/random'],
  [0x109, '/dev/urandom'],
  [0x500, '/dev/tty'],
]);

/** The one attribute that may be set, and its value: what an overlay file system takes for a directory that hides those below it. */
export const OPAQUE = { name: 'trusted.overlay.opaque', value: 'y' } as const;

type Arguments = readonly [bigint, bigint, bigint, bigint, bigint];

const READ: Readonly<Record<Name, (args: Arguments) => Request>> = {
  mknod: ([path, mode, device]) => ({ kind: 'mknod', directory: AT_FDCWD, path, mode: int(mode), device: int(device) }),
  mknodat: ([directory, path, mode, device]) => ({
    kind: 'mknod',
    directory: int(directory),
    path,
    mode: int(mode),
    device: int(device),
  }),
  setxattr: ([path, name, value, , flags]) => ({
    kind: 'setxattr',
    path,
    name,
    value,
    flags: int(flags),
    follow: true,
  }),
  lsetxattr: ([path, name, value, , flags]) => ({
    kind: 'setxattr',
    path,
    name,
    value,
    flags: int(flags),
    follow: false,
  }),
};

/** undefined: the kernel itself is to say what comes of it. */
export function requestOf({ architecture, number, arguments: args }: Notification): Request | undefined {
  const name = NUMBERS[architecture]?.[number & ~X32];
  if (name === undefined) return undefined;
  const [a = 0n, b = 0n, c = 0n, d = 0n, e = 0n] = args;
  const request = READ[name]([a, b, c, d, e]);
  return request.kind === 'mknod' && !isHarmless(request) ? undefined : request;
}

function isHarmless({ mode, device }: Extract<Request, { kind: 'mknod' }>): boolean {
  return (mode & S_IFMT) === S_IFCHR && HARMLESS.has(device);
}

/** The kernel looks at the lower half of an argument that is an int. */
function int(argument: bigint): number {
  return Number(BigInt.asIntN(32, argument));
}
