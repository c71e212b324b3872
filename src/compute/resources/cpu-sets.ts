// [compute] cpu_dedicated_set and cpu_shared_set: which processors of the host are given to one guest each, and which to all others.
import { AppError } from '#src/lib/errors.ts';
import type { HostFacts } from '#drivers/virt/driver.ts';

export interface CpuSets {
  /** null: no guest gets processors of its own. */
  readonly dedicated: readonly number[] | null;
  /** null: all that are not dedicated, unless there are dedicated ones: then none. */
  readonly shared: readonly number[] | null;
}

const PART = /^(?<not>\^?)(?<first>\d{1,5})(?:-(?<last>\d{1,5}))?$/;

/** `0-5,^3,8`; undefined when it is no list of processors, or an empty one. */
export function parseCpuSet(text: string): readonly number[] | undefined {
  const parts = text.split(',').map((part) => partOf(part.trim()));
  if (parts.includes(undefined)) return undefined;
  const idsOf = (isIn: boolean) => parts.flatMap((part) => (part?.isIn === isIn ? part.ids : []));
  const unwanted = new Set(idsOf(false));
  const ids = [...new Set(idsOf(true))].filter((id) => !unwanted.has(id));
  return ids.length > 0 ? ids.toSorted((left, right) => left - right) : undefined;
}

function partOf(text: string): { readonly isIn: boolean; readonly ids: readonly number[] } | undefined {
  const { not, first, last = first } = PART.exec(text)?.groups ?? {};
  const count = Number(last) - Number(first) + 1;
  const isIn = not !== '^';
  if (first === undefined || count < 1 || (!isIn && count > 1)) return undefined;
  return { isIn, ids: Array.from({ length: count }, (_id, index) => Number(first) + index) };
}

/** Throws AppError 'invalid' for processors that the host has not, or that are in both sets. */
export function checkCpuSets({ dedicated, shared }: CpuSets, { cpus }: Pick<HostFacts, 'cpus'>): void {
  const online = new Set(cpus.map(({ id }) => id));
  const sets = { cpu_dedicated_set: dedicated ?? [], cpu_shared_set: shared ?? [] };
  for (const [name, ids] of Object.entries(sets)) {
    const missing = ids.filter((id) => !online.has(id));
    if (missing.length > 0)
      throw new AppError('invalid', `${name} of [compute]: this host has no CPU ${missing.join(', ')}`);
  }
  const both = (shared ?? []).filter((id) => dedicated?.includes(id) === true);
  if (both.length === 0) return;
  throw new AppError('invalid', `cpu_dedicated_set and cpu_shared_set of [compute] both have CPU ${both.join(', ')}`);
}

/** What guests without processors of their own run on. */
export function sharedCpus({ dedicated, shared }: CpuSets, { cpus }: Pick<HostFacts, 'cpus'>): readonly number[] {
  if (shared !== null) return shared;
  return dedicated === null ? cpus.map(({ id }) => id) : [];
}

/**
 * As many of the shared ones as a guest may use at once; null: whichever the engine thinks best. The same ones for the same guest, and
 * others for others, so that they are used alike without anybody keeping count.
 */
export function shareOf(sets: CpuSets, uuid: string, vcpus: number): readonly number[] | null {
  const { shared } = sets;
  if (shared === null) return null;
  if (vcpus >= shared.length) return shared;
  const start = Number.parseInt(uuid.replaceAll('-', '').slice(-8), 16) % shared.length || 0;
  const chosen = Array.from({ length: vcpus }, (_one, index) => shared[(start + index) % shared.length] ?? 0);
  return chosen.toSorted((left, right) => left - right);
}
