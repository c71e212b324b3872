// Recorded operations of a stock Zed compute, played against ours: same states, faults and events, no more traffic.
import { describe, expect, it } from 'vitest';
import { NovaException, novaException } from '#src/nova/exceptions.ts';
import { withoutChanges } from '#src/nova/objects/primitive.ts';
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import type { ComputeHarness } from '#test/fakes/compute-harness.ts';
import { compared, harnessFor, type Received, recordingOf, type Step, stepsOf, surplus } from './replay.ts';

type Json = Readonly<Record<string, any>>;

/** The states that a save writes, and those that it expects. */
const STATE_FIELDS = ['vm_state', 'task_state', 'power_state', 'host', 'node', 'launched_on', 'availability_zone'];

function statesOf(steps: readonly Step[]): readonly Json[] {
  return steps
    .filter(({ what }) => what === 'Instance.save')
    .map(({ changes, expected }) => ({
      ...Object.fromEntries(STATE_FIELDS.filter((field) => field in changes).map((field) => [field, changes[field]])),
      ...(expected !== undefined && { expected }),
    }));
}

/** A field that a stock compute sends although it has not changed is no difference. */
function mergedStates(steps: readonly Step[], { args }: Received): readonly Json[] {
  const before = args['instance']['nova_object.data'];
  let known: Json = Object.fromEntries(STATE_FIELDS.map((field) => [field, before[field]]));
  return statesOf(steps).map((step) => {
    const { expected, ...fields } = step;
    known = { ...known, ...fields };
    return { ...known, ...(expected !== undefined && { expected }) };
  });
}

function eventsOf(steps: readonly Step[]): readonly unknown[] {
  return steps
    .filter(({ what }) => what.startsWith('InstanceActionEvent.'))
    .map(({ what, args, kwargs }) => [
      what,
      args[1],
      kwargs['exc_tb'] === undefined ? null : kwargs['exc_tb'] === null,
    ]);
}

function faultsOf(steps: readonly Step[]): readonly unknown[] {
  return steps
    .filter(({ what }) => what === 'InstanceFault.create')
    .map(({ changes: { code, message, host } }) => ({ code, message, host }));
}

/** Plays the first message of that method; what we sent, and what the stock compute did. */
async function play(
  name: string,
  method: string,
  { arrange, host }: { readonly arrange?: (harness: ComputeHarness) => void; readonly host?: string } = {},
) {
  const recording = recordingOf(name);
  const received = recording.received.find(
    (message) => message.method === method && (host === undefined || message.host === host),
  );
  if (!received) throw new Error(`${name} has no ${method}`);
  const harness = harnessFor(received);
  arrange?.(harness);
  if (!['build_and_run_instance', 'unshelve_instance'].includes(method)) await bringUp(harness, received);
  await harness.send(method, received.args, { context: received.context });
  await harness.operations.drain(AbortSignal.timeout(9000));
  const ours = compared(stepsOf(harness.plane.sent));
  const theirs = compared(recording.stepsOf(received));
  return { harness, received, ours, theirs, theirRequests: recording.requestsOf(received) };
}

/** The guest that the recorded compute had. */
async function bringUp(harness: ComputeHarness, { args }: Received): Promise<void> {
  const data = args['instance']['nova_object.data'];
  const isRunning = ['active', 'resized'].includes(data.vm_state);
  await harness.virt.spawn(
    {
      uuid: data.uuid,
      name: `instance-${data.id}`,
      displayName: data.display_name,
      hostname: data.hostname,
      projectId: data.project_id,
      userId: data.user_id,
      flavor: { vcpus: 1, memoryMib: 64, rootGib: 1, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
      image: {
        id: 'i',
        cacheKey: 'i',
        name: 'i',
        diskFormat: 'raw',
        containerFormat: 'bare',
        sizeBytes: null,
        properties: {},
        open: async () => (await import('node:stream')).Readable.from([]),
      },
    },
    { network: async () => [] },
    AbortSignal.timeout(1000),
  );
  if (['paused', 'suspended'].includes(data.vm_state)) await harness.virt.pause(data.uuid, AbortSignal.timeout(1000));
  else if (!isRunning) await harness.virt.powerOff(data.uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));
}

function expectSame({ ours, theirs }: { readonly ours: readonly Step[]; readonly theirs: readonly Step[] }): void {
  expect(eventsOf(ours)).toEqual(eventsOf(theirs));
  expect(faultsOf(ours)).toEqual(faultsOf(theirs));
}

function expectNoMore(
  { harness, ours, theirs, theirRequests }: Awaited<ReturnType<typeof play>>,
  allowed: readonly string[] = [],
): void {
  const names = (steps: readonly Step[]) => steps.map(({ what }) => what);
  expect(surplus(names(ours), names(theirs)).filter((name) => !allowed.includes(name))).toEqual([]);
  const neutron = harness.neutron.requests
    .filter(({ what }) => what !== 'GET extensions') // once in ten minutes
    .map(({ what }) => `${what.split(' ')[0]} neutron`);
  expect(surplus(neutron, theirRequests)).toEqual([]);
  const placement = harness.placement.requests.map((request) => `${request.split(' ')[0]} placement`);
  expect(placement.filter((request) => !theirRequests.includes(request) && !request.startsWith('DELETE'))).toEqual([]);
}

/** Ours checks the state where a stock compute does not: it must not write over a deletion. */
function withoutOurCheck(states: readonly Json[]): readonly Json[] {
  return states.map(({ expected, ...state }) =>
    state['task_state'] === 'block_device_mapping' || expected === undefined ? state : { ...state, expected },
  );
}

describe.each(['create_network', 'create_nic_none', 'create_with_port_and_group'])('%s', (name) => {
  it('goes through the recorded states with the recorded expectations', async () => {
    const { ours, theirs, received } = await play(name, 'build_and_run_instance');

    expect(withoutOurCheck(mergedStates(ours, received))).toEqual(withoutOurCheck(mergedStates(theirs, received)));
    expectSame({ ours, theirs });
  });

  it('sends no more messages and requests than the stock compute', async () => {
    expectNoMore(await play(name, 'build_and_run_instance'));
  });
});

describe('multi_create_delete', () => {
  it('builds each of several instances as the stock compute does', async () => {
    const recording = recordingOf('multi_create_delete');
    const builds = recording.received.filter(({ method }) => method === 'build_and_run_instance');
    expect(builds.length).toBeGreaterThan(1);

    for (const received of builds) {
      const harness = harnessFor(received);
      await harness.send(received.method, received.args, { context: received.context });
      await harness.operations.drain(AbortSignal.timeout(9000));

      expect(harness.row(received.args['instance'])['vm_state']).toBe('active');
    }
  });
});

describe('create_network', () => {
  it('writes the network cache that the stock compute wrote', async () => {
    const { ours, theirs, harness } = await play('create_network', 'build_and_run_instance');

    const cacheOf = (steps: readonly Step[]) =>
      JSON.parse(steps.find(({ what }) => what === 'InstanceInfoCache.save')?.changes['network_info']);
    const [mine] = cacheOf(ours);
    const [stock] = cacheOf(theirs);
    const shape = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(shape);
      if (typeof value !== 'object' || value === null) return typeof value;
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, shape(item)]));
    };
    expect(shape({ ...mine, details: {} })).toEqual(shape({ ...stock, details: {} }));
    expect(Object.keys(mine)).toEqual(Object.keys(stock));
    expect(mine.network).toMatchObject({
      id: stock.network.id,
      bridge: stock.network.bridge,
      label: stock.network.label,
    });
    const { tenant_id: _mine, ...meta } = mine.network.meta;
    const { tenant_id: _stock, ...stockMeta } = stock.network.meta;
    expect(meta).toEqual(stockMeta);
    expect(harness.neutron.ports.size).toBe(1);
  });
});

describe('create_spawn_aborts', () => {
  const abort = (harness: ComputeHarness): void => {
    const uuid = [...harness.plane.instances.keys()][0] ?? '';
    const params = { instance_uuid: uuid, reason: 'lab: abortspawn' };
    harness.virt.failNext('spawn', novaException('BuildAbortException', params));
  };

  it('ends in the recorded states, with the recorded fault', async () => {
    const { ours, theirs, received } = await play('create_spawn_aborts', 'build_and_run_instance', { arrange: abort });

    expect(mergedStates(ours, received).at(-1)).toEqual(mergedStates(theirs, received).at(-1));
    expect(statesOf(ours).map(({ task_state: task }) => task)).toEqual(
      statesOf(theirs).map(({ task_state: task }) => task),
    );
    expectSame({ ours, theirs });
  });

  it('sends no more messages and requests than the stock compute', async () => {
    expectNoMore(await play('create_spawn_aborts', 'build_and_run_instance', { arrange: abort }));
  });
});

describe.each(['fake1', 'fake2'])('create_spawn_fails_and_reschedules on %s', (host) => {
  const fail = (harness: ComputeHarness): void => {
    harness.virt.failNext('spawn', novaException('ComputeResourcesUnavailable', { reason: 'lab: failspawn' }));
  };

  it('hands the instance back as recorded', async () => {
    const { ours, theirs, received } = await play('create_spawn_fails_and_reschedules', 'build_and_run_instance', {
      arrange: fail,
      host,
    });

    expect(mergedStates(ours, received).at(-1)).toMatchObject(mergedStates(theirs, received).at(-1) ?? {});
    expectSame({ ours, theirs });
    const castOf = (steps: readonly Step[]) => steps.find(({ what }) => what === 'build_instances')?.kwargs ?? {};
    expect(Object.keys(castOf(ours)).toSorted()).toEqual(Object.keys(castOf(theirs)).toSorted());
    const { exc: _ours, ...retry } = castOf(ours)['filter_properties'].retry;
    const { exc: _theirs, ...stockRetry } = castOf(theirs)['filter_properties'].retry;
    expect({ ...retry, exc_reason: retry.exc_reason.replace(/\.$/, '') }).toEqual({
      ...stockRetry,
      exc_reason: stockRetry.exc_reason.replace(/\.$/, ''),
    });
    for (const key of ['image', 'security_groups', 'host_lists', 'admin_password', 'injected_files']) {
      expect(castOf(ours)[key]).toEqual(withoutChanges(castOf(theirs)[key]));
    }
    expect(ours.at(-2)?.what).toBe('build_instances');
  });

  it('sends no more messages and requests than the stock compute', async () => {
    const arrange = fail;
    expectNoMore(await play('create_spawn_fails_and_reschedules', 'build_and_run_instance', { arrange, host }));
  });
});

describe.each([
  ['stop', 'stop_instance'],
  ['start', 'start_instance'],
  ['reboot_soft', 'reboot_instance'],
  ['reboot_hard', 'reboot_instance'],
  ['delete_active', 'terminate_instance'],
  ['delete_stopped', 'terminate_instance'],
  ['delete_rest', 'terminate_instance'],
])('%s', (name, method) => {
  it('writes the recorded states with the recorded expectations, and no more messages or requests', async () => {
    const played = await play(name, method);

    expect(mergedStates(played.ours, played.received)).toEqual(mergedStates(played.theirs, played.received));
    expectSame(played);
    expectNoMore(played);
  });
});

describe.each([
  ['pause', 'pause_instance'],
  ['unpause', 'unpause_instance'],
  ['suspend', 'suspend_instance'],
  ['resume', 'resume_instance'],
])('%s', (name, method) => {
  it('writes the recorded states with the recorded expectations, and no more messages or requests', async () => {
    const played = await play(name, method);

    // the recorded driver froze nothing, so its guests ran on
    const withoutPower = (steps: readonly Step[]) =>
      mergedStates(steps, played.received).map(({ power_state: _power, ...state }) => state);
    expect(withoutPower(played.ours)).toEqual(withoutPower(played.theirs));
    expectSame(played);
    expectNoMore(played);
  });
});

describe.each([
  ['image_create', 'snapshot_instance'],
  ['image_backup', 'backup_instance'],
])('%s', (name, method) => {
  it('writes the recorded states with the recorded expectations, and no more messages or requests', async () => {
    const arrange = ({ glance }: ComputeHarness): void => glance.addQueued(imageIdOf(name, method));
    const played = await play(name, method, { arrange });

    // a stock compute also saves a power state that has not changed
    const changing = (steps: readonly Step[]) =>
      mergedStates(
        steps.filter(({ changes }) => 'task_state' in changes),
        played.received,
      );
    expect(changing(played.ours)).toEqual(changing(played.theirs));
    expectSame(played);
    expectNoMore(played);
    expect(played.harness.glance.images.get(imageIdOf(name, method))?.status).toBe('active');
  });
});

describe('set_admin_password', () => {
  it('ends the task, with the recorded event, and no more messages or requests', async () => {
    const played = await play('set_admin_password', 'set_admin_password');

    expect(mergedStates(played.ours, played.received)).toEqual(mergedStates(played.theirs, played.received));
    expectSame(played);
    expectNoMore(played);
    expect([...played.harness.virt.passwords.values()]).toEqual([played.received.args['new_pass']]);
  });
});

describe('rebuild', () => {
  it('writes the recorded states with the recorded expectations, and no more messages or requests', async () => {
    const { image_ref: imageId } =
      recordingOf('rebuild').received.find(({ method }) => method === 'rebuild_instance')?.args ?? {};
    const arrange = ({ glance }: ComputeHarness): void => glance.addActive(imageId);
    const played = await play('rebuild', 'rebuild_instance', { arrange });

    // a stock compute writes its task once more in the beginning, and host and node in the end
    const stock = mergedStates(played.theirs, played.received).slice(1, -1);
    expect(mergedStates(played.ours, played.received)).toEqual(stock);
    expectSame(played);
    const reads = ['InstanceInfoCache.refresh', 'InstanceInfoCache.save']; // its network is as Neutron has it
    expectNoMore({ ...played, theirRequests: Array.from({ length: 9 }, () => 'GET neutron') }, reads);
    expect(played.harness.virt.instances.size).toBe(1);
  });
});

describe('shelve', () => {
  it('writes the recorded states with the recorded expectations, and no more messages or requests', async () => {
    const arrange = ({ glance }: ComputeHarness): void => glance.addQueued(imageIdOf('shelve', 'shelve_instance'));
    const played = await play('shelve', 'shelve_instance', { arrange });

    // ours checks that there is no task when it gives up the host
    const theirs = mergedStates(played.theirs, played.received).map((state) => ({
      ...state,
      expected: state['expected'] ?? [null],
    }));
    expect(mergedStates(played.ours, played.received)).toEqual(theirs);
    const metadata = (steps: readonly Step[]) =>
      steps.find(({ changes }) => 'system_metadata' in changes)?.changes['system_metadata'];
    const { shelved_at: at, ...rest } = metadata(played.ours);
    const { shelved_at: stockAt, ...stockRest } = metadata(played.theirs);
    expect(rest).toEqual(stockRest);
    expect(at.replaceAll(/[0-9]/g, '0')).toBe(stockAt.replaceAll(/[0-9]/g, '0'));
    expectSame(played);
    // later releases unbind the ports, this one did not
    expectNoMore({ ...played, theirRequests: [...played.theirRequests, 'PUT neutron'] });
    expect(played.harness.virt.instances.size).toBe(0);
    expect(played.harness.placement.consumers.size).toBe(0);
  });
});

describe('unshelve', () => {
  it('goes through the recorded states and sends no more messages or requests', async () => {
    const played = await play('unshelve', 'unshelve_instance');

    const unchecked = (states: readonly Json[]) =>
      states.map(({ expected, ...state }) => (state['task_state'] === 'spawning' ? state : { ...state, expected }));
    expect(unchecked(mergedStates(played.ours, played.received))).toEqual(
      unchecked(mergedStates(played.theirs, played.received)),
    );
    expectSame(played);
    expectNoMore(played);
    expect(played.harness.glance.requests).toContain(`DELETE ${played.received.args['image'].id}`);
    expect(played.harness.virt.instances.size).toBe(1);
  });
});

function imageIdOf(name: string, method: string): string {
  return recordingOf(name).received.find((message) => message.method === method)?.args['image_id'];
}

/** The recorded moves went from one host to the other; ours go from the host that was asked to itself. */
function onOneHost(received: Received): Received {
  const args = JSON.parse(JSON.stringify(received.args).replaceAll(/"fake[12]"/g, JSON.stringify(received.host)));
  return { ...received, args };
}

/** A host that is asked twice within one request does both under the same request id. */
function partOf(steps: readonly Step[], method: string): readonly Step[] {
  const isEvent = ({ args }: Step): boolean => args[1] === `compute_${method}`;
  return steps.slice(steps.findIndex(isEvent), steps.findLastIndex(isEvent) + 1);
}

async function playMove(name: string, method: string, hosts: 'one host' | 'two hosts') {
  const recording = recordingOf(name);
  const recorded = recording.received.find((message) => message.method === method);
  if (!recorded) throw new Error(`${name} has no ${method}`);
  const received = hosts === 'one host' ? onOneHost(recorded) : recorded;
  const harness = harnessFor(received);
  harness.plane.addMigration(received.args['migration']);
  await bringUp(harness, received);
  if (hosts === 'two hosts') await moveData(harness, received);
  harness.plane.next('Instance.get_by_uuid', () => received.args['instance']);
  await harness.send(method, received.args, { context: received.context });
  return { recorded, ours: stepsOf(harness.plane.sent), theirs: partOf(recording.stepsOf(recorded), method) };
}

/** What the other host and the engines do, which a stock Nova does not see. */
async function moveData(harness: ComputeHarness, { method, args }: Received): Promise<void> {
  const { uuid } = args['instance']['nova_object.data'];
  const guest = harness.virt.instances.get(uuid);
  if (method === 'prep_resize') harness.virt.instances.delete(uuid);
  if (method === 'finish_resize' && guest) Object.assign(guest, { powerState: 4, isArriving: true });
  const other = new FakeVirtDriver({ nodeName: 'fake2' });
  harness.plane.peers.set('fake2', async (request) => {
    if (!guest) throw new Error('no guest');
    const spec = { ...guest.spec, imageId: 'i' };
    await other.moves.receive(spec, (request.args as Json)['ticket'], AbortSignal.timeout(1000));
    return 'received';
  });
}

const MOVE_STATES = ['vm_state', 'task_state', 'status'] as const;

/** Changes of states, and of the migration's status. A save that only repeats a state is no difference. */
function moveStates(steps: readonly Step[], { args }: Received): readonly Json[] {
  const { vm_state, task_state } = args['instance']['nova_object.data'];
  let known: Json = { vm_state, task_state, status: args['migration']['nova_object.data'].status };
  return steps.flatMap(({ what, changes }) => {
    if (what !== 'Instance.save' && what !== 'Migration.save') return [];
    const changed = MOVE_STATES.filter((field) => field in changes && changes[field] !== known[field]);
    known = { ...known, ...Object.fromEntries(changed.map((field) => [field, changes[field]])) };
    return changed.length === 0 ? [] : [known];
  });
}

describe.each([
  ['resize', 'prep_resize', 'resize_instance', 'one host'],
  ['resize', 'resize_instance', 'finish_resize', 'one host'],
  ['resize', 'finish_resize', undefined, 'one host'],
  ['resize_again', 'prep_resize', 'resize_instance', 'one host'],
  ['resize_again', 'resize_instance', 'finish_resize', 'one host'],
  ['resize_again', 'finish_resize', undefined, 'one host'],
  ['resize_confirm', 'confirm_resize', undefined, 'one host'],
  ['resize_revert', 'revert_resize', 'finish_revert_resize', 'one host'],
  ['resize_revert', 'finish_revert_resize', undefined, 'one host'],
  ['cold_migrate', 'prep_resize', 'resize_instance', 'two hosts'],
  ['cold_migrate', 'resize_instance', 'finish_resize', 'two hosts'],
  ['cold_migrate', 'finish_resize', undefined, 'two hosts'],
  ['cold_migrate_confirm', 'confirm_resize', undefined, 'two hosts'],
  ['resize_revert', 'revert_resize', 'finish_revert_resize', 'two hosts'],
  ['resize_revert', 'finish_revert_resize', undefined, 'two hosts'],
] as const)('%s: %s, %4$s', (name, method, next, hosts) => {
  it('goes through the recorded states, with the recorded event, and casts the next step as recorded', async () => {
    const { recorded, ours, theirs } = await playMove(name, method, hosts);

    // ours is confirmed only when all of it is done, so that a restart finds what is not
    const states = (steps: readonly Step[]) =>
      method === 'confirm_resize' ? moveStates(steps, recorded).slice(-1) : moveStates(steps, recorded);
    expect(states(ours)).toEqual(states(theirs));
    expectSame({ ours, theirs });
    const castOf = (steps: readonly Step[]) => steps.find(({ what }) => what === next)?.kwargs ?? {};
    expect(Object.keys(castOf(ours)).toSorted()).toEqual(Object.keys(castOf(theirs)).toSorted());
    expect(Object.keys(castOf(ours)).length > 0).toBe(next !== undefined);
  });

  it('writes the flavors and numbers that the stock compute wrote', async () => {
    const { recorded, ours, theirs } = await playMove(name, method, hosts);

    const fields = ['instance_type_id', 'memory_mb', 'vcpus', 'root_gb', 'ephemeral_gb'] as const;
    const written = (steps: readonly Step[]) => {
      const all: Json = Object.assign(
        {},
        recorded.args['instance']['nova_object.data'],
        ...steps.filter(({ what }) => what === 'Instance.save').map((s) => s.changes),
      );
      const ids = ['old_flavor', 'new_flavor', 'flavor'].flatMap((field) =>
        field in all ? [[field, all[field]?.['nova_object.data'].id ?? null]] : [],
      );
      return Object.fromEntries([...fields.flatMap((f) => (f in all ? [[f, all[f]]] : [])), ...ids]);
    };
    expect(written(ours)).toEqual(written(theirs));
  });

  it('sends no more messages than the stock compute', async () => {
    const { ours, theirs } = await playMove(name, method, hosts);

    const names = (steps: readonly Step[]) => compared(steps).map(({ what }) => what);
    // what only computes of our kind say to each other
    expect(surplus(names(ours), names(theirs)).filter((what) => what !== 'receive_guest')).toEqual([]);
  });
});

describe('evacuate', () => {
  it('goes through the recorded states, with the recorded event, and sends no more messages', async () => {
    const recording = recordingOf('evacuate');
    const received = recording.received.find(({ method }) => method === 'rebuild_instance');
    if (!received) throw new Error('nothing recorded');
    const harness = harnessFor(received);
    const { image_ref: image, uuid } = received.args['instance']['nova_object.data'];
    harness.glance.addActive(image);
    harness.plane.addMigration(received.args['migration']);

    await harness.send(received.method, received.args, { context: received.context });

    const ours = stepsOf(harness.plane.sent);
    const theirs = recording.stepsOf(received);
    expect(mergedStates(compared(ours), received)).toEqual(mergedStates(compared(theirs), received));
    const statuses = (steps: readonly Step[]) =>
      steps.flatMap(({ what, changes }) => (what === 'Migration.save' ? [changes['status']] : []));
    expect(statuses(ours).at(-1)).toBe(statuses(theirs).at(-1));
    expectSame({ ours, theirs });
    const names = (steps: readonly Step[]) => compared(steps).map(({ what }) => what);
    expect(surplus(names(ours), names(theirs))).toEqual([]);
    expect(harness.virt.instances.get(uuid)?.powerState).toBe(1);
  });
});

describe('diagnostics', () => {
  it('answers with an object of the recorded shape', async () => {
    const recording = recordingOf('diagnostics');
    const [received] = recording.received;
    if (!received) throw new Error('nothing recorded');
    const harness = harnessFor(received);
    await bringUp(harness, received);

    const answer = await harness.send(received.method, received.args, { context: received.context });

    expect(withoutChanges(answer)).toMatchObject({
      'nova_object.name': 'Diagnostics',
      'nova_object.version': '1.0',
      'nova_object.data': {
        state: 'running',
        driver: 'libvirt',
        memory_details: { 'nova_object.data': { maximum: 64, used: 32 } },
        cpu_details: [{ 'nova_object.data': { time: 1_500_000_000 } }],
        num_cpus: 1,
        num_nics: 0,
      },
    });
  });
});

describe('port_delete_external_event', () => {
  it('drops the port from the cache with one message', async () => {
    const recording = recordingOf('port_delete_external_event');
    const received = recording.received.findLast(
      ({ args }) => args['events']?.[0]?.['nova_object.data'].name === 'network-vif-deleted',
    );
    if (!received) throw new Error('no such event');
    const [instance] = received.args['instances'];
    const harness = harnessFor({ ...received, args: { ...received.args, instance } });

    await harness.send(received.method, received.args, { context: received.context });

    const ours = compared(stepsOf(harness.plane.sent));
    expect(ours.map(({ what }) => what)).toEqual(['InstanceInfoCache.save']);
    const theirs = compared(recording.stepsOf(received)).findLast(({ what }) => what === 'InstanceInfoCache.save');
    const ids = (step: Step | undefined) => JSON.parse(step?.changes['network_info']).map(({ id }: Json) => id);
    expect(ids(ours[0])).toEqual(ids(theirs));
  });
});

describe('trigger_crash_dump', () => {
  it('is refused with an event and a fault, as a compute does that cannot', async () => {
    const instance = recordingOf('delete_active').received[0]?.args['instance'];
    const harness = harnessFor({ method: '', args: { instance }, context: {}, host: 'fake1' });

    const failure: unknown = await harness.send('trigger_crash_dump', { instance }).then(
      () => undefined,
      (error: unknown) => error,
    );

    expect(failure).not.toBeInstanceOf(NovaException);
    expect(harness.plane.events).toMatchObject([{ event: 'compute_trigger_crash_dump', result: 'Error' }]);
    expect(harness.plane.faults).toHaveLength(1);
  });
});

describe.each([
  ['rescue', 'rescue_instance'],
  ['unrescue', 'unrescue_instance'],
])('%s', (name, method) => {
  it('writes the recorded states with the recorded expectations, events and faults', async () => {
    const arrange = (harness: ComputeHarness): void => {
      for (const row of harness.plane.instances.values()) {
        harness.glance.addActive(row['system_metadata'].image_base_image_ref);
      }
      const [received] = recordingOf(name).received.filter((message) => message.method === method);
      const asked = received?.args['rescue_image_ref'];
      if (typeof asked === 'string') harness.glance.addActive(asked);
    };

    const played = await play(name, method, { arrange });

    // the recorded driver had no rescue guest that could run
    const withoutPower = (states: readonly Json[]) => states.map(({ power_state: _power, ...state }) => state);
    const { ours, theirs, received } = played;
    expect(withoutPower(mergedStates(ours, received))).toEqual(withoutPower(mergedStates(theirs, received)));
    expectSame(played);
  });
});
