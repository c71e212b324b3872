// Which host ids a container's ids map to: the whole range of the host, or a piece of its own (lxd-engine-contract section 4.3).
import type { RuntimeIdMapEntry } from '#drivers/runtime/driver.ts';
import type { IdMapRange } from '#drivers/storage/driver.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap } from '../types.ts';
import { parseBoolean } from './values.ts';

const FALLBACK: IdMapRange = { uidBase: 1_000_000, gidBase: 1_000_000, size: 1_000_000_000 };
const MIN_SIZE = 65_536;

/** Root's share of /etc/subuid and /etc/subgid; LXD's own range when there is none. */
export async function hostIdRange(host: Host): Promise<IdMapRange> {
  const uid = rangeIn(await host.readFile('/etc/subuid').catch(() => ''));
  const gid = rangeIn(await host.readFile('/etc/subgid').catch(() => ''));
  if (!uid || !gid) return FALLBACK;
  return { uidBase: uid.base, gidBase: gid.base, size: Math.min(uid.size, gid.size) };
}

function rangeIn(text: string): { readonly base: number; readonly size: number } | undefined {
  return text
    .split('\n')
    .map((line) => line.trim().split(':'))
    .filter(([user]) => user === 'root' || user === '0')
    .map(([, base, size]) => ({ base: Number(base), size: Number(size) }))
    .find(({ base, size }) => Number.isSafeInteger(base) && size >= MIN_SIZE);
}

/** A stretch of the host's range: where it begins, counted from the range's begin, and how many ids it has. */
export interface IdPiece {
  readonly offset: number;
  readonly size: number;
}

export interface IdMapRequest {
  readonly config: ConfigMap;
  /** Expanded configurations of all other instances. */
  readonly others: () => readonly ConfigMap[];
  /** Of instances that have no record yet. */
  readonly claims?: readonly IdPiece[];
}

/**
 * null: privileged. An isolated instance keeps the piece at `volatile.idmap.base` as long as it is nobody else's.
 * `security.idmap.base` is taken at its word, as LXD takes it. AppError 'invalid' when the host has no such piece.
 */
export function idMapFor(range: IdMapRange, { config, others, claims = [] }: IdMapRequest): IdMapRange | null {
  if (parseBoolean(config['security.privileged'])) return null;
  if (!parseBoolean(config['security.idmap.isolated'])) return range;
  const size = isolatedSize(config);
  const wanted = config['security.idmap.base'] ?? '';
  if (wanted !== '') return rangeOf(range, { offset: Number(wanted) - range.uidBase, size });
  const taken = [...claims, ...others().flatMap((other) => piecesOf(range, other))];
  const known = { offset: Number(config['volatile.idmap.base'] ?? 0) - range.uidBase, size };
  return rangeOf(range, isUsable(range, known, taken) ? known : { offset: firstHole(size, taken), size });
}

/** The map's place in the host's range. */
export function pieceOf(range: IdMapRange, map: IdMapRange): IdPiece {
  return { offset: map.uidBase - range.uidBase, size: map.size };
}

/** volatile.idmap.base: LXD writes 0 for the shared map. */
export function idMapBase(config: ConfigMap, map: IdMapRange | null): string {
  return map !== null && parseBoolean(config['security.idmap.isolated']) ? String(map.uidBase) : '0';
}

function isolatedSize(config: ConfigMap): number {
  const text = config['security.idmap.size'] ?? '';
  const size = text === '' || text === 'auto' ? MIN_SIZE : Number(text);
  if (size === 0) throw new AppError('invalid', 'security.idmap.size must be at least 1');
  return size;
}

function rangeOf(range: IdMapRange, { offset, size }: IdPiece): IdMapRange {
  if (offset < 0 || offset + size > range.size) {
    throw new AppError('invalid', 'Not enough uid/gid available for the container');
  }
  return { uidBase: range.uidBase + offset, gidBase: range.gidBase + offset, size };
}

/** What an instance has of the range for itself: by its configuration, and while it runs by what it was started with. */
function piecesOf(range: IdMapRange, config: ConfigMap): readonly IdPiece[] {
  const runs = config['volatile.last_state.power'] === 'RUNNING';
  const running = runs ? idMapFromJson(config['volatile.idmap.current']) : null;
  const bases = [config['security.idmap.base'], config['volatile.idmap.base']].map((base) => Number(base ?? 0));
  const own = isIsolated(config) ? bases.filter((base) => base > 0) : [];
  const pieces = own.map((base) => ({ offset: base - range.uidBase, size: reservedSize(config) }));
  // A running one may have the whole range: that is the shared map, which is nobody's own.
  return running && running.size < range.size ? [...pieces, pieceOf(range, running)] : pieces;
}

function isIsolated(config: ConfigMap): boolean {
  return parseBoolean(config['security.idmap.isolated']) && !parseBoolean(config['security.privileged']);
}

/** Of another instance: one that cannot start for its size is no reason that this one cannot. */
function reservedSize(config: ConfigMap): number {
  return config['security.idmap.size'] === '0' ? 0 : isolatedSize(config);
}

function isUsable(range: IdMapRange, piece: IdPiece, taken: readonly IdPiece[]): boolean {
  const isInside = piece.offset >= MIN_SIZE && piece.offset + piece.size <= range.size;
  return isInside && taken.every((other) => !overlap(piece, other));
}

function overlap(one: IdPiece, other: IdPiece): boolean {
  return one.offset < other.offset + other.size && other.offset < one.offset + one.size;
}

/** The first piece is everybody's: shared maps begin there. */
function firstHole(size: number, taken: readonly IdPiece[]): number {
  let offset = MIN_SIZE;
  for (const other of taken.toSorted((left, right) => left.offset - right.offset)) {
    if (offset + size <= other.offset) break;
    offset = Math.max(offset, other.offset + other.size);
  }
  return offset;
}

export function idMapEntries(range: IdMapRange | null): readonly RuntimeIdMapEntry[] | null {
  if (range === null) return null;
  return [
    { kind: 'uid', containerId: 0, hostId: range.uidBase, size: range.size },
    { kind: 'gid', containerId: 0, hostId: range.gidBase, size: range.size },
  ];
}

/** volatile.idmap.current and .next. */
export function idMapJson(range: IdMapRange | null): string {
  if (range === null) return '[]';
  const entry = (isUid: boolean, base: number) => ({
    Isuid: isUid,
    Isgid: !isUid,
    Hostid: base,
    Nsid: 0,
    Maprange: range.size,
  });
  return JSON.stringify([entry(true, range.uidBase), entry(false, range.gidBase)]);
}

/** What idMapJson() wrote, or LXD. null: privileged, or nothing. AppError 'invalid' for what is no such text. */
export function idMapFromJson(text: string | undefined): IdMapRange | null {
  const entries = parsedEntries(text);
  const uid = entries.find(({ Isuid }) => Isuid);
  const gid = entries.find(({ Isuid }) => !Isuid);
  if (!uid || !gid) return null;
  return { uidBase: uid.Hostid, gidBase: gid.Hostid, size: Math.min(uid.Maprange, gid.Maprange) };
}

interface JsonEntry {
  readonly Isuid: boolean;
  readonly Hostid: number;
  readonly Maprange: number;
}

function parsedEntries(text = ''): readonly JsonEntry[] {
  if (text === '') return [];
  try {
    const entries = JSON.parse(text) as readonly Partial<JsonEntry>[] | null;
    return (entries ?? []).map(({ Isuid = false, Hostid = 0, Maprange = 0 }) => {
      if (Number.isSafeInteger(Hostid) && Number.isSafeInteger(Maprange)) return { Isuid, Hostid, Maprange };
      throw new AppError('invalid', 'Its numbers are none');
    });
  } catch (cause) {
    throw new AppError('invalid', `Invalid id map "${text}"`, { cause });
  }
}
