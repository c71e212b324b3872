// Who works on the files of an instance for as long as they like: to be sent away before the instance changes under them.
import { aborted } from '#src/lib/wait.ts';

const DISMISS_LIMIT_MS = 5_000;

/** One of them. Ends it when it is disposed of. */
export interface InstanceSession extends Disposable {
  /** Aborts when it is to end. */
  readonly signal: AbortSignal;
}

interface Entry {
  readonly id: number;
  readonly over: AbortController;
  readonly ended: PromiseWithResolvers<void>;
}

export class InstanceSessions {
  readonly #entries = new Set<Entry>();

  begin(id: number): InstanceSession {
    const entry: Entry = { id, over: new AbortController(), ended: Promise.withResolvers() };
    this.#entries.add(entry);
    return {
      signal: entry.over.signal,
      [Symbol.dispose]: () => {
        this.#entries.delete(entry);
        entry.ended.resolve();
      },
    };
  }

  /** Resolves when those of the instance have ended, or do not end in time: what follows may find it busy then. */
  async dismiss(id: number): Promise<void> {
    const entries = [...this.#entries].filter((entry) => entry.id === id);
    if (entries.length === 0) return;
    for (const { over } of entries) over.abort(new Error('the instance is about to change'));
    const ended = Promise.all(entries.map((entry) => entry.ended.promise));
    await Promise.race([ended, aborted(AbortSignal.timeout(DISMISS_LIMIT_MS))]);
  }
}
