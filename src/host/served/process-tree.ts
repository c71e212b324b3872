// The programs that a process has started: what runs in a jail does not get the signals that the jail's own process gets.
import { readKernelFile } from '../kernel-files.ts';

/** Signals the youngest generation; those before end with it. */
export function endTree(pid: number, signal: NodeJS.Signals): void {
  const children = childrenOf(pid);
  if (children.length === 0) send(pid, signal);
  for (const child of children) endTree(child, signal);
}

function childrenOf(pid: number): readonly number[] {
  const text = readKernelFile(`/proc/${pid}/task/${pid}/children`) ?? '';
  return text.split(' ').filter(Boolean).map(Number);
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
