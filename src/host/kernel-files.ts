// Small files of /proc and /sys: memory of the kernel, so read at once instead of over four turns of a thread pool.
import { readFileSync } from 'node:fs';

/** undefined when it is not there (any more), or cannot be read. Only for files whose reading never waits. */
export function readKernelFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
