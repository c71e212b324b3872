// Custom volumes on storage in memory: what is done when something fails, or the daemon is killed.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ZERO_TIME } from '#src/engine/db/records.ts';
import { AppError } from '#src/lib/errors.ts';
import { type InstancesUnderTest, startInstances } from '../instances/engine-support.ts';

const signal = () => AbortSignal.timeout(5000);
const KEY = { pool: 'default', project: 'default', name: 'v1' };
const VOLUME = { ...KEY, description: '', config: { 'user.a': 'b' } };
let under: InstancesUnderTest;

beforeEach(async () => {
  under = await startInstances();
});
afterEach(() => under[Symbol.asyncDispose]());

it('leaves nothing of a volume that could not be made', async () => {
  under.storage.faults.set('createVolume', new AppError('internal', 'disk full'));

  await expect(under.engine.volumes.create(VOLUME, signal())).rejects.toThrow('disk full');

  expect(under.engine.context.database.volumes.pending()).toEqual([]);
  under.storage.faults.clear();
  await under.engine.volumes.create(VOLUME, signal());
  expect(under.engine.volumes.get(KEY).config).toEqual({ 'user.a': 'b' });
});

it('removes at the next start what a killed daemon was making or removing', async () => {
  const { volumes, volumeSnapshots, context } = under.engine;
  const { database } = context;
  for (const name of ['v1', 'v2', 'v3']) await volumes.create({ ...VOLUME, name }, signal());
  await volumeSnapshots.create(volumes.get({ ...KEY, name: 'v3' }), { name: 's0' }, signal());
  database.volumes.setPending(volumes.get(KEY).id, 'create');
  database.volumes.setPending(volumes.get({ ...KEY, name: 'v2' }).id, 'delete');
  const third = volumes.get({ ...KEY, name: 'v3' });
  database.volumeSnapshots.setPending(volumes.snapshot(third, 's0').id, 'create');
  const instances = under.storage.instances;

  under = await under.restart();

  expect(under.engine.volumes.list('default', 'default').map(({ name }) => name)).toEqual(['v3']);
  expect(under.engine.volumes.snapshots(third)).toEqual([]);
  expect([...instances].filter((name) => name.startsWith('default_'))).toEqual(['default_v3']);
});

describe('a change of the size', () => {
  const sized = (size: string) => ({ description: 'new', config: { ...VOLUME.config, size } });
  const MIB = 2 ** 20;

  it('is put back at the next start when a kill came before its row', async () => {
    const { volumes, context } = under.engine;
    const { database } = context;
    await volumes.create({ ...VOLUME, config: { ...VOLUME.config, size: '10MiB' } }, signal());
    await volumes.update(volumes.get(KEY), sized('20MiB'), signal());
    const { id, ...before } = volumes.get(KEY);
    const told: string[] = [];
    const watched = database.volumes.update.bind(database.volumes);
    // the daemon is killed when the driver has the new size: what the row said then is what the next one finds
    database.volumes.update = (row, content) => {
      told.push(JSON.stringify(content.config));
      if (told.length === 1) watched(row, content);
    };
    await volumes.update(volumes.get(KEY), sized('30MiB'), signal());
    const { storage } = under;
    expect(storage.sizes.get('default_v1')).toBe(30 * MIB);
    expect(told).toHaveLength(2);

    under = await under.restart();

    expect(storage.sizes.get('default_v1')).toBe(20 * MIB);
    expect(under.engine.volumes.get(KEY)).toEqual({ id, ...before });
  });

  it('that the pool refuses leaves the row as it was', async () => {
    const { volumes } = under.engine;
    await volumes.create({ ...VOLUME, config: { ...VOLUME.config, size: '10MiB' } }, signal());
    const before = volumes.get(KEY);
    under.storage.faults.set('resizeVolume', new AppError('conflict', 'it holds more'));

    await expect(volumes.update(before, sized('5MiB'), signal())).rejects.toThrow('it holds more');

    expect(volumes.get(KEY)).toEqual(before);
  });
});

it('gets what its pool has for new volumes, unless it says something else', async () => {
  const { pools, volumes } = under.engine;
  const config = {
    'volume.snapshots.expiry': '3d',
    'volume.snapshots.pattern': 'a%d',
    'volume.security.shifted': 'true',
  };
  const set = (more: Record<string, string>) =>
    pools.update(
      pools.get('default'),
      { description: '', config: { ...pools.get('default').config, ...more } },
      signal(),
    );
  await set(config);

  await volumes.create({ ...VOLUME, config: { 'snapshots.pattern': 'b%d' } }, signal());

  expect(volumes.get(KEY).config).toEqual({
    'snapshots.expiry': '3d',
    'snapshots.pattern': 'b%d',
    'security.shifted': 'true',
  });
  await expect(set({ 'volume.snapshots.expiry': 'soon' })).rejects.toThrow(
    'Invalid value for option "volume.snapshots.expiry"',
  );
  await expect(set({ 'volume.snapshots.when': 'x' })).rejects.toThrow('Invalid option "volume.snapshots.when"');
});

it('takes snapshots by pattern, and forgets one that failed', async () => {
  const { volumes, volumeSnapshots } = under.engine;
  await volumes.create({ ...VOLUME, config: { 'snapshots.pattern': 'auto%d', 'snapshots.expiry': '1H' } }, signal());
  const volume = volumes.get(KEY);
  await volumeSnapshots.create(volume, { name: volumeSnapshots.nameFor(volume, '') }, signal());
  under.storage.faults.set('createSnapshot', new AppError('internal', 'disk full'));

  await expect(volumeSnapshots.create(volume, { name: 'auto1' }, signal())).rejects.toThrow('disk full');

  const [first, ...others] = volumes.snapshots(volume);
  expect(others).toEqual([]);
  expect(first?.name).toBe('auto0');
  expect(Date.parse(first?.expiresAt ?? '')).toBeGreaterThan(Date.now());
});

it('gives a freed name to another volume while the pool keeps the old place', async () => {
  const { volumes } = under.engine;
  await volumes.create(VOLUME, signal());

  await volumes.rename(volumes.get(KEY), 'v2', signal());
  await volumes.create(VOLUME, signal());

  expect(volumes.get({ ...KEY, name: 'v2' }).hostName).toBe('default_v1');
  expect(volumes.get(KEY).hostName).not.toBe('default_v1');
});

it('tells that a backup was renamed and removed', async () => {
  const { volumes, volumeBackups, context, events } = under.engine;
  await volumes.create(VOLUME, signal());
  const volume = volumes.get(KEY);
  const times = { createdAt: new Date().toISOString(), expiresAt: ZERO_TIME };
  const backup = { instanceId: volume.id, name: 'b1', file: 'f1', instanceOnly: false, optimized: false };
  context.database.volumeBackups.create({ ...backup, ...times });
  const told: unknown[] = [];
  using _listening = events.subscribe({ types: new Set(['lifecycle'] as const) }, (_text, { metadata }) => {
    told.push(metadata);
  });

  volumeBackups.rename(volume, volumeBackups.get(volume, 'b1'), 'b2');
  await volumeBackups.remove(volume, volumeBackups.get(volume, 'b2'));

  const source = '/1.0/storage-pools/default/volumes/custom/v1/backups/b2';
  expect(told).toEqual([
    { action: 'storage-volume-backup-renamed', source, context: { old_name: 'b1' } },
    { action: 'storage-volume-backup-deleted', source },
  ]);
});

it.each([
  [{ name: 'a/b' }, 'Storage volume names may not contain slashes'],
  [{ name: '' }, 'No name provided'],
  [{ config: { size: 'big' } }, 'Invalid option for volume "default_v1" option "size"'],
  [{ config: { 'security.shifted': 'true', 'security.unmapped': 'true' } }, 'mutually exclusive'],
  [{ pool: 'nope' }, 'Storage pool not found'],
])('refuses %j', async (change, reason) => {
  await expect(under.engine.volumes.create({ ...VOLUME, ...change }, signal())).rejects.toThrow(reason);
});
