// Work on many things, a few at a time.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { atATime } from '#src/lib/at-a-time.ts';

it('works on all, and never on more than it may', async () => {
  const done: number[] = [];
  let now = 0;
  let most = 0;

  await atATime(3, [1, 2, 3, 4, 5, 6, 7], async (item) => {
    most = Math.max(most, ++now);
    await sleep(2);
    now--;
    done.push(item);
  });

  expect(done.toSorted((left, right) => left - right)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(most).toBe(3);
});

it('begins nothing more after a failure', async () => {
  const begun: number[] = [];

  await expect(
    atATime(1, [1, 2, 3], async (item) => {
      begun.push(item);
      if (item === 2) throw new Error('no');
    }),
  ).rejects.toThrow('no');

  expect(begun).toEqual([1, 2]);
});
