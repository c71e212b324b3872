import { describe, expect, it } from 'vitest';
import { resultOf, table } from '#test/openstack/tempest/results.ts';

describe('a line of Tempest', () => {
  it.each([
    ['{0} tempest.api.compute.test_a.A.test_b [3.065420s] ... ok', 'passed', ''],
    ['{1} tempest.api.compute.test_a.A.test_b[id-1,smoke] [0.1s] ... FAILED', 'failed', ''],
    ['{1} tempest.api.compute.test_a.A.test_b ... SKIPPED: no volumes', 'skipped', 'no volumes'],
  ])('%s', (line, outcome, reason) => {
    expect(resultOf(line)).toEqual({ test: 'tempest.api.compute.test_a.A.test_b', outcome, reason });
  });

  it('may be about a class that could not be set up', () => {
    const line = '{0} setUpClass (tempest.api.compute.test_a.A) [0.000000s] ... FAILED';

    expect(resultOf(line)).toMatchObject({ test: 'setUpClass (tempest.api.compute.test_a.A)', outcome: 'failed' });
  });

  it.each(['', 'Captured traceback:', ' - Passed: 8', 'tempest.api.compute'])('is not %j', (line) => {
    expect(resultOf(line)).toBeUndefined();
  });
});

it('counts by module, and names what failed and why others were skipped', () => {
  const text = table([
    { test: 'tempest.api.compute.servers.test_x.X.test_a', outcome: 'passed', reason: '' },
    { test: 'tempest.api.compute.servers.test_y.Y.test_a', outcome: 'failed', reason: '' },
    { test: 'setUpClass (tempest.api.compute.admin.test_z.Z)', outcome: 'skipped', reason: 'one host' },
    { test: 'tempest.scenario.test_v.V.test_a', outcome: 'passed', reason: '' },
    { test: 'tempest.scenario.test_v.V.test_b', outcome: 'passed', reason: '' },
  ]);

  expect(text.split('\n').map((line) => line.replaceAll(/ +/g, ' '))).toEqual([
    ' passed failed skipped',
    'tempest.api.compute.admin 0 0 1',
    'tempest.api.compute.servers 1 1 0',
    'tempest.scenario.test_v 2 0 0',
    'all 3 1 1',
    'skipped: 1 × one host',
    'failed: tempest.api.compute.servers.test_y.Y.test_a',
  ]);
});
