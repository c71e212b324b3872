import { expect, test } from 'vitest';
import { sleep } from '#src/lib/wait.ts';
import { together } from '#src/lib/together.ts';

test('gives what all of them gave', async () => {
  expect(await together(Promise.resolve(1), Promise.resolve('two'))).toEqual([1, 'two']);
});

test('a failure is told when the others have ended', async () => {
  let ended = false;
  const slow = sleep(10).then(() => {
    ended = true;
  });
  await expect(together(Promise.reject(new Error('no space')), slow)).rejects.toThrow('no space');
  expect(ended).toBe(true);
});
