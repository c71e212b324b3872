// Ids of isolated instances on the host, in an engine: whatever is done to them and however much of it at once, none are shared.
import { expect, it } from 'vitest';
import { idMapFromJson } from '#src/engine/instances/idmap.ts';
import { type InstancesUnderTest, startInstances } from './engine-support.ts';

const ISOLATED = { 'security.idmap.isolated': 'true' };

const configOf = (under: InstancesUnderTest, name: string) => under.instances.get('default', name).record.config;
const baseOf = (under: InstancesUnderTest, name: string) => Number(configOf(under, name)['volatile.idmap.base']);
const running = (under: InstancesUnderTest, name: string) =>
  idMapFromJson(configOf(under, name)['volatile.idmap.current']);

function expectApart(under: InstancesUnderTest, names: readonly string[]): void {
  const maps = names.flatMap((name) => running(under, name) ?? []);
  expect(maps).toHaveLength(names.length);
  const sorted = maps.toSorted((left, right) => left.uidBase - right.uidBase);
  for (const [at, map] of sorted.entries()) {
    const before = sorted[at - 1];
    if (before) expect(map.uidBase).toBeGreaterThanOrEqual(before.uidBase + before.size);
  }
}

it('keeps apart what is created at the same time', async () => {
  await using under = await startInstances();
  const names = ['c1', 'c2', 'c3', 'c4'];

  await Promise.all(names.map((name) => under.create(name, { config: ISOLATED, start: true })));

  expectApart(under, names);
});

it('keeps apart what is started at the same time after it became isolated by a profile', async () => {
  await using under = await startInstances();
  under.engine.profiles.create('default', 'apart', { description: '', devices: {}, config: {} });
  const names = ['c1', 'c2', 'c3'];
  for (const name of names) await under.create(name, { profiles: ['default', 'apart'] });
  expect(baseOf(under, 'c1')).toBe(0);
  const profile = under.engine.profiles.get('default', 'apart');
  const content = { description: '', devices: {}, config: ISOLATED };
  await under.engine.profiles.update(profile, content, AbortSignal.timeout(5000));

  await Promise.all(names.map((name) => under.change(name, { action: 'start' })));

  expectApart(under, names);
  expect(baseOf(under, 'c1')).toBe(running(under, 'c1')?.uidBase);
});

it('gives a copy ids of its own, whatever the copied configuration says', async () => {
  await using under = await startInstances();
  await under.create('c1', { config: ISOLATED, start: true });
  const config = { ...ISOLATED, 'volatile.idmap.base': String(baseOf(under, 'c1')) };

  await under.create('c2', { config, start: true });

  expectApart(under, ['c1', 'c2']);
});

it('gives back what a creation that failed had claimed', async () => {
  await using under = await startInstances();
  await under.create('c1', { config: ISOLATED });
  const devices = { root: { type: 'disk', path: '/', pool: 'none' } };
  await expect(under.create('c2', { config: ISOLATED, devices })).rejects.toThrow();

  await under.create('c3', { config: ISOLATED });

  expect(baseOf(under, 'c3')).toBe(baseOf(under, 'c1') + 65_536);
});

it('goes back to the shared map when an instance is no longer isolated', async () => {
  await using under = await startInstances();
  await under.create('c1', { config: { 'security.idmap.isolated': 'false' }, start: true });

  expect(baseOf(under, 'c1')).toBe(0);
});
