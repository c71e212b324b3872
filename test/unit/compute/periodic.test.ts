// Periodic work: when it runs, how power states are brought into line, what happens to guests of deleted instances.
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  cleanUpRunningDeleted,
  reclaimQueuedDeletes,
  runPendingDeletes,
} from '#src/compute/periodic/deleted-guests.ts';
import { PowerSync } from '#src/compute/periodic/power-sync.ts';
import { powerAction } from '#src/compute/periodic/power-table.ts';
import { type PeriodicTask, PeriodicRunner } from '#src/compute/periodic/runner.ts';
import { auditUsage } from '#src/compute/periodic/usage-audit.ts';
import { lastPeriod } from '#src/nova/notifications/audit-period.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { silentLog } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import type { PowerState } from '#src/nova/states.ts';
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import { RecordingLog, testConfig } from '#test/fakes/compute-harness.ts';
import { FakeConductor, listOf } from '#test/fakes/fake-conductor.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';
import { FakeOperations } from '#test/fakes/fake-operations.ts';

const signal = new AbortController().signal;
const [NOSTATE, RUNNING, PAUSED, SHUTDOWN, CRASHED, SUSPENDED] = [0, 1, 3, 4, 6, 7] as const;

afterEach(() => {
  vi.useRealTimers();
});

describe('the periodic runner', () => {
  function runner(tasks: readonly PeriodicTask[], log = new RecordingLog()): PeriodicRunner {
    vi.useFakeTimers();
    return new PeriodicRunner(tasks, { log, fuzzyDelayMs: 10_000, random: () => 0.5 });
  }

  it('begins after the fuzzy delay: immediate tasks at once, others one spacing later, switched-off ones never', async () => {
    const runs: string[] = [];
    const task = (name: string, spacingMs: number, isImmediate = false): PeriodicTask => ({
      name,
      spacingMs,
      isImmediate,
      run: async () => void runs.push(name),
    });
    const periodic = runner([task('now', 100_000, true), task('later', 20_000), task('default', 0), task('off', -1)]);

    await periodic.start();
    await vi.advanceTimersByTimeAsync(5001);
    const first = [...runs];
    await vi.advanceTimersByTimeAsync(20_500);
    const second = [...runs];
    await vi.advanceTimersByTimeAsync(41_000);
    await periodic.stop(signal);

    expect(first).toEqual(['now']);
    expect(second).toEqual(['now', 'later']);
    expect(runs).toContain('default');
    expect(runs).not.toContain('off');
  });

  it('never runs one task twice at a time, and goes on after a failure', async () => {
    let running = 0;
    let most = 0;
    let runs = 0;
    const log = new RecordingLog();
    const task: PeriodicTask = {
      name: 'slow',
      spacingMs: 1000,
      async run(until) {
        running += 1;
        runs += 1;
        most = Math.max(most, running);
        await sleep(5000, until);
        running -= 1;
        throw new Error('fails');
      },
    };
    const periodic = runner([task], log);

    await periodic.start();
    await vi.advanceTimersByTimeAsync(30_000);
    await periodic.stop(signal);

    expect(most).toBe(1);
    expect(runs).toBeGreaterThan(2);
    expect(log.lines.every(({ message }) => message.startsWith('periodic task failed'))).toBe(true);
    expect([runs - 1, runs]).toContain(log.lines.length);
  });
});

describe('the power table', () => {
  it.each([
    ['active', SHUTDOWN, 'stop'],
    ['active', CRASHED, 'stop'],
    ['active', SUSPENDED, 'stop'],
    ['active', PAUSED, 'log'],
    ['active', NOSTATE, 'log'],
    ['active', RUNNING, 'none'],
    ['stopped', RUNNING, 'stop'],
    ['stopped', PAUSED, 'stop'],
    ['stopped', NOSTATE, 'none'],
    ['stopped', SHUTDOWN, 'none'],
    ['paused', SHUTDOWN, 'stop'],
    ['paused', RUNNING, 'none'],
    ['building', SHUTDOWN, 'none'],
    ['rescued', SHUTDOWN, 'none'],
    ['error', RUNNING, 'none'],
  ] as const)('of %s with power %i says %s', (vmState, power, action) => {
    expect(powerAction({ vmState, power, deletesOnShutdown: false })).toBe(action);
  });

  it('deletes what is to be deleted when it shuts down', () => {
    expect(powerAction({ vmState: 'active', power: SHUTDOWN, deletesOnShutdown: true })).toBe('delete');
  });
});

class World {
  readonly conductor = new FakeConductor();
  readonly virt = new FakeVirtDriver({ nodeName: 'h' });
  readonly operations = new FakeOperations();
  readonly locks = new KeyedLock();
  readonly rows = new Map<string, Record<string, unknown>>();
  readonly sync: PowerSync;

  constructor() {
    this.conductor
      .on('InstanceList.get_by_host', () =>
        listOf(
          'InstanceList',
          [...this.rows.keys()].map((uuid) => this.instance(uuid)),
        ),
      )
      .on('Instance.get_by_uuid', ({ kwargs }) => {
        const { uuid } = kwargs as { uuid: string };
        if (!this.rows.has(uuid)) throw remote('InstanceNotFound', 'gone');
        return this.instance(uuid);
      });
    const { conductor, virt, operations, locks } = this;
    this.sync = new PowerSync({
      host: 'h',
      poolSize: 2,
      conductor,
      virt,
      operations,
      locks,
      log: silentLog,
      eventDelayMs: 1,
    });
  }

  instance(uuid: string): NovaObject<'Instance'> {
    const defaults = { uuid, host: 'h', vm_state: 'active', task_state: null, power_state: RUNNING };
    const object = createObject('Instance', { ...defaults, shutdown_terminate: false, ...this.rows.get(uuid) });
    object.resetChanges();
    return object;
  }

  add(uuid: string, power: PowerState, row: Record<string, unknown> = {}): void {
    this.rows.set(uuid, row);
    this.virt.instances.set(uuid, {
      spec: { name: uuid } as never,
      nics: [],
      volumes: [],
      guest: undefined,
      powerState: power,
      console: '',
    });
  }
}

describe('synchronising power states', () => {
  it('asks for nothing more when everything agrees', async () => {
    const world = new World();
    world.add('a', RUNNING);
    world.add('b', SHUTDOWN, { vm_state: 'stopped', power_state: SHUTDOWN });

    await world.sync.syncAll(signal);

    expect(world.conductor.names).toEqual(['InstanceList.get_by_host']);
  });

  it('stops in Nova what stopped by itself, as the API would', async () => {
    const world = new World();
    world.add('a', SHUTDOWN);

    await world.sync.syncAll(signal);

    expect(world.conductor.names.slice(1)).toEqual([
      'Instance.get_by_uuid',
      'Instance.save',
      'Instance.save',
      'InstanceAction.action_start',
    ]);
    const [power, task] = world.conductor.named('Instance.save');
    expect(power).toMatchObject({ changes: { power_state: SHUTDOWN }, options: { expectedTaskState: null } });
    expect(task?.changes).toMatchObject({ task_state: 'powering-off', progress: 0 });
    expect(world.conductor.named('InstanceAction.action_start')[0]?.args).toEqual(['a', 'stop']);
    expect(world.operations.calls).toEqual(['stop a clean']);
  });

  it('leaves alone what has a task, is worked on, or has moved', async () => {
    const world = new World();
    world.add('task', SHUTDOWN, { task_state: 'rebooting' });
    world.add('busy', SHUTDOWN);
    world.add('moved', SHUTDOWN, { host: 'elsewhere' });

    await world.locks.run('busy', () => world.sync.syncAll(signal));

    expect(world.conductor.named('Instance.save')).toEqual([]);
    expect(world.operations.calls).toEqual([]);
  });

  it('steps back when somebody begins a task meanwhile, and goes on with the others', async () => {
    const world = new World();
    world.add('a', SHUTDOWN);
    world.add('b', SHUTDOWN);
    world.conductor.on('Instance.save', ({ object }) => {
      if ((object as NovaObject<'Instance'>).get('uuid') === 'a') throw remote('UnexpectedTaskStateError', 'busy');
    });

    await world.sync.syncAll(signal);

    expect(world.operations.calls).toEqual(['stop b clean']);
  });

  it('follows the engine, a burst once, and not while the instance is worked on', async () => {
    const world = new World();
    world.add('a', RUNNING);
    world.add('b', RUNNING);
    const ending = new AbortController();
    world.sync.follow(ending.signal);

    world.virt.emit({ uuid: 'a', event: 'stopped' }, SHUTDOWN);
    world.virt.emit({ uuid: 'a', event: 'stopped' }, SHUTDOWN);
    await world.locks.run('b', async () => world.virt.emit({ uuid: 'b', event: 'stopped' }, SHUTDOWN));
    await vi.waitFor(() => expect(world.operations.calls).toEqual(['stop a clean']));
    ending.abort();
    world.virt.emit({ uuid: 'b', event: 'stopped' }, SHUTDOWN);
    await sleep(20);

    expect(world.operations.calls).toEqual(['stop a clean']);
  });

  it('ignores an event that is not true any more', async () => {
    const world = new World();
    world.add('a', RUNNING);
    world.sync.follow(signal);

    world.virt.emit({ uuid: 'a', event: 'stopped' }, RUNNING);
    await sleep(30);

    expect(world.conductor.calls).toEqual([]);
  });
});

describe('guests of deleted instances', () => {
  function parts(world: World, config = '', now = 100_000) {
    const { conductor, virt, operations, locks } = world;
    const periodic = testConfig(config).periodic;
    return { config: periodic, host: 'h', conductor, virt, operations, locks, log: silentLog, now: () => now };
  }

  function deleted(world: World, fields: Record<string, unknown> = {}): void {
    world.conductor.on('InstanceList.get_by_filters', ({ args }) => {
      const [filters] = args as [{ uuid?: string[] }];
      const uuids = filters.uuid ?? [...world.rows.keys()];
      const rows = uuids.map((uuid) =>
        createObject('Instance', { uuid, deleted: true, deleted_at: new Date(50_000), system_metadata: {}, ...fields }),
      );
      for (const row of rows) row.resetChanges();
      return listOf('InstanceList', rows);
    });
  }

  it.each([
    ['reap', ['removeGuest a'], RUNNING],
    ['shutdown', [], SHUTDOWN],
    ['log', [], RUNNING],
    ['noop', [], RUNNING],
  ])('are treated as %s wants', async (action, calls, power) => {
    const world = new World();
    world.add('a', RUNNING);
    deleted(world);

    await cleanUpRunningDeleted(parts(world, `running_deleted_instance_action = ${action}`), signal);

    expect(world.operations.calls).toEqual(calls);
    expect(world.virt.instances.get('a')?.powerState).toBe(power);
  });

  it('get their time, and cost no question when there is no guest', async () => {
    const world = new World();
    deleted(world);
    await cleanUpRunningDeleted(parts(world), signal);
    const without = world.conductor.calls.length;
    world.add('a', RUNNING);

    await cleanUpRunningDeleted(parts(world, 'running_deleted_instance_timeout = 60'), signal);

    expect(without).toBe(0);
    expect(world.operations.calls).toEqual([]);
  });

  it('have their disks removed, with a limited number of attempts', async () => {
    const world = new World();
    world.add('a', SHUTDOWN);
    deleted(world, { system_metadata: { clean_attempts: '3', image_x: 'y' } });

    await runPendingDeletes(parts(world), signal);
    world.virt.failNext('destroy', new Error('busy'));
    deleted(world, { system_metadata: { clean_attempts: '4' } });
    await runPendingDeletes(parts(world), signal);
    deleted(world, { system_metadata: { clean_attempts: '5' } });
    await runPendingDeletes(parts(world), signal);

    expect(world.virt.instances.has('a')).toBe(false);
    expect(world.conductor.named('Instance.save').map(({ changes }) => changes)).toEqual([
      { system_metadata: { clean_attempts: '4', image_x: 'y' }, cleaned: true },
      { system_metadata: { clean_attempts: '5' } },
    ]);
    expect(world.conductor.named('Instance.save').every(({ context }) => context.readDeleted === 'yes')).toBe(true);
  });

  it('that were deleted softly are reclaimed when their time is over', async () => {
    const world = new World();
    world.add('a', SHUTDOWN);
    deleted(world);

    await reclaimQueuedDeletes(parts(world, 'reclaim_instance_interval = 60'), signal);
    const early = [...world.operations.calls];
    await reclaimQueuedDeletes(parts(world, 'reclaim_instance_interval = 40'), signal);

    expect(early).toEqual([]);
    expect(world.operations.calls).toEqual(['terminate a']);
  });
});

describe('the audit of usage', () => {
  const NOW = new Date('2026-03-17T10:20:00Z');
  const PERIOD = ['2026-02-01T00:00:00.000000', '2026-03-01T00:00:00.000000'];

  function audit(conductor: FakeConductor) {
    const told: unknown[] = [];
    const moment = (
      _context: unknown,
      instance: NovaObject<'Instance'>,
      { name, period }: { name: string; period?: object },
    ) => void told.push([instance.get('uuid'), name, period]);
    const notifications = { moment, failure: () => undefined };
    const parts = { config: { ...testConfig(''), host: 'fake1' }, conductor, notifications, log: silentLog };
    return { told, run: () => auditUsage(parts, NOW) };
  }

  it('tells of every instance of the last whole period, once, with Nova keeping count', async () => {
    const gone = createObject('Instance', { uuid: 'gone' });
    const conductor = new FakeConductor()
      .on('TaskLog.get', () => null)
      .on('InstanceList._get_active_by_window_joined', () =>
        listOf('InstanceList', [createObject('Instance', { uuid: 'here' }), gone]),
      );
    const { told, run } = audit(conductor);

    await run();

    const period = { begin: new Date('2026-02-01'), end: new Date('2026-03-01') };
    expect(told).toEqual([
      ['here', 'exists', period],
      ['gone', 'exists', period],
    ]);
    expect(conductor.named('TaskLog.get')[0]?.args).toEqual(['instance_usage_audit', ...PERIOD, 'fake1']);
    expect(conductor.named('InstanceList._get_active_by_window_joined')[0]?.args).toEqual([...PERIOD, null, 'fake1']);
    expect(conductor.named('TaskLog.begin_task')[0]?.changes).toMatchObject({ host: 'fake1', task_items: 2 });
    expect(conductor.named('TaskLog.end_task')[0]?.changes).toMatchObject({ errors: 0 });
  });

  it('is not done twice, nor by two at a time', async () => {
    const done = new FakeConductor().on('TaskLog.get', () => createObject('TaskLog', { state: 'DONE' }));
    const begun = new FakeConductor()
      .on('TaskLog.get', () => null)
      .on('InstanceList._get_active_by_window_joined', () =>
        listOf('InstanceList', [createObject('Instance', { uuid: 'here' })]),
      )
      .on('TaskLog.begin_task', () => {
        throw remote('TaskAlreadyRunning', 'it runs already');
      });

    for (const conductor of [done, begun]) {
      const { told, run } = audit(conductor);
      await run();
      expect(told).toEqual([]);
      expect(conductor.named('TaskLog.end_task')).toEqual([]);
    }
  });

  it.each([
    ['month', '2026-03-01T00:00:00Z', '2026-01-01', '2026-02-01'],
    ['month@15', '2026-01-20T00:00:00Z', '2025-12-15', '2026-01-15'],
    ['day@6', '2026-03-01T05:00:00Z', '2026-02-27T06:00', '2026-02-28T06:00'],
    ['hour', '2026-01-01T00:30:00Z', '2025-12-31T23:00', '2026-01-01T00:00'],
    ['year@4', '2026-03-01T00:00:00Z', '2024-04-01', '2025-04-01'],
  ])('is about the last %s that is over at %s', (unit, now, begin, end) => {
    const date = (text: string): Date => new Date(text.includes('T') ? `${text}Z` : text);

    expect(lastPeriod(unit, new Date(now))).toEqual({ begin: date(begin), end: date(end) });
  });
});
