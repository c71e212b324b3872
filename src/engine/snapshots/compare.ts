// Which snapshots a copy lacks, and which it has that its source has not.
import { ZERO_TIME } from '../db/records.ts';

/** What of a snapshot tells whether it is the same one. */
export interface Comparable {
  readonly name: string;
  readonly createdAt: string;
}

const UNKNOWN = seconds(ZERO_TIME);

/** Which snapshots the target lacks, in order, and which of its own are not the source's. */
export function compareSnapshots<Source extends Comparable, Target extends Comparable>(
  source: readonly Source[],
  target: readonly Target[],
): { readonly missing: readonly Source[]; readonly surplus: readonly Target[] } {
  return {
    missing: source.filter((one) => !target.some((other) => isSame(one, other))),
    surplus: target.filter((one) => !source.some((other) => isSame(one, other))),
  };
}

/** A peer that does not tell when it took its snapshots is taken at its names. */
function isSame(one: Comparable, other: Comparable): boolean {
  const times = [seconds(one.createdAt), seconds(other.createdAt)];
  return one.name === other.name && (times.includes(UNKNOWN) || times[0] === times[1]);
}

/** All that migration tells of a time. */
function seconds(time: string): number {
  return Math.floor(Date.parse(time) / 1000);
}
