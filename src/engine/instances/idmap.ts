// Which host ids a container's ids map to: the whole range of the host, or a piece of its own (lxd-engine-contract section 4.3).
import type { RuntimeIdMapEntry } from '#drivers/runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import { idMapOf, type IdMapRange, type IdRange, rangesOf } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import type { ConfigMap } from '../types.ts';
import { parseRawIdMap, rangesIn, withRawIdMap } from './raw-idmap.ts';
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
  const found = rangesIn(text).find(({ count }) => count >= MIN_SIZE);
  return found && { base: found.base, size: found.count };
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
 * `security.idmap.base` is taken at its word, as LXD takes it. AppError 'invalid' when the host has no such piece, and when raw.idmap
 * gives a host id a second time.
 */
export function idMapFor(range: IdMapRange, { config, others, claims = [] }: IdMapRequest): InstanceIdMap | null {
  if (parseBoolean(config['security.privileged'])) return null;
  const raw = rawIdMap(config);
  if (!parseBoolean(config['security.idmap.isolated'])) return { piece: null, map: withRawIdMap(range, raw) };
  const piece = isolatedPiece(range, { config, others, claims }, raw);
  return { piece, map: withRawIdMap(rangeOf(range, piece), raw) };
}

export interface InstanceIdMap {
  /** Its own part of the host's range; null: it has the same as everybody. */
  readonly piece: IdPiece | null;
  /** The whole, with raw.idmap. */
  readonly map: IdMapRange;
}

export function rawIdMap(config: ConfigMap): readonly IdRange[] {
  return parseRawIdMap(config['raw.idmap'] ?? '');
}

function isolatedPiece(
  range: IdMapRange,
  { config, others, claims = [] }: IdMapRequest,
  raw: readonly IdRange[],
): IdPiece {
  const size = isolatedSize(config);
  const wanted = config['security.idmap.base'] ?? '';
  if (wanted !== '') return { offset: Number(wanted) - range.uidBase, size };
  const taken = [...claims, ...others().flatMap((other) => piecesOf(range, other)), ...hostPieces(range, raw)];
  const known = { offset: Number(config['volatile.idmap.base'] ?? 0) - range.uidBase, size };
  return isUsable(range, known, taken) ? known : { offset: firstHole(size, taken), size };
}

/** volatile.idmap.base: LXD writes 0 for the shared map. */
export function idMapBase(range: IdMapRange, ids: InstanceIdMap | null): string {
  return ids?.piece ? String(range.uidBase + ids.piece.offset) : '0';
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
  // A running one may have the whole range: that is the shared map, which is nobody's own.
  const current = running && !isShared(range, running) ? hostPieces(range, rangesOf(running)) : [];
  if (!isIsolated(config)) return current;
  const bases = [config['security.idmap.base'], config['volatile.idmap.base']].map((base) => Number(base ?? 0));
  const own = bases.filter((base) => base > 0);
  const pieces = own.map((base) => ({ offset: base - range.uidBase, size: reservedSize(config) }));
  return [...pieces, ...hostPieces(range, rawIdMap(config)), ...current];
}

/** The shared map has all of the range, whatever raw.idmap has put in the place of some of it. */
function isShared(range: IdMapRange, map: IdMapRange): boolean {
  const users = rangesOf(map).filter(({ kind }) => kind === 'uid');
  return users.reduce((sum, { size }) => sum + size, 0) >= range.size;
}

/** Users and groups lie in their ranges alike: what is taken of the one is taken of the other. */
function hostPieces(range: IdMapRange, ranges: readonly IdRange[]): readonly IdPiece[] {
  const base = { uid: range.uidBase, gid: range.gidBase };
  return ranges.map(({ kind, hostId, size }) => ({ offset: hostId - base[kind], size }));
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

export function idMapEntries(map: IdMapRange | null): readonly RuntimeIdMapEntry[] | null {
  return map && rangesOf(map);
}

/** volatile.idmap.current and .next. */
export function idMapJson(map: IdMapRange | null): string {
  const ranges = map ? rangesOf(map) : [];
  const entries = ranges.map(({ kind, containerId, hostId, size }) => {
    return { Isuid: kind === 'uid', Isgid: kind === 'gid', Hostid: hostId, Nsid: containerId, Maprange: size };
  });
  return JSON.stringify(entries);
}

/** What idMapJson() wrote, or LXD. null: privileged, or nothing. AppError 'invalid' for what is no such text. */
export function idMapFromJson(text: string | undefined = ''): IdMapRange | null {
  if (text === '') return null;
  try {
    const entries = (JSON.parse(text) as readonly JsonEntry[] | null) ?? [];
    return entries.length === 0 ? null : idMapOf(entries.flatMap(rangesOfEntry));
  } catch (cause) {
    throw new AppError('invalid', `Invalid id map "${text}"`, { cause });
  }
}

interface JsonEntry {
  readonly Isuid?: boolean;
  readonly Isgid?: boolean;
  readonly Hostid?: number;
  readonly Nsid?: number;
  readonly Maprange?: number;
}

/** LXD writes one entry for `both`. */
function rangesOfEntry({ Isuid, Isgid, Hostid = 0, Nsid = 0, Maprange = 0 }: JsonEntry): readonly IdRange[] {
  if (![Hostid, Nsid, Maprange].every(Number.isSafeInteger)) throw new AppError('invalid', 'Its numbers are none');
  const kinds = [...(Isuid === true ? (['uid'] as const) : []), ...(Isgid === true ? (['gid'] as const) : [])];
  return kinds.map((kind) => ({ kind, containerId: Nsid, hostId: Hostid, size: Maprange }));
}
