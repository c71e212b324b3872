// Builds run detached from their RPC, so that a long one holds no worker: how many at once, and how to stop one.
import { asError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { Turns } from '#src/lib/turns.ts';
import { aborted } from '#src/lib/wait.ts';
import { novaException } from '#src/nova/exceptions.ts';

type Run = (signal: AbortSignal) => Promise<void>;

export class BuildQueue {
  readonly #log: Log;
  readonly #running = new Map<Promise<void>, { readonly uuid: string; readonly controller: AbortController }>();
  /** max_concurrent_builds. */
  readonly #turns: Turns;

  constructor(limit: number, log: Log) {
    this.#turns = new Turns(limit);
    this.#log = log;
  }

  /** Returns at once. `run` must leave the instance in a consistent state by itself; what it throws is only logged. */
  start(uuid: string, run: Run): void {
    const controller = new AbortController();
    const work = run(controller.signal)
      .catch((error: unknown) => {
        this.#log.error('a build ended with an error that it did not handle', {
          instance: uuid,
          error: asError(error),
        });
      })
      .finally(() => this.#running.delete(work));
    this.#running.set(work, { uuid, controller });
  }

  /** Runs `work` when fewer than the limit run; in the order of arrival. */
  async turn<T>(work: () => Promise<T>): Promise<T> {
    return await this.#turns.run(work);
  }

  /** The instance is being deleted: its build ends as if it had noticed that itself. */
  interrupt(uuid: string): void {
    for (const { uuid: built, controller } of this.#running.values()) {
      if (built === uuid) controller.abort(novaException('InstanceNotFound', { instance_id: uuid }));
    }
  }

  /** Whether a build of it has come, and has not ended. */
  has(uuid: string): boolean {
    return [...this.#running.values()].some((build) => build.uuid === uuid);
  }

  /** Waits for the builds that run, as long as the signal allows. */
  async drain(signal: AbortSignal): Promise<void> {
    await Promise.race([Promise.allSettled(this.#running.keys()), aborted(signal)]);
  }
}
