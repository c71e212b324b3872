// Whether a process still is there, and the same: what it held is let go of only when it has ended.
import { readKernelFile } from './kernel-files.ts';

export interface ProcessLife {
  readonly pid: number;
  /** Clock ticks since boot: a number that is used again belongs to a later process. */
  readonly startTime: string;
}

/** Undefined for one that has ended. One that is ending has no command line any more, but still its sockets. */
export function processLife(pid: number): ProcessLife | undefined {
  const stat = readKernelFile(`/proc/${pid}/stat`);
  // field 2, the command, may hold spaces and parentheses
  const [state, ...fields] = stat?.slice(stat.lastIndexOf(')') + 2).split(' ') ?? [];
  const startTime = fields[18];
  return state === undefined || startTime === undefined || 'ZX'.includes(state) ? undefined : { pid, startTime };
}

export function isStillThere({ pid, startTime }: ProcessLife): boolean {
  return processLife(pid)?.startTime === startTime;
}
