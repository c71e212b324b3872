// A daemon among guests that take all processors: its requests would wait for its turn, one in as many as there are guests that run.
// Only the daemon itself is preferred: what it starts, guests above all, is not.
import { getPriority, setPriority } from 'node:os';

/** Nine times the weight of a process of nice 0. */
const RAISED = -10;

let normal: number | undefined;

/**
 * Once, before the first file is read: of this thread, and of the pool's threads that it makes later. False when it may not, or has
 * such a priority already.
 */
export function raisePriority(): boolean {
  const before = getPriority();
  if (before <= RAISED) return false;
  try {
    setPriority(RAISED);
  } catch {
    return false; // EPERM or EACCES: not root's daemon, or a container without CAP_SYS_NICE
  }
  normal = before;
  return true;
}

/** For what starts a process or a thread, which take the priority of who makes them; `start` does not wait. */
export function atNormalPriority<T>(start: () => T): T {
  if (normal === undefined) return start();
  setPriority(normal);
  try {
    return start();
  } finally {
    setPriority(RAISED);
  }
}
