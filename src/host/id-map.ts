// The ids of one container on the host: which range of host ids its ids 0…size-1 are.

/** Host ids that the container's ids map to. */
export interface IdMapRange {
  readonly uidBase: number;
  readonly gidBase: number;
  readonly size: number;
}

/** Ids that nobody has: far above every range that useradd or systemd hands out. What runs with them owns nothing on this host. */
export const NOBODYS_IDS: IdMapRange = { uidBase: 2_147_483_648, gidBase: 2_147_483_648, size: 1_000_000_000 };

/** A short text that is the same for the same map: usable in file names and as a key. */
export function idMapKey(map: IdMapRange | null): string {
  return map ? `${map.uidBase}-${map.gidBase}-${map.size}` : 'host';
}

export function sameIdMap(one: IdMapRange | null, other: IdMapRange | null): boolean {
  return idMapKey(one) === idMapKey(other);
}

/** What idMapKey() made of a map. */
export function parseIdMapKey(key: string): IdMapRange | null {
  const [uidBase, gidBase, size] = key.split('-').map(Number);
  return uidBase === undefined || gidBase === undefined || size === undefined ? null : { uidBase, gidBase, size };
}
