// Each service away from each moment of each operation on: what is left is consistent, the user is told, and when the service is
// back the instance can be deleted without a trace. What the conductor being away leaves behind is put right by the compute itself, or
// by a restart.
import { describe, expect, it } from 'vitest';
import { OutageRecovery } from '#src/compute/recovery/after-outage.ts';
import { recoverInstances } from '#src/compute/recovery/recover-instances.ts';
import { RequestContext } from '#src/nova/context.ts';
import { expectObject, fromPrimitive } from '#src/nova/objects/object.ts';
import { type ComputeHarness, HOST, instanceOf } from '#test/fakes/compute-harness.ts';
import { FAULTS, Outage, type ServiceName, SERVICES } from './outage.ts';
import { building, type Scene, SIMPLE } from './scenes.ts';

type Json = Readonly<Record<string, any>>;

/** After how many calls that went well the service is away. */
const MOMENTS: Readonly<Record<keyof typeof FAULTS, readonly number[]>> = {
  'is down': [0, 1, 2, 3, 5, 8],
  'answers 500': [0],
};
/** What it comes to when it cannot be called at all is in fault-matrix.test.ts. */
const EACH = Object.entries(MOMENTS) as [keyof typeof FAULTS, readonly number[]][];

/** Undefined when it succeeded. */
async function failureOf({ perform, computes: [harness] }: Scene): Promise<unknown> {
  const failure = await perform().then(
    () => undefined,
    (error: unknown) => error ?? 'unknown',
  );
  await harness.operations.drain(AbortSignal.timeout(9000));
  return failure;
}

/** As a restart does before it takes work. */
async function restart(harness: ComputeHarness): Promise<void> {
  const { services, operations, log, plane, virt } = harness;
  const rows = [...plane.instances.values()].filter((row) => row['host'] === HOST);
  const instances = rows.map((row) => expectObject(fromPrimitive(instanceOf(row)), 'Instance'));
  const signal = AbortSignal.timeout(5000);
  const powers = new Map((await virt.listInstances(signal)).map(({ uuid, powerState }) => [uuid, powerState]));
  const parts = { context: RequestContext.admin(), conductor: services.conductor, operations, log };
  await recoverInstances({ ...parts, resumesGuests: false }, instances, powers, signal);
}

/** As the service does when the conductor answers again. */
async function lookAfter({ services, operations }: ComputeHarness): Promise<void> {
  await new OutageRecovery(services, operations, 1).begin();
}

/** How things are put right; only the conductor is needed for that. */
const curesOf = (service: ServiceName) => (service === 'conductor' ? [restart, lookAfter] : [async () => {}]);

/** Each cure after an outage from each moment on, until `trial` says that the operation was over before. */
async function tryEach(
  service: ServiceName,
  moments: readonly number[],
  trial: (after: number, cure: (harness: ComputeHarness) => Promise<void>) => Promise<boolean>,
): Promise<void> {
  for (const cure of curesOf(service)) {
    for (const after of moments) if (await trial(after, cure)) break;
  }
}

function expectConsistent({ computes: [harness], instance }: Scene, service: ServiceName): void {
  const row = harness.plane.instances.get(instance['nova_object.data'].uuid);
  if (row === undefined) return;
  // on its way to a host that could not be told so: that is the API's to reset
  if (row['vm_state'] === 'shelved_offloaded' && service === 'conductor') return;
  const guest = harness.virt.instances.get(row['uuid']);
  if (row['vm_state'] === 'error') return;
  expect(row['task_state']).toBe(null);
  // what an engine that was away kept of an unshelving goes with the next one, or with the instance
  if (row['vm_state'] === 'shelved_offloaded') expect(service === 'engine' || guest === undefined).toBe(true);
  // offloading, and the end of a rescue, can be asked for again
  else if (row['vm_state'] !== 'shelved') expect(guest).toBeDefined();
}

/** Deletes it as a user does, and looks whether anything is left. */
async function expectDeletable(harness: ComputeHarness, instance: Json): Promise<void> {
  const row = harness.plane.instances.get(instance['nova_object.data'].uuid);
  if (row !== undefined) {
    // where no host has it the API deletes it by itself
    if (row['host'] === null) return;
    row['task_state'] = 'deleting';
    await harness.send('terminate_instance', { instance: instanceOf(row), bdms: null });
  }
  expect([...harness.virt.instances.keys()]).toEqual([]);
  expect([...harness.vif.plugged.keys()]).toEqual([]);
  expect([...harness.neutron.ports.keys()]).toEqual([]);
  expect(harness.virt.openSnapshots).toBe(0);
  expect([harness.cinder.attachments.size, harness.volumes.connected.size]).toEqual([0, 0]);
}

describe.each(SERVICES)('%s', (service) => {
  describe.each(EACH)('%s', (what, moments) => {
    it.each(Object.entries(SIMPLE))('during %s', async (method, prepare) => {
      await tryEach(service, moments, async (after, cure) => {
        await using scene = await prepare();
        const { computes, instance } = scene;
        const [harness] = computes;
        const outage = new Outage(service, computes, FAULTS[what]);
        outage.begin(after);
        const failure = await failureOf(scene);
        const isOver = outage.calls <= after;
        outage.heal();
        if (isOver) expect(failure, `${method} without a fault`).toBeUndefined();
        const where = `${method}, ${service} away after ${after} calls`;
        try {
          await cure(harness);
          if (service !== 'conductor' && failure !== undefined) {
            const told = harness.plane.events.map(({ result }) => result);
            expect([...told, ...harness.plane.faults.map(() => 'fault')]).not.toEqual([]);
            expect(told).not.toContain('started');
          }
          expectConsistent(scene, service);
          await expectDeletable(harness, instance);
        } catch (error) {
          throw new Error(`${where}: ${String(error)} ${JSON.stringify({ failure: String(failure) })}`, {
            cause: error,
          });
        }
        return isOver;
      });
    });

    it('during build_and_run_instance', async () => {
      await tryEach(service, moments, async (after, cure) => {
        await using scene = await building();
        const { computes, instance } = scene;
        const [harness] = computes;
        const outage = new Outage(service, computes, FAULTS[what]);
        outage.begin(after);
        await failureOf(scene);
        const isOver = outage.calls <= after;
        outage.heal();
        const row = harness.row(instance);
        const state = `${row['vm_state']} ${row['task_state']} ${row['host']}`;
        const where = `build, ${service} away after ${after} calls: ${state}`;
        await cure(harness);
        if (service === 'conductor') {
          // where the claim was not written yet, a start finds it by its allocation, or not
          if (row['host'] !== null || cure === lookAfter)
            expect(['active null', 'error null'], where).toContain(`${row['vm_state']} ${row['task_state']}`);
        } else {
          const ends = [`active null ${HOST}`, 'error null null', 'building scheduling null'];
          expect(ends, where).toContain(state);
          if (isOver) expect(state).toBe(`active null ${HOST}`);
          if (row['vm_state'] === 'error') expect(harness.plane.faults.length, where).toBeGreaterThan(0);
          if (row['host'] === null && service !== 'engine') {
            expect([harness.virt.instances.size, harness.vif.plugged.size], where).toEqual([0, 0]);
          }
        }
        await expectDeletable(harness, instance);
        return isOver;
      });
    });
  });
});
