// Building an instance: the way up, and every way down.
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { DiskTooSmallError } from '#drivers/virt/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import {
  buildArgs,
  ComputeHarness,
  HOST,
  IMAGE,
  instanceOf,
  networkRequests,
  NO_NETWORK,
  object,
  TOKEN,
} from '#test/fakes/compute-harness.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';

type Json = Readonly<Record<string, any>>;
/** An instance whose flavor has more than usual. */
function flavored(fields: Json): Json {
  const { flavor } = instanceOf()['nova_object.data'];
  return instanceOf({ flavor: object('Flavor', '1.2', { ...flavor['nova_object.data'], ...fields }) });
}

afterEach(() => vi.useRealTimers());

const uuidOf = (instance: Json): string => instance['nova_object.data'].uuid;

/** The root, and empty disks of the host. */
function blanks(...disks: readonly Json[]): Json {
  const root = { id: 1, source_type: 'image', destination_type: 'local', boot_index: 0, device_name: null };
  const blank = { source_type: 'blank', destination_type: 'local', boot_index: -1, volume_size: 1, device_name: null };
  const rows = [root, ...disks.map((disk, index) => ({ id: 2 + index, ...blank, ...disk }))];
  const objects = rows.map((row) => object('BlockDeviceMapping', '1.21', { instance_uuid: 'x', tag: null, ...row }));
  return object('BlockDeviceMappingList', '1.18', { objects });
}

describe('a build that succeeds', () => {
  it('goes through the states of a stock compute and ends active', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();

    await harness.build(instance);

    const saves = harness.plane
      .named('Instance.save')
      .map(({ changes, kwargs }) => [
        changes['vm_state'] ?? null,
        'task_state' in changes ? changes['task_state'] : 'same',
        kwargs['expected_task_state'] ?? null,
      ]);
    expect(saves).toEqual([
      [null, null, ['scheduling', null]],
      [null, 'same', null],
      [null, 'networking', [null]],
      [null, 'block_device_mapping', ['networking', null]],
      [null, 'spawning', 'block_device_mapping'],
      ['active', null, 'spawning'],
    ]);
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, power_state: 1, host: HOST });
    expect(harness.row(instance)['system_metadata']).toMatchObject({ boot_roles: 'member,reader' });
    expect(harness.row(instance)['root_device_name']).toBe('/dev/sda');
    expect(harness.plane.events).toEqual([
      { event: 'compute__do_build_and_run_instance', result: 'Success', details: null },
    ]);
    expect(harness.tracker.calls).toEqual(['buildSucceeded']);
    expect(harness.moments).toEqual(['create.start', 'create.end']);
    expect(harness.plane.casts.map(({ method }) => method)).toEqual(['update_instance_info']);
  });

  it('asks Neutron and Glance for nothing that it does not need', async () => {
    await using harness = new ComputeHarness();

    await harness.build(instanceOf());

    expect(harness.neutron.requests).toEqual([]);
    expect(harness.glance.requests).toEqual(['GET image-1/file']);
  });

  it('gives the guest a port of its own, bound here, and caches it', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    const [port] = [...harness.neutron.ports.values()];
    expect(port).toMatchObject({ device_id: uuidOf(instance), device_owner: 'compute:nova', 'binding:host_id': HOST });
    const [vif] = JSON.parse(harness.row(instance)['info_cache']['nova_object.data'].network_info);
    expect(vif).toMatchObject({ id: port?.id, type: 'bridge', active: true, preserve_on_delete: false });
    expect(vif.network.subnets[0].ips[0].address).toBe('10.77.0.21');
    expect(harness.virt.instances.get(uuidOf(instance))?.nics).toMatchObject([
      { vifId: port?.id, guestInterface: 'eth0', mtu: 1500 },
    ]);
    expect(harness.plane.virtualInterfaces).toMatchObject([
      { uuid: port?.id, address: `${String(port?.['mac_address'])}/${port?.id}` },
    ]);
  });

  it("uses the rights of the user for what is the user's, and its own for bindings", async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();

    await harness.build(instanceOf(), { requested_networks: networkRequests({ network_id: network.id }) });

    const rights = harness.neutron.requests.map(({ what, as }) => `${what} ${as}`);
    expect(rights).toContain('POST port user');
    expect(rights).toContain('PUT port service');
    expect(rights.find((line) => line.startsWith('GET networks'))).toBe('GET networks user');
  });

  it('makes and binds the next port of a user in one request, but for addresses, which Neutron has rules for', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const build = async (wish: Readonly<Record<string, unknown>>, changes = {}) => {
      const from = harness.neutron.requests.length;
      const instance = instanceOf({ uuid: randomUUID(), ...changes });
      await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id, ...wish }) });
      const port = [...harness.neutron.ports.values()].find(({ device_id: id }) => id === uuidOf(instance));
      const writes = harness.neutron.requests.slice(from).filter(({ what }) => /POST|PUT/u.test(what));
      return { bound: port?.['binding:host_id'], writes: writes.map(({ what, as }) => `${what} ${as}`) };
    };
    const both = ['POST port user', 'PUT port service'];

    expect(await build({})).toEqual({ bound: HOST, writes: both });
    expect(await build({})).toEqual({ bound: HOST, writes: ['POST port service'] });
    expect(await build({ address: '10.77.0.77' })).toEqual({ bound: HOST, writes: both });
    expect(await build({}, { project_id: 'another' })).toEqual({ bound: HOST, writes: both });
  });

  it("keeps the user's port when the instance goes", async () => {
    await using harness = new ComputeHarness();
    const port = harness.neutron.addPort(harness.neutron.addNetwork());
    const instance = instanceOf();

    await harness.build(instance, { requested_networks: networkRequests({ port_id: port.id }) });
    await harness.send('terminate_instance', { instance: instanceOf(harness.row(instance)), bdms: null });

    expect(harness.neutron.ports.get(port.id)).toMatchObject({ device_id: '', 'binding:host_id': '' });
    expect(harness.plane.instances.size).toBe(0);
  });

  it('waits for Neutron to report the interface, also when the report is early', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    harness.neutron.statusWhenBound = 'DOWN';
    const instance = instanceOf();
    const report = async (tag: string): Promise<void> => {
      await harness.send('external_instance_event', eventArgs(instance, 'network-vif-plugged', tag));
    };
    let reported: Promise<void> = Promise.resolve();
    harness.neutron.onBound = (port) => {
      reported = report(port.id);
    };

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
    await reported;

    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it('plugs as soon as the port is bound, and reads what surrounds it meanwhile', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();
    const plugged = Promise.withResolvers<void>();
    harness.vif.onPlug = () => plugged.resolve();
    const answer = harness.neutron.listFloatingIps.bind(harness.neutron);
    // A build that plugged only after this answer would wait for ever.
    harness.neutron.listFloatingIps = async (...args) => {
      await plugged.promise;
      return await answer(...args);
    };

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expect(harness.row(instance)['vm_state']).toBe('active');
    const cache = JSON.parse(harness.row(instance)['info_cache']['nova_object.data'].network_info);
    expect(cache[0].network.subnets).toHaveLength(1);
  });

  it('lets as many builds run at once as configured', async () => {
    await using harness = new ComputeHarness({ config: 'max_concurrent_builds = 2', delayMs: 30 });
    let active = 0;
    let most = 0;
    const spawn = harness.virt.spawn.bind(harness.virt);
    harness.virt.spawn = async (...args) => {
      active += 1;
      most = Math.max(most, active);
      await spawn(...args);
      active -= 1;
    };

    await Promise.all(Array.from({ length: 6 }, () => harness.build(instanceOf())));

    expect(most).toBe(2);
    expect([...harness.plane.instances.values()].map((row) => row['vm_state'])).toEqual(Array(6).fill('active'));
  });

  it('costs little of its own', async () => {
    await using harness = new ComputeHarness();
    await harness.build(instanceOf());

    expect(await bestOf(5, () => harness.build(instanceOf()))).toBeLessThan(100);
  });

  it('does the work that does not depend on each other at the same time', async () => {
    await using harness = new ComputeHarness({ delayMs: 100 });
    const network = harness.neutron.addNetwork();
    harness.neutron.delayMs = 20;
    harness.plane.delayMs = 10;
    const wishes = { requested_networks: networkRequests({ network_id: network.id }) };

    // One after another: 100 ms engine, 8 requests of 20 ms, 11 messages of 10 ms: 370 ms.
    expect(await bestOf(3, () => harness.build(instanceOf(), wishes))).toBeLessThan(320);
  });
});

/** Milliseconds of the fastest run: what the work costs when nothing else wants the machine. */
async function bestOf(runs: number, work: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const startedAt = performance.now();
    await work();
    times.push(performance.now() - startedAt);
  }
  return Math.min(...times);
}

function eventArgs(instance: Json, name: string, tag: string | null, status = 'completed'): Json {
  const event = { instance_uuid: uuidOf(instance), name, status, tag, data: {} };
  return { instances: [instance], events: [object('InstanceExternalEvent', '1.5', event)] };
}

/** What is left of a build that was handed to the next host. */
function expectRescheduled(harness: ComputeHarness, instance: Json): void {
  expect(harness.row(instance)).toMatchObject({
    vm_state: 'building',
    task_state: 'scheduling',
    host: null,
    node: null,
    launched_on: null,
    availability_zone: null,
  });
  expect(harness.plane.faults).toEqual([]);
  expect(harness.placement.consumers.size).toBe(0);
  expect(harness.plane.casts.map(({ method }) => method)).toEqual(['build_instances']);
  expectNothingLeft(harness);
}

function expectAborted(harness: ComputeHarness, instance: Json, reason: RegExp): void {
  expect(harness.row(instance)).toMatchObject({ vm_state: 'error', task_state: null, host: null, node: null });
  expect(harness.plane.faults).toHaveLength(1);
  expect(harness.plane.faults[0]).toMatchObject({ code: 500, host: HOST });
  expect(harness.plane.faults[0]?.['message']).toMatch(reason);
  expect(harness.plane.casts).toEqual([]);
  expect(harness.placement.consumers.size).toBe(0);
  expect(harness.tracker.calls).toContain('buildFailed');
  expectNothingLeft(harness);
}

function expectNothingLeft(harness: ComputeHarness): void {
  expect(harness.virt.instances.size).toBe(0);
  expect(harness.vif.plugged.size).toBe(0);
  expect(harness.neutron.ports.size).toBe(0);
  expect(harness.plane.virtualInterfaces).toEqual([]);
  expect(harness.tracker.claims.size).toBe(0);
}

describe('a build that fails on this host only', () => {
  it('goes to the next host, its allocation deleted before the conductor hears of it', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    harness.virt.failNext('spawn', new AppError('internal', 'no space left on pool default'));
    const instance = instanceOf();
    const order: string[] = [];
    const cast = harness.plane.cast.bind(harness.plane);
    harness.plane.cast = async (request) => {
      order.push(`${request.method}, allocations: ${harness.placement.consumers.size}`);
      await cast(request);
    };

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expect(order).toEqual(['build_instances, allocations: 0']);
    expectRescheduled(harness, instance);
    const [request] = harness.plane.casts;
    expect(request?.target).toMatchObject({ topic: 'conductor', namespace: 'compute_task' });
    const args = request?.args as Json;
    expect(args['filter_properties'].retry).toMatchObject({
      num_attempts: 1,
      exc_reason: 'no space left on pool default',
    });
    expect(args['filter_properties'].retry.exc.join('')).toContain('no space left');
    expect(args).toMatchObject({ image: IMAGE, admin_password: 'very-secret', security_groups: ['default'] });
    expect(args['host_lists']).toEqual([[]]);
    expect(harness.tracker.calls).toEqual(['abort', 'buildFailed']);
    expect(harness.plane.events[0]).toMatchObject({ result: 'Success' });
  });

  it.each([
    [
      'the engine is down',
      (harness: ComputeHarness) => harness.virt.failNext('spawn', new AppError('unavailable', 'engine')),
    ],
    ['the claim fails', (harness: ComputeHarness) => harness.tracker.failNext(new AppError('internal', 'conductor'))],
    [
      'an interface cannot be plugged',
      (harness: ComputeHarness) => harness.vif.failNext(new AppError('internal', 'ip link')),
    ],
  ])('is rescheduled when %s', async (_what, arrange) => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();
    arrange(harness);

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expectRescheduled(harness, instance);
  });

  it('ends in error when there is no other host to try', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new AppError('unavailable', 'the engine does not answer'));
    const instance = instanceOf();

    await harness.build(instance, { filter_properties: {} });

    expectAborted(harness, instance, /^the engine does not answer$/);
  });

  it('shows the owner no more than the class of an error that nobody worded', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new TypeError('/secret/path is undefined'));
    const instance = instanceOf();

    await harness.build(instance, { filter_properties: {} });

    expect(harness.plane.faults[0]?.['message']).toBe('TypeError');
    expect(harness.plane.faults[0]?.['details']).toContain('/secret/path is undefined');
  });

  it('is not tried elsewhere when its guest cannot be removed', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new AppError('internal', 'start failed'));
    harness.virt.failNext('destroy', new AppError('unavailable', 'engine'));
    const instance = instanceOf();

    await harness.build(instance);

    expectAborted(harness, instance, /aborted: start failed$/);
  });

  it('leaves alone a guest of the same instance that was here before', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    await harness.build(instance);
    harness.plane.add(instance);

    await harness.send('build_and_run_instance', buildArgs(instance));
    await harness.operations.drain(AbortSignal.timeout(5000));

    expect(harness.virt.instances.size).toBe(1);
    expect(harness.row(instance)['task_state']).toBe('scheduling');
  });
});

describe('a build that no host could do', () => {
  it('is aborted when the driver calls the image invalid', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new AppError('invalid', 'it is not a tar archive'));
    const instance = instanceOf();

    await harness.build(instance);

    expectAborted(harness, instance, /aborted: Image image-1 is unacceptable: it is not a tar archive/);
  });

  it('is aborted when the image is a larger disk than that of the flavor', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new DiskTooSmallError({ flavorBytes: 5, imageBytes: 7 }));
    const instance = instanceOf();

    await harness.build(instance);

    expectAborted(
      harness,
      instance,
      /Flavor's disk is too small for requested image. Flavor disk is 5 bytes, image is 7/,
    );
  });

  it("is aborted when the bytes from Glance are not the image's", async () => {
    await using harness = new ComputeHarness();
    harness.glance.contents.set('image-1', new AppError('invalid', 'image image-1 is corrupt'));
    const instance = instanceOf();

    await harness.build(instance);

    expectAborted(harness, instance, /Image image-1 is unacceptable: image image-1 is corrupt/);
  });

  it('is aborted when the image is not active', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();

    await harness.build(instance, { image: { ...IMAGE, status: 'queued' } });

    expectAborted(harness, instance, /Image image-1 is not active/);
  });

  it.each([
    [
      'Neutron is down',
      (harness: ComputeHarness) => harness.neutron.fail('GET networks', new AppError('unavailable', 'x')),
    ],
    [
      'a port cannot be made',
      (harness: ComputeHarness) => harness.neutron.fail('POST port', new AppError('internal', 'x')),
    ],
    [
      'a port cannot be bound',
      (harness: ComputeHarness) => harness.neutron.fail('PUT port', new AppError('internal', 'x')),
    ],
    ['Neutron binds to nothing', (harness: ComputeHarness) => void (harness.neutron.vifType = 'binding_failed')],
    [
      'the ports cannot be read',
      (harness: ComputeHarness) => harness.neutron.fail('GET subnets', new AppError('internal', 'x')),
    ],
  ])('is aborted when %s, and leaves no port', async (_what, arrange) => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();
    arrange(harness);

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expectAborted(harness, instance, /Failed to allocate the network\(s\), not rescheduling\.$/);
  });

  it('tries the network again as often as configured', async () => {
    await using harness = new ComputeHarness({ config: 'network_allocate_retries = 1' });
    const network = harness.neutron.addNetwork();
    harness.neutron.fail('POST port', new AppError('unavailable', 'x'));
    const instance = instanceOf();

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it('is aborted when Neutron never reports the interface', async () => {
    await using harness = new ComputeHarness({ config: 'vif_plugging_timeout = 1' });
    const network = harness.neutron.addNetwork();
    harness.neutron.statusWhenBound = 'DOWN';
    const instance = instanceOf();

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expectAborted(harness, instance, /Failed to allocate the network\(s\), not rescheduling\.$/);
  });

  it('has its interface made anew, once, when Neutron does not report it for a minute', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    await using harness = new ComputeHarness({ config: 'vif_plugging_timeout = 300' });
    const network = harness.neutron.addNetwork();
    harness.neutron.statusWhenBound = 'DOWN';
    const instance = instanceOf();
    const state = { isBuilt: false };
    harness.vif.onPlug = ({ id }) => {
      if (harness.vif.calls.length > 1) {
        void harness.send('external_instance_event', eventArgs(instance, 'network-vif-plugged', id));
      }
    };

    const building = harness
      .build(instance, { requested_networks: networkRequests({ network_id: network.id }) })
      .finally(() => (state.isBuilt = true));
    while (!state.isBuilt) await vi.advanceTimersByTimeAsync(5000);
    await building;

    expect(harness.vif.calls.map((call) => call.split(' ')[0])).toEqual(['plug', 'unplug', 'plug']);
    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it.each(['vif_plugging_is_fatal = false\nvif_plugging_timeout = 1', 'vif_plugging_timeout = 0'])(
    'goes on without the report when configured so: %s',
    async (config) => {
      await using harness = new ComputeHarness({ config });
      const network = harness.neutron.addNetwork();
      harness.neutron.statusWhenBound = 'DOWN';
      const instance = instanceOf();

      await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

      expect(harness.row(instance)['vm_state']).toBe('active');
    },
  );

  it.each([
    ['a file system', { block_device_mapping: blanks({ guest_format: 'xfs' }) }, /the file system of the host/],
    ['encrypted disks', { block_device_mapping: blanks({ encrypted: true }) }, /Encryption/],
    [
      'encryption in the flavor',
      { instance: flavored({ extra_specs: { 'hw:ephemeral_encryption': 'true' } }) },
      /Encryption/,
    ],
    ['what the driver refuses', { instance: flavored({ extra_specs: { 'fake:refused': '1' } }) }, /fake:refused/],
    ['accelerators', { accel_uuids: ['a'] }, /Accelerators/],
    ['secure boot', { image: { ...IMAGE, properties: { os_secure_boot: 'required' } } }, /Secure boot/],
    ['no image', { image: {} }, /Image none is unacceptable/],
  ])('is aborted rather than that it ignores a demand: %s', async (_what, args, reason) => {
    await using harness = new ComputeHarness();
    harness.neutron.addNetwork();
    const { instance = instanceOf(), ...others } = args as Json;

    await harness.build(instance, others);

    expect(harness.row(instance)['vm_state']).toBe('error');
    expect(harness.plane.faults[0]?.['message']).toMatch(reason);
  });
});

describe('ephemeral disks', () => {
  const disksOf = (harness: ComputeHarness, instance: Json): unknown =>
    harness.virt.instances.get(instance['nova_object.data'].uuid)?.spec.flavor.ephemeralsGib;

  it('are one of all the room of the flavor, which Nova and the guest know by a name', async () => {
    await using harness = new ComputeHarness();
    const instance = flavored({ ephemeral_gb: 3 });

    await harness.build(instance);

    expect(disksOf(harness, instance)).toEqual([3]);
    expect(harness.row(instance)).toMatchObject({
      root_device_name: '/dev/sda',
      default_ephemeral_device: '/dev/sdb',
    });
  });

  it('are those into which the user divided it, in his order', async () => {
    await using harness = new ComputeHarness();
    const instance = flavored({ ephemeral_gb: 5 });

    await harness.build(instance, {
      block_device_mapping: blanks({ id: 9, volume_size: 1 }, { id: 8, volume_size: 2 }),
    });

    expect(disksOf(harness, instance)).toEqual([2, 1]);
    expect(harness.row(instance)['default_ephemeral_device'] ?? null).toBeNull();
  });
});

describe('an instance deleted during its build', () => {
  it('is noticed at the next change of state, and nothing is written any more', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();
    harness.neutron.onBound = () => {
      harness.row(instance)['task_state'] = 'deleting';
    };

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expect(harness.row(instance)).toMatchObject({ vm_state: 'building', task_state: 'deleting' });
    expect(harness.plane.faults).toEqual([]);
    expectNothingLeft(harness);
    expect(harness.placement.consumers.size).toBe(0);
  });

  it('leaves no port behind when that was being made', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    const instance = instanceOf();
    harness.plane.delayMs = 10;
    harness.neutron.onRequest = ({ what }) => {
      harness.neutron.delayMs = what === 'POST port' ? 60 : 0;
      if (what === 'POST port') harness.row(instance)['task_state'] = 'deleting';
    };

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });

    expect(harness.neutron.names).toContain('DELETE port');
    expect(harness.neutron.names).not.toContain('PUT port');
    expectNothingLeft(harness);
  });

  it('is not built at all when it was deleted before', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    harness.plane.next('Instance.save', () => {
      throw remote('InstanceNotFound', 'Instance could not be found.');
    });

    await harness.build(instance);

    expect(harness.plane.names).toEqual([
      'InstanceActionEvent.event_start',
      'Instance.save',
      'InstanceActionEvent.event_finish_with_failure',
    ]);
    expect(harness.placement.consumers.size).toBe(0);
  });

  it('interrupts the build that waits for Neutron, and then deletes', async () => {
    await using harness = new ComputeHarness({ config: 'vif_plugging_timeout = 60' });
    const network = harness.neutron.addNetwork();
    harness.neutron.statusWhenBound = 'DOWN';
    const instance = instanceOf();
    const plugged = Promise.withResolvers<void>();
    harness.vif.onPlug = () => plugged.resolve();

    const built = harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
    await plugged.promise;
    await harness.send('terminate_instance', { instance: instanceOf(harness.row(instance)) });
    await built;

    expect(harness.plane.instances.size).toBe(0);
    expect(harness.plane.faults).toEqual([]);
    expectNothingLeft(harness);
  });

  it('takes the guest away again when it was deleted at the last moment', async () => {
    await using harness = new ComputeHarness({ delayMs: 20 });
    const instance = instanceOf();
    const powerState = harness.virt.powerState.bind(harness.virt);
    harness.virt.powerState = async (...args) => {
      harness.row(instance)['task_state'] = 'deleting';
      return await powerState(...args);
    };

    await harness.build(instance);

    expect(harness.row(instance)['vm_state']).toBe('building');
    expectNothingLeft(harness);
  });

  it('does not leave two guests when the conductor does not answer at the end', async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    const powerState = harness.virt.powerState.bind(harness.virt);
    harness.virt.powerState = async (...args) => {
      harness.plane.next('Instance.save', () => {
        throw new AppError('unavailable', 'no reply from the conductor');
      });
      return await powerState(...args);
    };

    await harness.build(instance);

    expectAborted(harness, instance, /could not be recorded/);
  });
});

describe('a server group', () => {
  const GROUP = '54562667-28b7-49af-8667-7e0bbe84d3a1';
  const hints = { filter_properties: { scheduler_hints: { group: [GROUP] }, retry: { num_attempts: 1, hosts: [] } } };

  it('sends a member to the next host when another one is here, without blaming this host', async () => {
    await using harness = new ComputeHarness();
    const other = instanceOf({ host: HOST });
    harness.plane.add(other);
    const instance = instanceOf();
    const members = [uuidOf(other), uuidOf(instance)];
    harness.plane.groups.set(GROUP, { uuid: GROUP, policy: 'anti-affinity', members, _rules: {} });

    await harness.build(instance, hints);

    expectRescheduled(harness, instance);
    expect(harness.tracker.calls).toEqual(['abort']);
  });

  it('lets as many members be here as its rule allows', async () => {
    await using harness = new ComputeHarness();
    const other = instanceOf({ host: HOST });
    harness.plane.add(other);
    const instance = instanceOf();
    const members = [uuidOf(other), uuidOf(instance)];
    const rules = { max_server_per_host: '2' };
    harness.plane.groups.set(GROUP, { uuid: GROUP, policy: 'anti-affinity', members, _rules: rules });

    await harness.build(instance, hints);

    expect(harness.row(instance)['vm_state']).toBe('active');
  });

  it("keeps a member away from hosts other than its group's", async () => {
    await using harness = new ComputeHarness();
    const instance = instanceOf();
    harness.plane.groups.set(GROUP, { uuid: GROUP, policy: 'affinity', members: [], hosts: ['other'], _rules: {} });

    await harness.build(instance, hints);

    expectRescheduled(harness, instance);
  });
});

describe('secrets', () => {
  it('reach no log, whatever fails', async () => {
    await using harness = new ComputeHarness();
    harness.virt.failNext('spawn', new AppError('internal', 'start failed'));

    await harness.build(instanceOf({ user_data: 'c2VjcmV0LXVzZXItZGF0YQ==' }), { filter_properties: {} });
    await harness.send('build_and_run_instance', { admin_password: 'very-secret' }).catch(() => {});

    const logged = JSON.stringify(harness.log.lines, (_key, value: unknown) =>
      value instanceof Error ? { message: value.message, stack: value.stack, cause: value.cause } : value,
    );
    for (const secret of ['very-secret', TOKEN, 'c2VjcmV0LXVzZXItZGF0YQ==']) expect(logged).not.toContain(secret);
    expect(logged).toContain('build failed');
  });
});

it('knows "none" as no network at all', async () => {
  await using harness = new ComputeHarness();
  harness.neutron.addNetwork();
  const instance = instanceOf();

  await harness.build(instance, { requested_networks: NO_NETWORK });

  expect(harness.virt.instances.get(uuidOf(instance))?.nics).toEqual([]);
});
