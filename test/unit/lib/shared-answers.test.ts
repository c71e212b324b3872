import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { SharedAnswers } from '#src/lib/shared-answers.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function counted(key: string, answers: readonly (number | Error)[], isKept = true) {
  let asked = 0;
  return {
    key,
    ask: (): Promise<number> => {
      const answer = answers[asked] ?? new Error('asked too often');
      asked += 1;
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
    isKept: () => isKept,
    get asked() {
      return asked;
    },
  };
}

test('a question is asked once, by whoever is first, and anew when its answer is old', async () => {
  const shared = new SharedAnswers<number>(5000);
  const question = counted('a', [1, 2]);
  expect(await Promise.all([shared.to(question), shared.to(question)])).toEqual([1, 1]);
  vi.advanceTimersByTime(4999);
  expect(await shared.to(question)).toBe(1);
  vi.advanceTimersByTime(1);
  expect(await shared.to(question)).toBe(2);
  expect(question.asked).toBe(2);
});

test('other keys are other questions', async () => {
  const shared = new SharedAnswers<number>(5000);
  expect(await shared.to(counted('a', [1]))).toBe(1);
  expect(await shared.to(counted('b', [2]))).toBe(2);
});

test('a failure and an answer that is not to be kept reach those who wait, and nobody later', async () => {
  const shared = new SharedAnswers<number>(5000);
  const failing = counted('a', [new Error('down'), 1]);
  const both = await Promise.allSettled([shared.to(failing), shared.to(failing)]);
  expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  expect(await shared.to(failing)).toBe(1);
  const passing = counted('b', [1, 2], false);
  expect(await shared.to(passing)).toBe(1);
  expect(await shared.to(passing)).toBe(2);
});

test('an answer that grew old is not dropped by the timer of an older one', async () => {
  const shared = new SharedAnswers<number>(5000);
  const question = counted('a', [new Error('down'), 1, 2]);
  await expect(shared.to(question)).rejects.toThrow('down');
  vi.advanceTimersByTime(3000);
  expect(await shared.to(question)).toBe(1);
  vi.advanceTimersByTime(3000);
  expect(await shared.to(question)).toBe(1);
});

test('the signal of one who waits ends only that waiting', async () => {
  const shared = new SharedAnswers<number>(5000);
  const slow = Promise.withResolvers<number>();
  const question = { key: 'a', ask: () => slow.promise, isKept: () => true };
  const gone = new AbortController();
  const first = shared.to(question, gone.signal);
  const second = shared.to(question);
  gone.abort(new Error('no more interest'));
  await expect(first).rejects.toThrow('no more interest');
  slow.resolve(1);
  expect(await second).toBe(1);
  await expect(shared.to(question, gone.signal)).rejects.toThrow('no more interest');
});
