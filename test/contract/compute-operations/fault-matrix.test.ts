// Operation by service by fault, with the outcome of each cell: what the user sees while a service is away or answers 500, and
// that a service which takes 30 s for every answer changes nothing but the time.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FAULTS, Outage, type ServiceName, SERVICES } from './outage.ts';
import { OUTCOMES } from './outcomes.ts';
import { type Scene, SCENES } from './scenes.ts';

const POWER: Readonly<Record<number, string>> = { 1: 'runs', 3: 'paused', 4: 'off' };
const SLOW_MS = 30_000;
const UUID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;

async function failureOf({ perform, computes }: Scene): Promise<unknown> {
  const failure = await perform().then(
    () => undefined,
    (error: unknown) => error ?? 'unknown',
  );
  for (const { operations } of computes) await operations.drain(AbortSignal.timeout(3600_000));
  return failure;
}

/** The guests of the instance, by host. */
function guestsOf({ computes, instance }: Scene): string {
  const { uuid } = instance['nova_object.data'];
  return computes
    .map(({ virt }) => virt.instances.get(uuid))
    .map((guest) => {
      if (guest === undefined) return 'none';
      const power = POWER[guest.powerState] ?? String(guest.powerState);
      return `${power}${guest.rescued ? ' in rescue' : ''}${guest.isArriving === true ? ' arriving' : ''}`;
    })
    .join(' and ');
}

/** As user and administrator see it: state, task, guests, host, allocation, move, and the newest fault. */
function outcomeOf(scene: Scene): string {
  const [{ plane, placement }] = scene.computes;
  const { uuid } = scene.instance['nova_object.data'];
  const row = plane.instances.get(uuid);
  const fault = plane.faults.at(-1)?.['message'] as string | undefined;
  const move = plane.migrations.get(1)?.['status'];
  const parts = [
    row === undefined ? 'deleted' : String(row['vm_state']),
    ...(row?.['task_state'] ? [String(row['task_state'])] : []),
    `guest ${guestsOf(scene)}`,
    ...(row?.['host'] === null ? ['no host'] : []),
    ...(placement.consumers.has(uuid) ? [] : ['no allocation']),
    ...(move === undefined ? [] : [`move ${move}`]),
  ];
  const isClass = fault === 'AppError' || fault === 'OpenStackError';
  const text = isClass ? 'the class of the error' : fault?.replaceAll(uuid, 'ID').replaceAll(UUID, 'ID');
  return `${parts.join(', ')}${text === undefined ? '' : `: ${text}`}`;
}

/** What there is at the services and on the hosts, beyond states. */
function belongingsOf({ computes }: Scene): unknown {
  const [{ plane, neutron, cinder, placement }] = computes;
  return {
    ports: [...neutron.ports.values()].map((port) => [port['binding:host_id'], port.device_owner]),
    attachments: [...cinder.attachments.values()].map(({ isComplete, connector }) => [isComplete, connector !== null]),
    devices: plane.blockDevices.length,
    interfaces: plane.virtualInterfaces.length,
    allocations: placement.consumers.size,
    events: plane.events,
    images: computes.map(({ glance }) => [...glance.images.values()].map(({ id, status }) => [id, status])),
    plugged: computes.map(({ vif }) => vif.plugged.size),
    snapshots: computes.map(({ virt }) => virt.openSnapshots),
  };
}

async function sceneOf(name: string): Promise<Scene> {
  const scene = await SCENES[name]?.();
  if (!scene) throw new Error(`no scene ${name}`);
  return scene;
}

/** Without a fault; `asked` are the services that the operation needs at all. */
async function undisturbed(name: string) {
  await using scene = await sceneOf(name);
  const watched = SERVICES.map((service) => [service, new Outage(service, scene.computes, FAULTS['is down'])] as const);
  expect(await failureOf(scene)).toBeUndefined();
  const asked = watched.flatMap(([service, { calls }]) => (calls > 0 ? [service] : []));
  return { asked, outcome: outcomeOf(scene), belongings: belongingsOf(scene) };
}

async function disturbed(name: string, service: ServiceName, fault: (service: ServiceName) => Error): Promise<string> {
  await using scene = await sceneOf(name);
  const [{ plane }] = scene.computes;
  new Outage(service, scene.computes, fault).begin();
  const failure = await failureOf(scene);
  if (service === 'conductor') return outcomeOf(scene);
  // whoever asks hears of it: the event has ended, and a failure is written down
  const results = plane.events.map(({ result }) => result);
  expect(results, `events with ${service} away`).not.toContain('started');
  if (failure !== undefined) expect(results.includes('Error') || plane.faults.length > 0).toBe(true);
  return outcomeOf(scene);
}

describe('a service that is away, or answers 500', () => {
  it.each(Object.keys(SCENES))('during %s', async (name) => {
    const usual = await undisturbed(name);
    const outcomes: Partial<Record<ServiceName, string>> = {};
    for (const service of usual.asked) {
      const ends = new Set<string>();
      for (const fault of Object.values(FAULTS)) ends.add(await disturbed(name, service, fault));
      const end = [...ends].join(' | ');
      if (end !== usual.outcome) outcomes[service] = end;
    }
    expect(outcomes).toEqual(OUTCOMES[name] ?? {});
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
    const over = new AbortController();
    const result = work.finally(() => over.abort());
    result.catch(() => undefined);
    while (!over.signal.aborted) {
      await new Promise((resolve) => setImmediate(resolve));
      await vi.advanceTimersByTimeAsync(5000);
    }
    return await result;
  }

  it.each(Object.keys(SCENES))('changes nothing of %s, even when it is all of them', async (name) => {
    const { outcome, belongings } = await inTestTime(undisturbed(name));
    await using scene = await inTestTime(sceneOf(name));
    for (const service of SERVICES) new Outage(service, scene.computes, FAULTS['is down']).slow(SLOW_MS);

    const failure = await inTestTime(failureOf(scene));

    expect(failure).toBeUndefined();
    expect({ outcome: outcomeOf(scene), belongings: belongingsOf(scene) }).toEqual({ outcome, belongings });
    const complaints = scene.computes.flatMap(({ log }) => log.lines.filter(({ level }) => /error|warn/.test(level)));
    expect(complaints).toEqual([]);
  });
});
