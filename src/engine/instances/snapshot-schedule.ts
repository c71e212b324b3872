// Once a minute: takes the snapshots that are due and removes those that have expired.
import { messageOf } from '#src/lib/errors.ts';
import { atATime } from '#src/lib/at-a-time.ts';
import type { Service } from '#src/lib/service.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { isDue, isExpired } from '../snapshots/schedule.ts';
import { expander } from './expansion.ts';
import type { InstanceSnapshots } from './snapshots.ts';
import type { Supervisor } from './supervisor.ts';
import { parseBoolean } from './values.ts';

const MINUTE_MS = 60_000;
const ONE_LIMIT_MS = 3600_000;
const AT_A_TIME = 4;

export interface ScheduleParts {
  readonly context: EngineContext;
  readonly supervisor: Supervisor;
  readonly snapshots: InstanceSnapshots;
}

export class SnapshotSchedule implements Service {
  readonly name = 'snapshot schedule';
  readonly #parts: ScheduleParts;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #work: Promise<void> = Promise.resolve();
  /** The last minute that was looked at. */
  #seen = 0;

  constructor(parts: ScheduleParts) {
    this.#parts = parts;
  }

  async start(): Promise<void> {
    this.#seen = Math.floor(Date.now() / MINUTE_MS);
    this.#next();
  }

  async stop(signal: AbortSignal): Promise<void> {
    clearTimeout(this.#timer);
    this.#stopping.abort(new Error('the daemon stops'));
    await Promise.race([
      this.#work,
      new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true })),
    ]);
  }

  /** At the beginning of each minute, so that a drifting timer skips none. */
  #next(): void {
    this.#timer = setTimeout(() => this.#tick(), MINUTE_MS - (Date.now() % MINUTE_MS)).unref();
  }

  #tick(): void {
    const now = new Date();
    const minute = Math.floor(now.getTime() / MINUTE_MS);
    this.#next();
    if (minute === this.#seen) return; // the clock was set back, or the timer came early
    this.#seen = minute;
    // No overlap: a round that takes longer than a minute puts the next one off.
    this.#work = this.#work
      .then(() => this.#round(now))
      .catch((error: unknown) => {
        this.#parts.context.log.error('the schedule of snapshots failed', { error });
      });
  }

  async #round(now: Date): Promise<void> {
    const { signal } = this.#stopping;
    if (signal.aborted) return;
    await this.#takeDue(now, signal);
    await this.#prune(now, signal);
  }

  async #takeDue(now: Date, signal: AbortSignal): Promise<void> {
    const { context, snapshots } = this.#parts;
    const due = this.#due(now);
    await atATime(AT_A_TIME, due, (record) => {
      return this.#guarded(
        record,
        'a scheduled snapshot failed',
        (limit) => snapshots.takeAutomatic(record, limit),
        signal,
      );
    });
    if (due.length > 0) context.log.info('scheduled snapshots taken', { instances: due.length });
  }

  #due(now: Date): readonly InstanceRecord[] {
    const { context, supervisor } = this.#parts;
    const expand = expander(context.database);
    return context.database.instances.list().filter((record) => {
      const { config } = expand(record);
      const schedule = config['snapshots.schedule'] ?? '';
      if (schedule === '' || !isDue(schedule, now)) return false;
      return supervisor.status(record.id) !== 'Stopped' || parseBoolean(config['snapshots.schedule.stopped']);
    });
  }

  async #prune(now: Date, signal: AbortSignal): Promise<void> {
    const { context, snapshots } = this.#parts;
    const expired = context.database.snapshots.expired(now.toISOString());
    if (expired.length === 0) return;
    const records = new Map(context.database.instances.list().map((record) => [record.id, record]));
    await atATime(AT_A_TIME, expired, async ({ instanceId, name }) => {
      const record = records.get(instanceId);
      if (!record) return;
      const isStill = ({ expiresAt }: { readonly expiresAt: string }): boolean => isExpired(expiresAt, now);
      const work = (limit: AbortSignal) => snapshots.removeIf(record, name, isStill, limit);
      await this.#guarded(record, 'an expired snapshot was not removed', work, signal);
    });
  }

  /** One that fails does not keep the others, and is tried again when it is due again. */
  async #guarded(
    { name }: InstanceRecord,
    complaint: string,
    work: (signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    if (signal.aborted) return;
    try {
      await work(AbortSignal.any([signal, AbortSignal.timeout(ONE_LIMIT_MS)]));
    } catch (error) {
      this.#parts.context.log.warn(complaint, { instance: name, error: messageOf(error) });
    }
  }
}
