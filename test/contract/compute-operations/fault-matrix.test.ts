// Operation by service by fault, with the outcome of each cell: what the user sees while a service is away or answers 500, and
// that a service which takes 30 s for every answer changes nothing but the time.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { messageOf } from '#src/lib/errors.ts';
import { FAULTS, Outage, type ServiceName, SERVICES } from './outage.ts';
import { OUTCOMES } from './outcomes.ts';
import { type Scene, SCENES } from './scenes.ts';

const POWER: Readonly<Record<number, string>> = { 1: 'runs', 3: 'paused', 4: 'off' };
const SLOW_MS = 30_000;

async function failureOf({ perform, computes }: Scene): Promise<unknown> {
  const failure = await perform().then(
    () => undefined,
    (error: unknown) => error ?? 'unknown',
  );
  for (const { operations } of computes) await operations.drain(AbortSignal.timeout(3600_000));
  return failure;
}

/** The guests of the instance, by host; a rescued one is that and its own. */
function guestsOf({ computes, instance }: Scene): string {
  const { uuid } = instance['nova_object.data'];
  return computes
    .map(({ virt }) => virt.instances.get(uuid))
    .map((guest) => {
      if (guest === undefined) return 'none';
      const power = POWER[guest.powerState] ?? String(guest.powerState);
      return `${power}${guest.rescued ? ' rescued' : ''}${guest.isArriving === true ? ' arriving' : ''}`;
    })
    .join(' and ');
}

/** As the user and the administrator see it: state, task, host, guests, fault, allocation. */
function outcomeOf(scene: Scene): string {
  const { computes, instance } = scene;
  const [{ plane, placement }] = computes;
  const { uuid } = instance['nova_object.data'];
  const row = plane.instances.get(uuid);
  const fault = plane.faults.at(-1)?.['message'] as string | undefined;
  const parts = [
    row === undefined ? 'deleted' : String(row['vm_state']),
    ...(row?.['task_state'] ? [String(row['task_state'])] : []),
    `guest ${guestsOf(scene)}`,
    ...(row?.['host'] === null ? ['no host'] : []),
    ...(placement.consumers.has(uuid) ? [] : ['no allocation']),
    ...(plane.migrations.get(1) ? [`migration ${plane.migrations.get(1)?.['status']}`] : []),
  ];
  const told = fault === undefined ? '' : `: ${fault.replaceAll(uuid, 'ID')}`;
  return `${parts.join(', ')}${told}`;
}

/** What is left of things at the services, beyond states. */
function belongingsOf(scene: Scene): unknown {
  const [{ plane, neutron, cinder, placement }] = scene.computes;
  return {
    ports: [...neutron.ports.values()].map((port) => [port['binding:host_id'], port.device_owner]),
    attachments: [...cinder.attachments.values()].map(({ isComplete, connector }) => [isComplete, connector !== null]),
    devices: plane.blockDevices.length,
    interfaces: plane.virtualInterfaces.length,
    allocations: placement.consumers.size,
    events: plane.events,
    images: scene.computes.map(({ glance }) => [...glance.images.values()].map(({ id, status }) => [id, status])),
    plugged: scene.computes.map(({ vif }) => vif.plugged.size),
    snapshots: scene.computes.map(({ virt }) => virt.openSnapshots),
  };
}

async function undisturbed(name: string): Promise<{ readonly outcome: string; readonly belongings: unknown }> {
  await using scene = await SCENES[name]?.() ?? raise(name);
  expect(await failureOf(scene)).toBeUndefined();
  return { outcome: outcomeOf(scene), belongings: belongingsOf(scene) };
}

function raise(name: string): never {
  throw new Error(`no scene ${name}`);
}

/** Events that began have ended, and a failure that a caller hears of is written down. */
function expectTold({ computes }: Scene, failure: unknown): void {
  const [{ plane }] = computes;
  expect(plane.events.map(({ result }) => result)).not.toContain('started');
  if (failure !== undefined) expect([...plane.faults, ...plane.events.filter(({ result }) => result === 'Error')]).not.toEqual([]);
}

describe.each(Object.keys(SCENES))('%s', (name) => {
  it.each(SERVICES)('with %s away, or answering 500', async (service) => {
    const usual = await undisturbed(name);
    for (const [what, fault] of Object.entries(FAULTS)) {
      await using scene = await SCENES[name]?.() ?? raise(name);
      const outage = new Outage(service, scene.computes, fault);
      outage.begin();
      const failure = await failureOf(scene);
      outage.heal();

      const expected = OUTCOMES[name]?.[service] ?? usual.outcome;
      expect(outcomeOf(scene), `${what}, failure ${messageOf(failure)}`).toBe(expected);
      if (service !== 'conductor') expectTold(scene, failure);
      if (OUTCOMES[name]?.[service] === undefined) expect(belongingsOf(scene)).toEqual(usual.belongings);
    }
  });
});

describe('a service that takes 30 s for each answer', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'] });
    // the limits of what is waited for run on the same clock
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => {
      const limit = new AbortController();
      setTimeout(() => limit.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')), ms);
      return limit.signal;
    });
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  /** Streams end on the real clock, everything else on that of the test. */
  async function inTestTime<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const result = work.finally(() => {
      isOver = true;
    });
    result.catch(() => undefined);
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      await vi.advanceTimersByTimeAsync(2500);
    }
    return await result;
  }

  it.each(Object.keys(SCENES))('changes nothing of %s', async (name) => {
    const usual = await inTestTime(undisturbed(name));
    for (const service of SERVICES) {
      await using scene = await inTestTime((SCENES[name] ?? raise(name))());
      const outage = new Outage(service, scene.computes, FAULTS['is down']);
      outage.slow(SLOW_MS);

      const failure = await inTestTime(failureOf(scene));

      const calls = `${service}, ${outage.calls} calls`;
      outage.heal();
      expect(failure, calls).toBeUndefined();
      expect({ outcome: outcomeOf(scene), belongings: belongingsOf(scene) }, calls).toEqual(usual);
      for (const { log } of scene.computes) expect(log.lines.filter(({ level }) => level === 'error')).toEqual([]);
    }
  });
});
