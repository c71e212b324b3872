// The same question asked by many at the same time: asked once, the answer believed for a moment.
import { aborted } from './wait.ts';

export interface Question<T> {
  readonly key: string;
  readonly ask: () => Promise<T>;
  /** Whether later askers may have this answer; false for one that may be another in a moment. A failure is never kept. */
  readonly isKept: (answer: T) => boolean;
}

export class SharedAnswers<T> {
  readonly #answers = new Map<string, Promise<T>>();
  readonly #believedMs: number;

  /** `believedMs`: milliseconds for which an answer is believed, from the question on. */
  constructor(believedMs: number) {
    this.#believedMs = believedMs;
  }

  /** The answer of a question with this key that was asked a moment ago, else a new one. `signal` ends the waiting only. */
  async to(question: Question<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const answer = this.#answers.get(question.key) ?? this.#ask(question);
    return await (signal ? Promise.race([answer, rejection(signal)]) : answer);
  }

  #ask({ key, ask, isKept }: Question<T>): Promise<T> {
    const answer = ask();
    this.#answers.set(key, answer);
    const forget = (): void => {
      if (this.#answers.get(key) === answer) this.#answers.delete(key);
    };
    setTimeout(forget, this.#believedMs).unref();
    answer.then((value) => {
      if (!isKept(value)) forget();
    }, forget);
    return answer;
  }
}

async function rejection(signal: AbortSignal): Promise<never> {
  await aborted(signal);
  throw signal.reason;
}
