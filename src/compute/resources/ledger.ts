// Who takes what on this host: the database's view, corrected by what happened here since it was read.
import type { InstanceUsage } from './usage.ts';

interface Entry {
  /** null: here it is known to take nothing any more. */
  readonly usage: InstanceUsage | null;
  readonly changedAt: number;
}

/**
 * Claims and changes enter at once; a periodic reading replaces everything but what changed after it began. So neither
 * waits for the other, and none is lost.
 */
export class UsageLedger {
  #entries = new Map<string, Entry>();
  #clock = 0;

  set(uuid: string, usage: InstanceUsage | undefined): void {
    this.#clock += 1;
    this.#entries.set(uuid, { usage: usage ?? null, changedAt: this.#clock });
  }

  has(uuid: string): boolean {
    return (this.#entries.get(uuid)?.usage ?? null) !== null;
  }

  /** Undefined when it takes nothing. */
  get(uuid: string): InstanceUsage | undefined {
    return this.#entries.get(uuid)?.usage ?? undefined;
  }

  /** To be called before the database is read. */
  beginReading(): number {
    return this.#clock;
  }

  /** What the database had, and which reading it was. */
  replace(read: ReadonlyMap<string, InstanceUsage>, begunAt: number): void {
    const entries = new Map<string, Entry>();
    for (const [uuid, usage] of read) entries.set(uuid, { usage, changedAt: begunAt });
    for (const [uuid, entry] of this.#entries) if (entry.changedAt > begunAt) entries.set(uuid, entry);
    this.#entries = entries;
  }

  usages(): readonly InstanceUsage[] {
    return [...this.#entries.values()].flatMap(({ usage }) => (usage ? [usage] : []));
  }
}
