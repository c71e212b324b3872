// A mark of the settings that a container was started with.
import { createHash } from 'node:crypto';
import type { Expanded } from './expansion.ts';

/** Of everything that a start reads; what only describes or is changed by the start itself does not count. */
export function startDigest({ config, devices }: Expanded): string {
  const counted = Object.entries(config).filter(([key]) => !/^(volatile|user|image|boot|snapshots)\./.test(key));
  const sorted = counted.sort(([left], [right]) => (left < right ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([sorted, devices]))
    .digest('hex');
}
