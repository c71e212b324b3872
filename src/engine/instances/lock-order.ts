// Several locks at once, always in the same order: two operations that cross each other must not wait for one another.
import type { KeyedLock } from '#src/lib/keyed-lock.ts';

export async function inOrder(
  locks: KeyedLock,
  keys: readonly string[],
  work: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const [first, ...rest] = [...new Set(keys)].sort();
  if (first === undefined) return work();
  await locks.run(first, () => inOrder(locks, rest, work, signal), signal);
}
