import { describe, expect, it } from 'vitest';
import { balance } from '#src/engine/instances/cpu-balance.ts';

const places = (limits: readonly (string | undefined)[], online = [0, 1, 2, 3]) => {
  const wishes = limits.map((limit, id) => ({ id, limit }));
  return Object.fromEntries([...balance(wishes, online)].map(([id, cpus]) => [id, cpus.join(',')]));
};

describe('CPUs of instances', () => {
  it('are all without a limit, also with one of 0 or of more than there are', () => {
    expect(places([undefined, '0', '9'])).toEqual({ 0: '0,1,2,3', 1: '0,1,2,3', 2: '0,1,2,3' });
  });

  it('are those that are named, and of those that are not, the ones that the fewest have', () => {
    expect(places(['0-1', '2', '1', '1'])).toEqual({ 0: '0,1', 1: '2,3', 2: '0', 3: '1' });
  });

  it('do not depend on the order in which instances are asked about', () => {
    const wishes = ['1', '1', '2'].map((limit, id) => ({ id, limit }));

    expect(balance(wishes.toReversed(), [0, 1])).toEqual(balance(wishes, [0, 1]));
  });

  it('are those that are online', () => {
    expect(places(['1-2', '3-3', '2', undefined], [0, 1])).toEqual({ 0: '1', 2: '0,1', 3: '0,1' });
  });
});
