// Which CPUs of the host each instance has, by what all of them ask for (lxd-engine-contract section 4.2, limits.cpu).
import { isCpuCount, parseCpuList } from './values.ts';

export interface CpuWish {
  /** Of the instance. */
  readonly id: number;
  /** limits.cpu; undefined: as many as there are. */
  readonly limit: string | undefined;
}

/**
 * Instance → its CPUs, in ascending order. Those that are named by number are given first; whoever asks for a count gets those that
 * the fewest others have. The same wishes come to the same places. An instance all of whose CPUs are offline is not among them.
 */
export function balance(wishes: readonly CpuWish[], online: readonly number[]): ReadonlyMap<number, readonly number[]> {
  const users = new Map(online.map((cpu) => [cpu, 0]));
  const places = new Map<number, readonly number[]>();
  const place = (id: number, cpus: readonly number[]): void => {
    for (const cpu of cpus) users.set(cpu, (users.get(cpu) ?? 0) + 1);
    if (cpus.length > 0) places.set(id, cpus);
  };
  const counts: { readonly id: number; readonly count: number }[] = [];
  for (const { id, limit } of wishes) {
    if (limit !== undefined && isCpuCount(limit) && Number(limit) > 0) counts.push({ id, count: Number(limit) });
    else if (limit === undefined || isCpuCount(limit)) places.set(id, online);
    else
      place(
        id,
        parseCpuList(limit).filter((cpu) => users.has(cpu)),
      );
  }
  for (const { id, count } of counts.toSorted((left, right) => left.id - right.id)) {
    const byUse = [...users].toSorted(([left, used], [right, more]) => used - more || left - right);
    place(
      id,
      byUse
        .slice(0, count)
        .map(([cpu]) => cpu)
        .toSorted((left, right) => left - right),
    );
  }
  return places;
}
