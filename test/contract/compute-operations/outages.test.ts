// Each service away from each moment of each operation on: what is left is consistent, the user is told, and when the service is
// back the instance can be deleted without a trace. The conductor being away is as a kill of the compute: a restart puts it right.
import { describe, expect, it } from 'vitest';
import { recoverInstances } from '#src/compute/recovery/recover-instances.ts';
import { AppError } from '#src/lib/errors.ts';
import { RequestContext } from '#src/nova/context.ts';
import { expectObject, fromPrimitive } from '#src/nova/objects/object.ts';
import { buildArgs, ComputeHarness, HOST, instanceOf, networkRequests } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

const SERVICES = ['engine', 'glance', 'neutron', 'placement', 'conductor'] as const;
type ServiceName = (typeof SERVICES)[number];

/** How a request fails, as the clients of the services say it, and after how many that went well. */
const FAULTS: Readonly<Record<string, { readonly fault: () => Error; readonly moments: readonly number[] }>> = {
  'is down': {
    fault: () => new AppError('unavailable', 'connection refused'),
    moments: [0, 1, 2, 3, 4, 6, 9],
  },
  'answers 500': { fault: () => new AppError('internal', 'Internal Server Error'), moments: [0] },
};

const OURS = /^(add|fail|emit|checkFlavor|asPlacement|onLifecycle|start$|stop$|constructor|names|named|next|cast)/;

/** The calls of one fake, of which all from a moment on may fail. */
class Outage {
  calls = 0;
  #failFrom = Number.POSITIVE_INFINITY;
  readonly #fault: () => Error;

  constructor(target: object, fault: () => Error) {
    this.#fault = fault;
    const prototype = Object.getPrototypeOf(target) as object;
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (typeof value !== 'function' || OURS.test(name)) continue;
      const method = value as (...args: unknown[]) => unknown;
      Object.defineProperty(target, name, {
        value: async (...args: unknown[]) => {
          this.calls += 1;
          if (this.calls > this.#failFrom) throw this.#fault();
          return await method.apply(target, args);
        },
      });
    }
  }

  begin(afterCalls: number): void {
    this.calls = 0;
    this.#failFrom = afterCalls;
  }

  heal(): void {
    this.#failFrom = Number.POSITIVE_INFINITY;
  }
}

interface Operation {
  /** Of the row when the API has prepared it. */
  readonly state: Json;
  readonly args: (harness: ComputeHarness, instance: Json) => Json;
  readonly method?: string;
  /** The guest is off before. */
  readonly isOff?: boolean;
}

const NOTHING = { network_id: null, port_id: null, requested_ip: null, tag: null };
const none = (): Json => ({});
const portOf = (harness: ComputeHarness): string => [...harness.neutron.ports.keys()][0] ?? '';

const OPERATIONS: Readonly<Record<string, Operation>> = {
  stop_instance: { state: { task_state: 'powering-off' }, args: () => ({ clean_shutdown: false }) },
  start_instance: { state: { vm_state: 'stopped', task_state: 'powering-on' }, isOff: true, args: none },
  reboot_instance: { state: { task_state: 'rebooting_hard' }, args: () => ({ reboot_type: 'HARD' }) },
  pause_instance: { state: { task_state: 'pausing' }, args: none },
  suspend_instance: { state: { task_state: 'suspending' }, args: none },
  soft_delete_instance: { state: { task_state: 'soft-deleting' }, args: none },
  terminate_instance: { state: { task_state: 'deleting' }, args: () => ({ bdms: null }) },
  set_admin_password: { state: { task_state: 'updating_password' }, args: () => ({ new_pass: 'secret' }) },
  snapshot_instance: { state: { task_state: 'image_snapshot_pending' }, args: () => ({ image_id: 'snap' }) },
  shelve_instance: { state: { task_state: 'shelving' }, args: () => ({ image_id: 'snap', clean_shutdown: false }) },
  rescue_instance: {
    state: { task_state: 'rescuing' },
    args: () => ({ rescue_password: 'x', rescue_image_ref: 'new', clean_shutdown: false }),
  },
  rebuild_instance: {
    state: { task_state: 'rebuilding', image_ref: 'new' },
    args: () => ({
      image_ref: 'new',
      orig_image_ref: 'image-1',
      orig_sys_metadata: {},
      injected_files: [],
      bdms: null,
    }),
  },
  attach_interface: {
    state: {},
    args: ({ neutron }) => ({ ...NOTHING, network_id: neutron.addNetwork({ name: 'second' }).id }),
  },
  detach_interface: { state: {}, args: (harness) => ({ port_id: portOf(harness) }) },
};

async function prepared(harness: ComputeHarness, { state, isOff = false }: Operation): Promise<Json> {
  const instance = instanceOf();
  const network = harness.neutron.addNetwork({ tenant_id: 'project' });
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  const uuid: string = instance['nova_object.data'].uuid;
  if (isOff) await harness.virt.powerOff(uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));
  Object.assign(harness.row(instance), state);
  harness.plane.events.length = 0;
  harness.glance.addQueued('snap');
  harness.glance.addActive('new');
  return instanceOf(harness.row(instance));
}

function targetOf(harness: ComputeHarness, service: ServiceName): object {
  const targets = { engine: harness.virt, glance: harness.glance, neutron: harness.neutron };
  return { ...targets, placement: harness.placement, conductor: harness.plane }[service];
}

/** Undefined when it succeeded. */
async function failureOf(harness: ComputeHarness, method: string, args: Json): Promise<unknown> {
  const failure = await harness.send(method, args).then(
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

function expectConsistent(harness: ComputeHarness, instance: Json): void {
  const row = harness.plane.instances.get(instance['nova_object.data'].uuid);
  if (row === undefined) return;
  const guest = harness.virt.instances.get(row['uuid']);
  if (row['vm_state'] === 'error') return;
  expect(row['task_state']).toBe(null);
  if (row['vm_state'] === 'shelved_offloaded') expect(guest).toBeUndefined();
  // offloading can be asked for again
  else if (row['vm_state'] !== 'shelved') expect(guest).toBeDefined();
  if (row['vm_state'] === 'rescued') expect(guest?.rescued).toBeDefined();
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
}

describe.each(SERVICES)('%s', (service) => {
  describe.each(Object.entries(FAULTS))('%s', (_what, { fault, moments }) => {
    it.each(Object.entries(OPERATIONS))('during %s', async (method, operation) => {
      for (const after of moments) {
        await using harness = new ComputeHarness();
        const outage = new Outage(targetOf(harness, service), fault);
        const instance = await prepared(harness, operation);
        const args = { instance, ...operation.args(harness, instance) };
        outage.begin(after);
        const failure = await failureOf(harness, method, args);
        const isOver = outage.calls <= after;
        outage.heal();
        if (isOver) expect(failure, `${method} without a fault`).toBeUndefined();
        const where = `${method}, ${service} away after ${after} calls`;
        try {
          if (service === 'conductor') await restart(harness);
          else if (failure !== undefined) {
            const told = harness.plane.events.map(({ result }) => result);
            expect([...told, ...harness.plane.faults.map(() => 'fault')]).not.toEqual([]);
            expect(told).not.toContain('started');
          }
          expectConsistent(harness, instance);
          await expectDeletable(harness, instance);
        } catch (error) {
          throw new Error(`${where}: ${String(error)} ${JSON.stringify({ failure: String(failure) })}`, {
            cause: error,
          });
        }
        if (isOver) break;
      }
    });

    it('during build_and_run_instance', async () => {
      for (const after of moments) {
        await using harness = new ComputeHarness();
        const outage = new Outage(targetOf(harness, service), fault);
        const network = harness.neutron.addNetwork({ tenant_id: 'project' });
        const instance = instanceOf();
        harness.plane.add(instance);
        const requested = networkRequests({ network_id: network.id });
        outage.begin(after);
        await failureOf(harness, 'build_and_run_instance', buildArgs(instance, { requested_networks: requested }));
        const isOver = outage.calls <= after;
        outage.heal();
        const row = harness.row(instance);
        const state = `${row['vm_state']} ${row['task_state']} ${row['host']}`;
        const where = `build, ${service} away after ${after} calls: ${state}`;
        if (service === 'conductor') {
          await restart(harness);
          // where the claim was not written yet, the start finds it by its allocation
          if (row['host'] !== null)
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
        if (isOver) break;
      }
    });
  });
});
