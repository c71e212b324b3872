// The ids of one container on the host: which host ids its own are.
import { AppError } from '#src/lib/errors.ts';

/** One range of a map. */
export interface IdRange {
  readonly kind: 'uid' | 'gid';
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

/** Host ids that the container's ids map to: 0…size-1 to those that begin at the bases, unless `ranges` says it piece by piece. */
export interface IdMapRange {
  /** What the container's root is on the host. */
  readonly uidBase: number;
  readonly gidBase: number;
  /** No id of the container is as high as this. */
  readonly size: number;
  /** All of a map that is not one range (raw.idmap): users first, each kind in the order of the container's ids. */
  readonly ranges?: readonly IdRange[];
}

/** Ids that nobody has: far above every range that useradd or systemd hands out. What runs with them owns nothing on this host. */
export const NOBODYS_IDS: IdMapRange = { uidBase: 2_147_483_648, gidBase: 2_147_483_648, size: 1_000_000_000 };

/** The map that consists of these. AppError 'invalid' when they leave the container's root without a user or a group. */
export function idMapOf(ranges: readonly IdRange[]): IdMapRange {
  const sorted = ranges.toSorted(byKindAndId);
  const root = (wanted: IdRange['kind']) => {
    const range = sorted.find(({ kind, containerId }) => kind === wanted && containerId === 0);
    if (range) return range;
    throw new AppError('invalid', `The id map has no ${wanted} for the root of the container`);
  };
  const [user, group] = [root('uid'), root('gid')];
  const size = Math.max(...sorted.map((range) => range.containerId + range.size));
  const simple = { uidBase: user.hostId, gidBase: group.hostId, size };
  const isSimple = sorted.length === 2 && sorted.every((range) => range.size === size);
  return isSimple ? simple : { ...simple, ranges: sorted };
}

function byKindAndId(left: IdRange, right: IdRange): number {
  if (left.kind !== right.kind) return left.kind === 'uid' ? -1 : 1;
  return left.containerId - right.containerId;
}

/** The map, range by range. */
export function rangesOf({ uidBase, gidBase, size, ranges }: IdMapRange): readonly IdRange[] {
  return (
    ranges ?? [
      { kind: 'uid', containerId: 0, hostId: uidBase, size },
      { kind: 'gid', containerId: 0, hostId: gidBase, size },
    ]
  );
}

/** What an id of the container is on the host; undefined: nothing. */
export function toHost(map: IdMapRange, kind: IdRange['kind'], id: number): number | undefined {
  for (const range of rangesOf(map)) {
    const at = id - range.containerId;
    if (range.kind === kind && at >= 0 && at < range.size) return range.hostId + at;
  }
  return undefined;
}

/** What an id of the host is in the container; undefined: nothing. */
export function toContainer(map: IdMapRange, kind: IdRange['kind'], id: number): number | undefined {
  for (const range of rangesOf(map)) {
    const at = id - range.hostId;
    if (range.kind === kind && at >= 0 && at < range.size) return range.containerId + at;
  }
  return undefined;
}

/** What an owner in the container is on the host. AppError 'invalid' for one that it cannot have. */
export function hostIds(
  { uid, gid }: { uid: number; gid: number },
  map: IdMapRange | null,
): { uid: number; gid: number } {
  if (map === null) return { uid, gid };
  const ids = { uid: toHost(map, 'uid', uid), gid: toHost(map, 'gid', gid) };
  if (ids.uid === undefined || ids.gid === undefined)
    throw new AppError('invalid', 'The uid or gid has no meaning in the instance');
  return { uid: ids.uid, gid: ids.gid };
}

const LETTER = { uid: 'u', gid: 'g' } as const;

/** A short text that is the same for the same map: usable in file names and as a key. */
export function idMapKey(map: IdMapRange | null): string {
  if (!map) return 'host';
  const ranges = (map.ranges ?? []).map((range) => {
    return `.${LETTER[range.kind]}${range.containerId}-${range.hostId}-${range.size}`;
  });
  return `${map.uidBase}-${map.gidBase}-${map.size}${ranges.join('')}`;
}

export function sameIdMap(one: IdMapRange | null, other: IdMapRange | null): boolean {
  return idMapKey(one) === idMapKey(other);
}

/** What idMapKey() made of a map. */
export function parseIdMapKey(key: string): IdMapRange | null {
  const [whole = '', ...pieces] = key.split('.');
  const [uidBase, gidBase, size] = whole.split('-').map(Number);
  if (uidBase === undefined || gidBase === undefined || size === undefined) return null;
  if (pieces.length === 0) return { uidBase, gidBase, size };
  return idMapOf(pieces.map(parsePiece));
}

/** As many pieces as a map may have lines, for users and for groups. */
const KEY = /^(?:host|\d{1,10}-\d{1,10}-\d{1,10}(?:\.[ug]\d{1,10}-\d{1,10}-\d{1,10}){0,1000})$/u;

/** The same for a key that a stranger sent. AppError 'invalid' when it is none. */
export function readIdMapKey(key: string): IdMapRange | null {
  if (!KEY.test(key)) throw new AppError('invalid', 'What should be an id map is none');
  return parseIdMapKey(key);
}

function parsePiece(text: string): IdRange {
  const [containerId = 0, hostId = 0, size = 0] = text.slice(1).split('-').map(Number);
  return { kind: text.startsWith('u') ? 'uid' : 'gid', containerId, hostId, size };
}

/** The lines of /proc/PID/uid_map or gid_map. */
export function mapLines(map: IdMapRange, wanted: IdRange['kind']): string {
  const lines = rangesOf(map).filter(({ kind }) => kind === wanted);
  return lines.map(({ containerId, hostId, size }) => `${containerId} ${hostId} ${size}\n`).join('');
}
