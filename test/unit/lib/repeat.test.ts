import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { repeatSlowing } from '#src/lib/repeat.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('repeats with pauses that grow to the longest, until it is ended', async () => {
  const begin = Date.now();
  const runs: number[] = [];
  const end = repeatSlowing(
    () => {
      runs.push((Date.now() - begin) / 1000);
      return Promise.resolve();
    },
    { firstMs: 5000, mostMs: 15_000 },
  );

  await vi.advanceTimersByTimeAsync(50_000);
  end();
  await vi.advanceTimersByTimeAsync(60_000);

  expect(runs).toEqual([5, 15, 30, 45]);
});

it('begins no pause when it is ended during a run', async () => {
  let runs = 0;
  let finish = (): void => undefined;
  const work = (): Promise<void> => {
    runs += 1;
    return new Promise((resolve) => {
      finish = resolve;
    });
  };
  const end = repeatSlowing(work, { firstMs: 10, mostMs: 10 });

  await vi.advanceTimersByTimeAsync(10);
  end();
  finish();
  await vi.advanceTimersByTimeAsync(1000);

  expect(runs).toBe(1);
});
