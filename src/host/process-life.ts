// Whether a process still is there, and the same: what it held is let go of only when it has ended.
import { readKernelFile } from './kernel-files.ts';

export interface ProcessLife {
  readonly pid: number;
  /** Clock ticks since boot: a number that is used again belongs to a later process. */
  readonly startTime: string;
}

/** Undefined for one that has ended. One that is ending has no command line any more, but still its sockets. */
export function processLife(pid: number): ProcessLife | undefined {
  const [state, startTime] = statOf(pid, [3, 22]);
  return state === undefined || startTime === undefined || 'ZX'.includes(state) ? undefined : { pid, startTime };
}

export function isStillThere({ pid, startTime }: ProcessLife): boolean {
  return processLife(pid)?.startTime === startTime;
}

/**
 * Empty for what has ended, and for what may not be looked at. 'not yet': it is in the middle of execve(2), has the new program, and no
 * environment to be known by.
 */
export function environmentOf(pid: number): readonly string[] | 'not yet' {
  const path = `/proc/${pid}/environ`;
  const environment = readKernelFile(path) ?? '\0';
  if (environment !== '') return environment.split('\0');
  const [memorySize, end] = statOf(pid, [23, 51]);
  if (memorySize === undefined || memorySize === '0') return [];
  return end === '0' ? 'not yet' : (readKernelFile(path) ?? '').split('\0');
}

/** Fields of proc(5), by their numbers there: from the third on. */
function statOf(pid: number, fields: readonly number[]): readonly (string | undefined)[] {
  const stat = readKernelFile(`/proc/${pid}/stat`);
  // field 2, the command, may hold spaces and parentheses
  const values = stat?.slice(stat.lastIndexOf(')') + 2).split(' ') ?? [];
  return fields.map((field) => values[field - 3]);
}
