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

export interface IdMapRequest {
  readonly config: ConfigMap;
  /** Expanded configurations of all other instances. */
  readonly others: () => readonly ConfigMap[];
}

/** null: privileged. `volatile.idmap.base` is kept when the instance has one. */
export function idMapFor(range: IdMapRange, { config, others }: IdMapRequest): IdMapRange | null {
  if (parseBoolean(config['security.privileged'])) return null;
  if (!parseBoolean(config['security.idmap.isolated'])) return range;
  const size = isolatedSize(config);
  const wanted = config['security.idmap.base'] ?? '';
  const known = config['volatile.idmap.base'] ?? '';
  if (wanted !== '') return piece(range, Number(wanted) - range.uidBase, size);
  if (known !== '' && known !== '0') return piece(range, Number(known) - range.uidBase, size);
  return piece(range, firstHole(range, size, others()), size);
}

function isolatedSize(config: ConfigMap): number {
  const size = config['security.idmap.size'] ?? '';
  return size === '' || size === 'auto' ? MIN_SIZE : Number(size);
}

function piece(range: IdMapRange, offset: number, size: number): IdMapRange {
  if (offset < 0 || offset + size > range.size) {
    throw new AppError('invalid', 'Not enough uid/gid available for the container');
  }
  return { uidBase: range.uidBase + offset, gidBase: range.gidBase + offset, size };
}

/** The first piece is everybody's: shared maps begin there. */
function firstHole(range: IdMapRange, size: number, others: readonly ConfigMap[]): number {
  const taken = others
    .filter((config) => parseBoolean(config['security.idmap.isolated']) && !parseBoolean(config['security.privileged']))
    .map((config) => ({ at: Number(config['volatile.idmap.base'] ?? 0) - range.uidBase, size: isolatedSize(config) }))
    .filter(({ at }) => at >= 0)
    .sort((left, right) => left.at - right.at);
  let offset = MIN_SIZE;
  for (const other of taken) {
    if (offset + size <= other.at) break;
    offset = Math.max(offset, other.at + other.size);
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
