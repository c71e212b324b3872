// Paths by open descriptors, which lead to what was looked at, and how files are opened by them.
import { constants } from 'node:fs';
import type { Ownership } from './attributes.ts';

/** Never waits for what is not there yet (a lease, a reader): only regular files are opened anyway. */
export const CAREFUL = constants.O_NONBLOCK | constants.O_NOCTTY;

export interface FileAccess {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly append?: boolean;
  readonly truncate?: boolean;
  /** Made with this when it is not there; absent: it must be there. */
  readonly create?: Ownership;
  /** It must not be there. */
  readonly exclusive?: boolean;
}

/** The very file that is open, whatever its name leads to by now. */
export function itself(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

export function inside(directory: number, name: string): string {
  return `/proc/self/fd/${directory}/${name}`;
}

export function flagsOf({ read = false, write = false, append = false, truncate = false }: FileAccess): number {
  const mode = write ? (read ? constants.O_RDWR : constants.O_WRONLY) : constants.O_RDONLY;
  return mode | CAREFUL | (append ? constants.O_APPEND : 0) | (truncate ? constants.O_TRUNC : 0);
}
