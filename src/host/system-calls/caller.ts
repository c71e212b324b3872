// The thread whose system call is held: what it may do, by what /proc says of it. Nothing that it could change is believed: it waits.
import { closeSync, constants, openSync, readFileSync, readSync, statSync } from 'node:fs';

const O_PATH = 0o10000000;
const PAGE = 4096;

export interface Rights {
  /** As this host sees them. */
  readonly uid: number;
  readonly gid: number;
  readonly umask: number;
  /** CapEff. */
  readonly capabilities: bigint;
}

/** An id map as this host sees it. */
export type IdRanges = readonly { readonly first: number; readonly size: number }[];

/** By what liblxc's monitor has opened of it: /proc/PID, which stays that process's, and its memory. */
export interface Caller {
  readonly directory: string;
  readonly memory: number;
}

export const callerOf = (processFd: number, memory: number): Caller => ({
  directory: `/proc/self/fd/${processFd}`,
  memory,
});

/** Ids are those of file access. Error when it is gone. */
export function rightsOf({ directory }: Caller): Rights {
  return parseRights(readFileSync(`${directory}/status`, 'latin1'));
}

export function parseRights(status: string): Rights {
  const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'mu').exec(status)?.[1] ?? '';
  const fileId = (name: string) => Number(field(name).split(/\s+/u)[3] ?? Number.NaN);
  return {
    uid: fileId('Uid'),
    gid: fileId('Gid'),
    umask: Number.parseInt(field('Umask') || '22', 8),
    capabilities: BigInt(`0x${field('CapEff') || '0'}`),
  };
}

/** Its capabilities mean something in the container only when it is in the container's own user namespace. */
export function isOfContainer({ directory }: Caller, initPid: number): boolean {
  const [own, init] = [statSync(`${directory}/ns/user`), statSync(`/proc/${initPid}/ns/user`)];
  return own.ino === init.ino && own.dev === init.dev;
}

export function idRanges(initPid: number, kind: 'uid' | 'gid'): IdRanges {
  return parseRanges(readFileSync(`/proc/${initPid}/${kind}_map`, 'latin1'));
}

export function parseRanges(map: string): IdRanges {
  return map
    .split('\n')
    .map((line) => line.trim().split(/\s+/u).map(Number))
    .flatMap(([, first, size]) => (first === undefined || size === undefined ? [] : [{ first, size }]));
}

export function covers(ranges: IdRanges, id: number): boolean {
  return ranges.some(({ first, size }) => id >= first && id < first + size);
}

/** Its mount namespace. This and the next are descriptors, to be closed. */
export function openNamespace({ directory }: Caller): number {
  return openSync(`${directory}/ns/mnt`, constants.O_RDONLY);
}

/** A directory of it: `root`, `cwd`, or what it has open as `fd/N`. */
export function openPlace({ directory }: Caller, name: string): number {
  return openSync(`${directory}/${name}`, O_PATH | constants.O_DIRECTORY);
}

/** The bytes of a C string in its memory, without the end; undefined when it is `limit` or longer, or not there. */
export function readText(caller: Caller, pointer: bigint, limit: number): Buffer | undefined {
  const parts: Buffer[] = [];
  for (let read = 0; read < limit; ) {
    const at = pointer + BigInt(read);
    // no further than the page: the next one may not be there
    const part = readBytes(caller, at, Math.min(PAGE - Number(at % BigInt(PAGE)), limit - read));
    if (part === undefined) return undefined;
    const end = part.indexOf(0);
    parts.push(end === -1 ? part : part.subarray(0, end));
    if (end !== -1) return Buffer.concat(parts);
    read += part.length;
  }
  return undefined;
}

/** Undefined where not all of it is mapped: the kernel says so to the caller. */
export function readBytes({ memory }: Caller, pointer: bigint, length: number): Buffer | undefined {
  if (pointer > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  const bytes = Buffer.alloc(length);
  try {
    return readSync(memory, bytes, 0, length, Number(pointer)) === length ? bytes : undefined;
  } catch {
    return undefined;
  }
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd);
}
