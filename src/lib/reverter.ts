// Undo stack for operations of more than one step.
import type { Log } from './log.ts';

/** Everything added is undone, newest first, at the end of the scope unless commit() was reached. */
export class Reverter implements AsyncDisposable {
  #steps: { what: string; undo: () => unknown }[] = [];
  readonly #log: Pick<Log, 'warn'>;

  constructor(log: Pick<Log, 'warn'>) {
    this.#log = log;
  }

  /** Undo must be idempotent and must carry its own time limit, never the caller's signal. */
  add(what: string, undo: () => unknown): void {
    this.#steps.push({ what, undo });
  }

  commit(): void {
    this.#steps = [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { what, undo } of this.#steps.splice(0).toReversed()) {
      try {
        await undo();
      } catch (error) {
        this.#log.warn('revert step failed', { step: what, error });
      }
    }
  }
}
