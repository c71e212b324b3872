// Runs the periodic tasks: spacing, jitter, never two runs of one task at once, errors logged (contract section 4.9).
import type { Log } from '#src/lib/log.ts';
import type { Service } from '#src/lib/service.ts';
import { aborted, sleep } from '#src/lib/wait.ts';

export interface PeriodicTask {
  readonly name: string;
  /** From the end of a run to the begin of the next. 0: 60 s, negative: the task is off. */
  readonly spacingMs: number;
  /** The first run comes at once instead of after one spacing. */
  readonly isImmediate?: boolean;
  run(signal: AbortSignal): Promise<void>;
}

export interface PeriodicOptions {
  readonly log: Log;
  /** All tasks begin after a random time up to this, so that a thousand computes do not ask at once. */
  readonly fuzzyDelayMs: number;
  /** 0 up to, not including, 1. */
  readonly random?: () => number;
}

const DEFAULT_SPACING_MS = 60_000;
const JITTER = 0.05;

export class PeriodicRunner implements Service {
  readonly name = 'periodic tasks';
  readonly #tasks: readonly PeriodicTask[];
  readonly #log: Log;
  readonly #fuzzyDelayMs: number;
  readonly #random: () => number;
  readonly #ending = new AbortController();
  #loops: Promise<unknown> = Promise.resolve();

  constructor(tasks: readonly PeriodicTask[], { log, fuzzyDelayMs, random = Math.random }: PeriodicOptions) {
    this.#tasks = tasks.filter(({ spacingMs }) => spacingMs >= 0);
    this.#log = log;
    this.#fuzzyDelayMs = fuzzyDelayMs;
    this.#random = random;
  }

  async start(): Promise<void> {
    const delayMs = this.#random() * this.#fuzzyDelayMs;
    this.#loops = Promise.all(this.#tasks.map((task) => this.#loop(task, delayMs)));
  }

  /** Running tasks are told to end; none is begun any more. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#ending.abort(new Error('the service stops'));
    await Promise.race([this.#loops, aborted(signal)]);
  }

  async #loop(task: PeriodicTask, delayMs: number): Promise<void> {
    const { signal } = this.#ending;
    const spacingMs = task.spacingMs === 0 ? DEFAULT_SPACING_MS : task.spacingMs;
    try {
      await sleep(delayMs + (task.isImmediate ? 0 : this.#jittered(spacingMs)), signal);
      for (;;) {
        await this.#runOnce(task, signal);
        await sleep(this.#jittered(spacingMs), signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #runOnce(task: PeriodicTask, signal: AbortSignal): Promise<void> {
    try {
      await task.run(signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#log.error('periodic task failed, it runs again in time', { task: task.name, error });
    }
  }

  #jittered(spacingMs: number): number {
    return spacingMs * (1 + this.#random() * JITTER);
  }
}
