// Words of Nova that must be spelt as Nova spells them.
import { expect, it } from 'vitest';
import { ACTIONS, POWER_STATES, TASK_STATES, VM_STATES, eventNameOf, powerStateName } from '#src/nova/states.ts';

it('hyphens are where Nova has them, underscores everywhere else', () => {
  const words = [...Object.values(VM_STATES), ...Object.values(TASK_STATES)];

  expect(words.filter((word) => word.includes('-')).toSorted()).toEqual([
    'powering-off',
    'powering-on',
    'soft-delete',
    'soft-deleting',
  ]);
  expect(words.filter((word) => !/^[a-z]+([_-][a-z]+)*$/.test(word))).toEqual([]);
});

it('power states have the names of the versioned notifications', () => {
  expect(Object.values(POWER_STATES).map(powerStateName)).toEqual([
    'pending',
    'running',
    'paused',
    'shutdown',
    'crashed',
    'suspended',
  ]);
  expect(powerStateName(2)).toBeUndefined();
});

it('events are named after the RPC method, the build after its inner half', () => {
  expect(eventNameOf('start_instance')).toBe('compute_start_instance');
  expect(eventNameOf('build_and_run_instance')).toBe('compute__do_build_and_run_instance');
  expect(ACTIONS.confirmResize).toBe('confirmResize');
});
