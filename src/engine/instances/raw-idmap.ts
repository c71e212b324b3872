// raw.idmap: host ids that an instance is given one by one or in ranges, in the place of its own (lxd-engine-contract section 4.3).
import type { Host } from '#src/host/host.ts';
import { idMapOf, type IdMapRange, type IdRange, rangesOf } from '#src/host/id-map.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';
import { AppError } from '#src/lib/errors.ts';

/** Both kernel and newuidmap read a map from one page. */
const MAX_LINES = 100;
const MAX_ID = 2 ** 32 - 2;
const KINDS = { both: ['uid', 'gid'], uid: ['uid'], gid: ['gid'] } as const;

/** Lines `both|uid|gid HOST[-HOST] CONTAINER[-CONTAINER]`. AppError 'invalid' for what is none, and for a host id that is given twice. */
export function parseRawIdMap(text: string): readonly IdRange[] {
  const lines = text.split('\n').filter((line) => line !== '');
  if (lines.length > MAX_LINES) throw new AppError('invalid', `raw.idmap has more than ${MAX_LINES} lines`);
  return lines.flatMap(parseLine).reduce<readonly IdRange[]>(withRange, []);
}

function parseLine(line: string): readonly IdRange[] {
  const [type = '', outside = '', inside = '', ...rest] = line.split(' ');
  if (inside === '' || rest.length > 0) throw new AppError('invalid', `Invalid ID map line "${line}"`);
  const host = parseRange(outside);
  const container = parseRange(inside);
  if (host.size !== container.size) {
    throw new AppError('invalid', `The ID map ranges are of different sizes "${line}"`);
  }
  if (!Object.hasOwn(KINDS, type)) throw new AppError('invalid', `Invalid ID map type "${line}"`);
  const range = { containerId: container.first, hostId: host.first, size: host.size };
  return KINDS[type as keyof typeof KINDS].map((kind) => ({ kind, ...range }));
}

function parseRange(text: string): { readonly first: number; readonly size: number } {
  const [, from = '', to = from] = /^(\d{1,10})(?:-(\d{1,10}))?$/u.exec(text) ?? [];
  const [first, last] = [Number(from), Number(to)];
  if (from === '' || last < first || last > MAX_ID) throw new AppError('invalid', `Invalid ID Map range "${text}"`);
  return { first, size: last - first + 1 };
}

/** The map with what raw.idmap says in the place of what it had there. AppError 'invalid' when that gives a host id twice. */
export function withRawIdMap(map: IdMapRange, raw: readonly IdRange[]): IdMapRange {
  return raw.length === 0 ? map : idMapOf(raw.reduce(withRange, rangesOf(map)));
}

function withRange(ranges: readonly IdRange[], added: IdRange): readonly IdRange[] {
  const end = added.containerId + added.size;
  const rest = ranges.flatMap((range) => {
    if (range.kind !== added.kind) return [range];
    const rangeEnd = range.containerId + range.size;
    const meetsOnHost = range.hostId < added.hostId + added.size && added.hostId < range.hostId + range.size;
    if (meetsOnHost) throw new AppError('invalid', 'Host id is in the range of subids');
    const part = (from: number, to: number): readonly IdRange[] => {
      const hostId = range.hostId + from - range.containerId;
      return to > from ? [{ ...range, containerId: from, hostId, size: to - from }] : [];
    };
    return [
      ...part(range.containerId, Math.min(rangeEnd, added.containerId)),
      ...part(Math.max(range.containerId, end), rangeEnd),
    ];
  });
  return [...rest, added];
}

/**
 * What root may give away: its ranges in /etc/subuid and /etc/subgid, which liblxc holds to unless the map has the host's root in it,
 * or where there is no newuidmap to ask. AppError 'invalid' for ids that are in none.
 */
export async function checkAllowed(host: Host, raw: readonly IdRange[]): Promise<void> {
  if (raw.length === 0 || raw.some(({ hostId }) => hostId === 0)) return;
  const allowed = {
    uid: rangesIn((await readIfPresent(host, '/etc/subuid')) ?? ''),
    gid: rangesIn((await readIfPresent(host, '/etc/subgid')) ?? ''),
  };
  if (allowed.uid.length === 0 && allowed.gid.length === 0) return;
  for (const { kind, hostId, containerId, size } of raw) {
    const isAllowed = allowed[kind].some(({ base, count }) => hostId >= base && hostId + size <= base + count);
    if (isAllowed) continue;
    const [file, ids] = [`/etc/sub${kind}`, `[${hostId}-${hostId + size})`];
    const text = `new${kind}map: ${kind} range [${containerId}-${containerId + size}) -> ${ids} not allowed`;
    throw new AppError('invalid', `${text} (a line "root:${hostId}:${size}" in ${file} allows it)`);
  }
}

export interface SubIds {
  readonly base: number;
  readonly count: number;
}

/** Root's ranges of one of the two files. */
export function rangesIn(text: string): readonly SubIds[] {
  return text
    .split('\n')
    .map((line) => line.trim().split(':'))
    .filter(([user]) => user === 'root' || user === '0')
    .map(([, base, count]) => ({ base: Number(base), count: Number(count) }))
    .filter(({ base, count }) => Number.isSafeInteger(base) && count > 0);
}
