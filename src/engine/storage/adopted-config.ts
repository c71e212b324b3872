// The configuration of a pool that is taken over without its row.
import { parseSize } from '../instances/values.ts';
import type { ConfigMap } from '../types.ts';

/** What a driver notes of the source that a pool was made with; a later one says nothing of that. */
const INITIAL = 'volatile.initial_source';

export interface KnownOfPool {
  /** How it was when somebody wrote it down; undefined: nobody did. */
  readonly noted: ConfigMap | undefined;
  /** What the caller says; counts before what was noted. */
  readonly said: ConfigMap;
  /** What the driver sees; counts before all. */
  readonly seen: ConfigMap;
}

/** As it was: a size is told in the words that it had, as long as it still is that size. */
export function adoptedConfig({ noted, said, seen }: KnownOfPool): ConfigMap {
  if (!noted) return { ...said, ...seen };
  const { [INITIAL]: _now, ...lasting } = seen;
  const { size } = noted;
  const kept = size !== undefined && isSize(size, seen['size']) ? { size } : {};
  return { ...noted, ...said, ...lasting, ...kept };
}

function isSize(text: string, seen: string | undefined): boolean {
  try {
    return seen !== undefined && parseSize(text) === parseSize(seen);
  } catch {
    return false; // what was noted is no size: what is seen counts
  }
}
