// Progress of transfers in the metadata of an operation, as clients print it.
import type { OperationHandle } from '../types.ts';

const EVERY_MS = 1000;

/** Told of all bytes so far; publishes at most once a second. */
export function progressOf(operation: OperationHandle, what: string): (bytes: number) => void {
  const begun = Date.now();
  let last = begun;
  return (bytes) => {
    const now = Date.now();
    if (now - last < EVERY_MS) return;
    last = now;
    const speed = bytes / Math.max(1, (now - begun) / 1000);
    operation.setMetadata({ fs_progress: `${what}: ${megabytes(bytes)} (${megabytes(speed)}/s)` });
  };
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(2)}MB`;
}
