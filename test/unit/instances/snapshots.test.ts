// Snapshots, copies and moves in an engine whose machine is a fake: what rows, volumes and files say afterwards.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { InstanceSource } from '#src/engine/instances/requests.ts';
import { SnapshotSchedule } from '#src/engine/instances/snapshot-schedule.ts';
import { compareSnapshots } from '#src/engine/snapshots/compare.ts';
import { Supervisor } from '#src/engine/instances/supervisor.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeRuntime } from '#test/fakes/fake-runtime.ts';
import { type InstancesUnderTest, startInstances } from './engine-support.ts';

const record = (under: InstancesUnderTest, name: string) => under.instances.get('default', name).record;
const names = (under: InstancesUnderTest, name: string) => under.engine.instances.snapshots.names(record(under, name));
const copyOf = (source: string, more: Partial<InstanceSource> = {}): { source: InstanceSource } => {
  return { source: { type: 'copy', source, ...more } };
};

async function snapshot(under: InstancesUnderTest, name: string, as = '', expiresAt?: string): Promise<void> {
  const request = { name: as, stateful: false, ...(expiresAt !== undefined && { expiresAt }) };
  await under.done(under.engine.instances.snapshots.create(record(under, name), request));
}

async function edit(under: InstancesUnderTest, name: string, config: Record<string, string>): Promise<void> {
  const signal = AbortSignal.timeout(1000);
  const change = (now: ReturnType<typeof record>) => ({ ...now, config: { ...now.config, ...config } });
  await under.instances.edit(under.instances.get('default', name), change, signal);
}

afterEach(() => vi.useRealTimers());

it('what users wrote on a volume and its snapshots goes along with copies', async () => {
  await using under = await startInstances();
  const { rootVolumes, snapshots } = under.engine.context.database;
  const write = (a: string) => {
    const { id } = record(under, 'c1');
    rootVolumes.set('instance', id, { description: '', config: { 'user.a': a } });
  };
  const read = (name: string) => {
    const { id } = record(under, name);
    const kept = snapshots.list(id).map((one) => rootVolumes.get('snapshot', one.id));
    return [rootVolumes.get('instance', id), ...kept].map(({ config }) => config['user.a']);
  };
  await under.create('c1');
  write('zero');
  await snapshot(under, 'c1', 's0');
  write('now');

  await under.create('c2', copyOf('c1'));
  await under.create('c3', copyOf('c1/s0'));

  expect(read('c2')).toEqual(['now', 'zero']);
  expect(read('c3')).toEqual(['zero']);
});

describe('snapshots', () => {
  it('are named in order, and keep what the instance was', async () => {
    await using under = await startInstances();
    await under.create('c1', { config: { 'user.a': '1', 'snapshots.expiry': '1d' } });
    await snapshot(under, 'c1');
    await edit(under, 'c1', { 'user.a': '2' });
    await snapshot(under, 'c1', '', '0001-01-01T00:00:00Z');

    expect(names(under, 'c1')).toEqual(['snap0', 'snap1']);
    const [first, second] = under.engine.instances.snapshots.list(record(under, 'c1'));
    expect(first?.config['user.a']).toBe('1');
    expect(Date.parse(first?.expiresAt ?? '') - Date.parse(first?.createdAt ?? '')).toBeCloseTo(24 * 3600_000, -3);
    expect(second?.expiresAt).toBe('0001-01-01T00:00:00Z');
    expect(under.storage.snapshots.get('c1')).toEqual(['snap0', 'snap1']);
    expect(under.events.slice(-3)).toEqual([
      'instance-snapshot-created',
      'instance-updated',
      'instance-snapshot-created',
    ]);
    expect(existsSync(join(under.root, 'instances/c1/transition'))).toBe(false);
  });

  it('refuse what is taken or no name, and leave nothing of one that fails', async () => {
    await using under = await startInstances();
    await under.create('c1');
    await snapshot(under, 'c1', 'a');

    await expect(snapshot(under, 'c1', 'a')).rejects.toThrow('Snapshot "c1/a" already exists');
    await expect(snapshot(under, 'c1', 'a/b')).rejects.toThrow('Invalid snapshot name');
    under.storage.faults.set('createSnapshot', new Error('disk full'));
    await expect(snapshot(under, 'c1', 'b')).rejects.toThrow('disk full');

    expect(names(under, 'c1')).toEqual(['a']);
    expect(existsSync(join(under.root, 'instances/c1/transition'))).toBe(false);
    expect(() => under.engine.instances.snapshots.get(record(under, 'c1'), 'b')).toThrow(
      'Failed to fetch snapshot "b" of instance "c1" in project "default": InstanceSnapshot not found',
    );
  });

  it('are renamed and deleted with their files, and go with their instance', async () => {
    await using under = await startInstances();
    const { snapshots, moves } = under.engine.instances;
    await under.create('c1');
    writeFileSync(join(under.root, 'instances/c1/metadata.yaml'), '{}\n');
    for (const name of ['a', 'b']) await snapshot(under, 'c1', name);
    const of = (name: string) => ({ record: record(under, 'c1'), snapshot: snapshots.get(record(under, 'c1'), name) });

    await under.done(snapshots.rename(of('a'), 'c'));
    expect(() => snapshots.rename(of('c'), 'b')).toThrow("Name 'c1/b' already in use");
    await under.done(snapshots.remove(of('b')));
    const move = { name: 'c2', project: '', pool: '', instanceOnly: false };
    await under.done(moves.start(record(under, 'c1'), move));

    expect(names(under, 'c2')).toEqual(['c']);
    expect(readdirSync(join(under.root, 'snapshots'))).toEqual(['c2']);
    expect(readFileSync(join(under.root, 'snapshots/c2/c/metadata.yaml'), 'utf8')).toBe('{}\n');
    await under.done(under.instances.remove(under.instances.get('default', 'c2')));
    expect(under.storage.snapshots.size).toBe(0);
    expect(readdirSync(join(under.root, 'snapshots'))).toEqual([]);
  });

  it('bring configuration, devices and profiles back; what runs is stopped and started again', async () => {
    await using under = await startInstances();
    await under.create('c1', { config: { 'user.a': '1' }, start: true });
    await snapshot(under, 'c1');
    await edit(under, 'c1', { 'user.a': '2', 'user.b': 'x' });

    await under.done(under.engine.instances.restore.start(record(under, 'c1'), 'c1/snap0', { stateful: false }));

    const { config, uuid } = record(under, 'c1');
    expect(config).toMatchObject({ 'user.a': '1', 'volatile.uuid': uuid, 'volatile.last_state.power': 'RUNNING' });
    expect(config['user.b']).toBeUndefined();
    expect(under.runtime.calls).toEqual(['start c1', 'kill c1', 'cleanUp c1', 'start c1']);
    expect(under.events.at(-1)).toBe('instance-restored');
  });

  it('start the instance again when the restore fails', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true });
    await snapshot(under, 'c1');
    under.storage.faults.set('restoreSnapshot', new Error('later snapshots exist'));

    const restored = under.done(
      under.engine.instances.restore.start(record(under, 'c1'), 'snap0', { stateful: false }),
    );

    await expect(restored).rejects.toThrow('later snapshots exist');
    expect(under.instances.get('default', 'c1').status).toBe('Running');
    expect(existsSync(join(under.root, 'instances/c1/transition'))).toBe(false);
  });

  it('are taken at a start that asks for one', async () => {
    await using under = await startInstances();
    await under.create('c1', { start: true, config: { 'snapshots.schedule': '@startup, 10 5,6 * * *' } });

    await under.change('c1', { action: 'restart', force: true });

    expect(names(under, 'c1')).toEqual(['snap0', 'snap1']);
  });
});

describe('a daemon that was killed', () => {
  const note = (under: InstancesUnderTest, step: object) => {
    writeFileSync(join(under.root, 'instances/c1/transition'), JSON.stringify({ pool: 'default', ...step }));
  };

  it('leaves no snapshot without a row', async () => {
    const under = await startInstances();
    await under.create('c1');

    await using later = await under.restart(() => {
      note(under, { kind: 'snapshot', snapshot: 'half' });
      under.storage.snapshots.set('c1', ['half']);
      mkdirSync(join(under.root, 'snapshots/c1/half'), { recursive: true });
    });

    expect(later.storage.snapshots.get('c1')).toEqual([]);
    expect(readdirSync(join(later.root, 'snapshots/c1'))).toEqual([]);
    expect(existsSync(join(later.root, 'instances/c1/transition'))).toBe(false);
  });

  it('lets a container go on that it had frozen for the copy', async () => {
    const under = await startInstances();
    await under.create('c1', { start: true });
    await under.change('c1', { action: 'freeze' });

    await using later = await under.restart(() => note(under, { kind: 'still', frozen: true }));

    expect(later.instances.get('default', 'c1').status).toBe('Running');
    expect(existsSync(join(later.root, 'instances/c1/transition'))).toBe(false);
  });

  it('has a deletion finished', async () => {
    const under = await startInstances();
    await under.create('c1');
    await snapshot(under, 'c1', 'old');

    await using later = await under.restart(() => note(under, { kind: 'snapshot-delete', snapshot: 'old' }));

    expect(names(later, 'c1')).toEqual([]);
    expect(later.storage.snapshots.get('c1')).toEqual([]);
  });

  it('has a rename undone that the row does not know', async () => {
    const under = await startInstances();
    await under.create('c1');
    await snapshot(under, 'c1', 'a');

    await using later = await under.restart(() => {
      note(under, { kind: 'snapshot-rename', snapshot: 'b', from: 'a' });
      under.storage.snapshots.set('c1', ['b']);
    });

    expect(names(later, 'c1')).toEqual(['a']);
    expect(later.storage.snapshots.get('c1')).toEqual(['a']);
  });

  it('has a restore finished', async () => {
    const under = await startInstances();
    await under.create('c1', { config: { 'user.a': '1' } });
    await snapshot(under, 'c1', 'a');
    await edit(under, 'c1', { 'user.a': '2' });

    await using later = await under.restart(() => note(under, { kind: 'restore', snapshot: 'a' }));

    expect(record(later, 'c1').config['user.a']).toBe('1');
  });

  it('has a rebuild undone that was not complete, and finished one that was', async () => {
    const under = await startInstances();
    await under.create('c1');
    const { config } = record(under, 'c1');

    const later = await under.restart(() => {
      note(under, { kind: 'rebuild' });
      under.storage.instances.add('c1.rebuilt');
    });
    expect([...later.storage.instances]).toEqual(['c1']);
    await using last = await later.restart(() => {
      note(under, { kind: 'rebuild', done: { config: { ...config, 'user.new': '1' } } });
      under.storage.instances.add('c1.rebuilt');
    });

    expect([...last.storage.instances]).toEqual(['c1']);
    expect(record(last, 'c1').config['user.new']).toBe('1');
  });
});

describe('copies', () => {
  it('take snapshots along, or not, or are of one', async () => {
    await using under = await startInstances();
    await under.create('c1', { config: { 'user.a': '1' }, start: true });
    await snapshot(under, 'c1', 'a', '2100-01-01T00:00:00.000Z');
    await edit(under, 'c1', { 'user.a': '2' });

    await under.create('all', copyOf('c1'));
    await under.create('only', copyOf('c1', { instanceOnly: true }));
    await under.create('then', { ...copyOf('c1/a'), config: { 'user.b': 'x' } });

    expect(names(under, 'all')).toEqual(['a']);
    expect(under.engine.instances.snapshots.list(record(under, 'all'))[0]?.expiresAt).toBe('2100-01-01T00:00:00.000Z');
    expect(names(under, 'only')).toEqual([]);
    expect(record(under, 'then').config).toMatchObject({ 'user.a': '1', 'user.b': 'x' });
    const { config, uuid } = record(under, 'all');
    expect(uuid).not.toBe(record(under, 'c1').uuid);
    expect(config['volatile.apply_template']).toBe('copy');
    expect(config['volatile.last_state.power']).toBeUndefined();
  });

  it('cross each other without waiting for ever', async () => {
    await using under = await startInstances();
    for (const name of ['a', 'b']) await under.create(name);

    const ends = await Promise.allSettled([under.create('b', copyOf('a')), under.create('a', copyOf('b'))]);

    expect(ends.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  });

  it('that fail leave nothing', async () => {
    await using under = await startInstances();
    await under.create('c1');
    await snapshot(under, 'c1');
    under.storage.faults.set('copyVolume', new Error('disk full'));

    await expect(under.create('c2', copyOf('c1'))).rejects.toThrow('disk full');

    expect(under.instances.names('default')).toEqual(['c1']);
    expect(readdirSync(join(under.root, 'containers'))).toEqual(['c1']);
    expect(readdirSync(join(under.root, 'snapshots'))).toEqual(['c1']);
  });

  it('are refused where the source is not there, or the target runs', async () => {
    await using under = await startInstances();
    await under.create('c1');
    await under.create('c2', { start: true });

    await expect((async () => under.create('x', copyOf('nope')))()).rejects.toThrow(
      'Failed to fetch instance "nope" in project "default": Instance not found',
    );
    await expect((async () => under.create('x', copyOf('c1/nope')))()).rejects.toThrow('InstanceSnapshot not found');
    await expect((async () => under.create('c2', copyOf('c1', { refresh: true })))()).rejects.toThrow(
      'Cannot refresh a running instance',
    );
  });

  it('are compared by name and second', () => {
    const at = (name: string, createdAt: string) => ({ name, createdAt });
    const source = [
      at('a', '2026-01-01T00:00:00.700Z'),
      at('b', '2026-01-02T00:00:00.000Z'),
      at('c', '2026-01-03T00:00:00Z'),
    ];
    const target = [
      at('a', '2026-01-01T00:00:00.000Z'),
      at('b', '2026-02-02T00:00:00.000Z'),
      at('d', '2026-01-03T00:00:00Z'),
    ];

    const { missing, surplus } = compareSnapshots(source, target);

    expect(missing.map(({ name }) => name)).toEqual(['b', 'c']);
    expect(surplus.map(({ name }) => name)).toEqual(['b', 'd']);
  });
});

describe('the schedule', () => {
  const at = (text: string) => vi.setSystemTime(new Date(text));

  it('takes what is due once a minute, of stopped ones only where they say so', async () => {
    await using under = await startInstances();
    const config = { 'snapshots.schedule': '* * * * *' };
    await under.create('runs', { config, start: true });
    await under.create('stopped', { config });
    await under.create('both', { config: { ...config, 'snapshots.schedule.stopped': 'true' } });
    const taken: string[] = [];
    const supervisor = new Supervisor(new FakeRuntime(), silentLog);
    vi.spyOn(supervisor, 'status').mockImplementation((id) =>
      id === record(under, 'runs').id ? 'Running' : 'Stopped',
    );
    const { snapshots } = under.engine.instances;
    vi.spyOn(snapshots, 'takeAutomatic').mockImplementation(async ({ name }) => void taken.push(name));
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    at('2026-03-01T10:00:30Z');
    const schedule = new SnapshotSchedule({ context: under.engine.context, supervisor, snapshots });

    await schedule.start();
    await vi.advanceTimersByTimeAsync(29_000);
    expect(taken).toEqual([]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(taken).toEqual(['both', 'runs']);
    await vi.advanceTimersByTimeAsync(60_000);

    expect(taken).toEqual(['both', 'runs', 'both', 'runs']);
    await schedule.stop(AbortSignal.abort());
  });

  it('removes what has expired', async () => {
    await using under = await startInstances();
    await under.create('c1');
    await snapshot(under, 'c1', 'never', '0001-01-01T00:00:00Z');
    await snapshot(under, 'c1', 'soon', '2026-03-01T10:00:45.000Z');
    await snapshot(under, 'c1', 'later', '2026-03-01T10:02:00.000Z');
    const { snapshots } = under.engine.instances;
    const supervisor = new Supervisor(new FakeRuntime(), silentLog);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    at('2026-03-01T10:00:30Z');
    const schedule = new SnapshotSchedule({ context: under.engine.context, supervisor, snapshots });
    await schedule.start();

    await vi.advanceTimersByTimeAsync(30_000);
    await vi.waitFor(() => expect(names(under, 'c1')).toEqual(['never', 'later']));
    await vi.advanceTimersByTimeAsync(60_000);

    await vi.waitFor(() => expect(names(under, 'c1')).toEqual(['never']));
    await schedule.stop(AbortSignal.abort());
  });
});
