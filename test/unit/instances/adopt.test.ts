// What a running container tells of its ids.
import { expect, it } from 'vitest';
import { mapOf } from '#src/engine/instances/adopt.ts';

it('reads the map of ids that a process has', () => {
  const text = '         0     100000      65536\n';

  expect(mapOf(text, text)).toMatchObject({ uidBase: 100_000, gidBase: 100_000, size: 65_536 });
  expect(mapOf('0 100000 1000\n1000 1000 1\n1001 101001 64535\n', text)?.ranges).toContainEqual({
    kind: 'uid',
    containerId: 1000,
    hostId: 1000,
    size: 1,
  });
});

it('knows a privileged one', () => {
  const whole = '         0          0 4294967295\n';

  expect(mapOf(whole, whole)).toBeNull();
});
