// The start of the service against a control plane in memory: its order, and no more calls than a stock compute makes.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ComputeParts, createComputeService } from '#src/compute/service/compute-service.ts';
import type { Service } from '#src/lib/service.ts';
import type { RpcClient, RpcRequest, RpcServerOptions, RpcTransport } from '#src/messaging/types.ts';
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import { object, RecordingLog, testConfig } from '#test/fakes/compute-harness.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';
import { FakeCinder } from '#test/fakes/fake-cinder.ts';
import { FakeHostVolumes } from '#test/fakes/fake-host-volumes.ts';
import { FakeGlance } from '#test/fakes/fake-glance.ts';
import { FakeNeutron } from '#test/fakes/fake-neutron.ts';
import { MemoryPlacement } from '#test/fakes/memory-placement.ts';
import { recordedMessages } from '../nova/recordings.ts';

type Json = Readonly<Record<string, any>>;
type Row = Record<string, any>;

/** What nova-conductor keeps of hosts; instances are given. */
class Plane implements RpcClient, RpcTransport {
  readonly calls: string[] = [];
  readonly casts: string[] = [];
  readonly events: string[] = [];
  instances: readonly Json[] = [];
  service: Row | null = null;
  node: Row | null = null;

  client(): RpcClient {
    return this;
  }

  server({ topic, server, endpoints }: RpcServerOptions): Service {
    const name = `${topic}.${server}`;
    const isServing = endpoints.some(({ methods }) => 'build_and_run_instance' in methods);
    return {
      name,
      start: async () => void this.events.push(`consume ${name}${isServing ? '' : ' without methods'}`),
      stop: async () => void this.events.push(`stop ${name}`),
    };
  }

  notifier(): never {
    throw new Error('no notifications are configured');
  }

  async close(): Promise<void> {
    this.events.push('close');
  }

  async cast({ method }: RpcRequest): Promise<void> {
    this.casts.push(method);
  }

  async call({ method, args }: RpcRequest): Promise<unknown> {
    const { objname, objinst, objmethod } = args as Json;
    const what = method === 'ping' ? 'ping' : `${objname ?? objinst['nova_object.name']}.${objmethod}`;
    this.calls.push(what);
    const answer = this.#answer(what, objinst?.['nova_object.data'] ?? {}, (args as Json)['kwargs']);
    return objinst === undefined ? answer : [{ ...(answer as object), obj_what_changed: [] }, null];
  }

  #answer(what: string, data: Row, kwargs: Json): unknown {
    const list = (name: string, objects: readonly Json[]) =>
      object(`${name}List`, name === 'Instance' ? '2.6' : '1.0', { objects });
    switch (what) {
      case 'ping':
        return { service: 'conductor' };
      case 'ServiceList.get_by_binary':
        return list('Service', [object('Service', '1.22', { version: 64, last_seen_up: '2126-01-01T00:00:00Z' })]);
      case 'Service.get_minimum_version':
        return 64;
      case 'Service.get_by_host_and_binary':
        return this.service && object('Service', '1.22', this.service);
      case 'Service.create':
        this.service = { ...data, id: 3, disabled: false };
        return { id: 3, disabled: false };
      case 'Service.save':
        Object.assign(this.service ?? {}, data);
        return {};
      case 'ComputeNode.get_by_uuid':
        if (!this.node) throw remote('ComputeHostNotFound', 'no node');
        return object('ComputeNode', '1.19', this.node);
      case 'ComputeNode.create':
        this.node = { ...data, id: 7 };
        return { id: 7 };
      case 'ComputeNodeList.get_all_by_uuids':
        return list('ComputeNode', this.node ? [object('ComputeNode', '1.19', this.node)] : []);
      case 'MigrationList.get_by_filters':
      case 'MigrationList.get_in_progress_and_error':
        return list('Migration', []);
      case 'InstanceList.get_by_host':
      case 'InstanceList.get_by_host_and_node':
        return list('Instance', this.instances);
      case 'InstanceActionEvent.event_start':
      case 'InstanceActionEvent.event_finish_with_failure':
        return null;
      case 'ComputeNode.save':
      case 'Instance.save':
        return {};
      default:
        throw new Error(`unexpected ${what} ${JSON.stringify(kwargs)}`);
    }
  }
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'compute-start-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

class World {
  readonly plane = new Plane();
  readonly placement = new MemoryPlacement();
  readonly virt = new FakeVirtDriver({ nodeName: 'fake1' });
  readonly log = new RecordingLog();

  async run<T>(work: () => Promise<T> | T): Promise<T> {
    const config = testConfig(`host = fake1\nstate_path = ${folder}\nperiodic_enable = false`);
    const parts: ComputeParts = {
      log: this.log,
      transport: this.plane,
      virt: this.virt,
      vifs: [],
      placement: this.placement,
      neutron: new FakeNeutron(),
      glance: new FakeGlance(),
      cinder: new FakeCinder(),
      volumes: new FakeHostVolumes(),
      connector: async () => ({}),
      notifications: { moment() {}, failure() {} },
      flushNotifications: async () => {},
    };
    const service = createComputeService(config, parts);
    try {
      await service.start(AbortSignal.timeout(5000));
      return await work();
    } finally {
      await service.stop(AbortSignal.timeout(2000));
    }
  }
}

/** Calls of the stock compute from its ping to the first heartbeat. */
function recordedCalls(recording: string, from: string): readonly string[] {
  const calls = recordedMessages
    .filter((recorded) => recorded.recording === recording && recorded.from === from && '_msg_id' in recorded.message)
    .filter(({ routingKey }) => routingKey === 'conductor')
    .map(({ message }) => {
      const args = message['args'] as Json;
      return message['method'] === 'ping'
        ? 'ping'
        : `${args['objname'] ?? args['objinst']['nova_object.name']}.${args['objmethod']}`;
    });
  const start = calls.indexOf('ping');
  const end = calls.indexOf('Service.save', start);
  return calls.slice(start, end < 0 ? undefined : end);
}

describe('the first start of a host', () => {
  it('registers before it reports, reports before it consumes, and costs no more calls than the stock one', async () => {
    const world = new World();
    const { plane } = world;

    await world.run(() => plane.events.push('up'));

    expect(plane.calls).toEqual([
      'ping',
      'Service.get_by_host_and_binary',
      'ComputeNodeList.get_all_by_uuids',
      'InstanceList.get_by_host',
      'MigrationList.get_by_filters',
      'ServiceList.get_by_binary',
      'Service.get_minimum_version',
      'Service.create',
      'InstanceList.get_by_host_and_node',
      'MigrationList.get_in_progress_and_error',
      'ComputeNode.get_by_uuid',
      'ComputeNode.create',
      'Service.get_by_host_and_binary',
    ]);
    const stock = recordedCalls('startup_fake1', 'compute-fake1');
    expect(stock.length).toBeGreaterThan(10);
    expect(plane.calls.length).toBeLessThanOrEqual(stock.length);
    expect(plane.events).toEqual([
      'consume compute.fake1',
      'consume compute-alt.fake1',
      'up',
      'stop compute.fake1',
      'stop compute-alt.fake1',
      'close',
    ]);
    expect(plane.service).toMatchObject({ binary: 'nova-compute', topic: 'compute', report_count: 0, version: 64 });
    expect([...world.placement.providers.values()]).toMatchObject([{ uuid: plane.node?.['uuid'], name: 'fake1' }]);
  });

  it('goes on without Placement, but not with wrong credentials', async () => {
    const world = new World();
    for (let count = 0; count < 3; count += 1) world.placement.failNext(new Error('Placement is away'));
    await world.run(() => {});
    const messages = world.log.lines.filter(({ level }) => level === 'error').map(({ message }) => message);
    world.placement.failNext(Object.assign(new Error('401'), { kind: 'unauthorized' }));

    await expect(world.run(() => {})).rejects.toThrow('401');

    expect(messages).toContain('Placement cannot be asked, starting without it');
    expect(messages).toContain('resources not reported, trying again later');
    expect(world.plane.events.filter((event) => event === 'consume compute.fake1')).toHaveLength(1);
  });
});

describe('a restart', () => {
  it('finds itself again, writes nothing that is as it was, and tells schedulers of its instances', async () => {
    const world = new World();
    const { plane } = world;
    await world.run(() => {});
    const uuid = plane.node?.['uuid'];
    plane.calls.length = 0;
    const writes = world.placement.requests.length;

    await world.run(() => {});

    expect(plane.node?.['uuid']).toBe(uuid);
    expect(plane.calls.filter((call) => /create|save|destroy/.test(call))).toEqual([]);
    expect(world.placement.requests.slice(writes).filter((request) => /^(PUT|POST|DELETE)/.test(request))).toEqual([]);
    expect(plane.casts).toEqual([]);
  });

  it('refuses to be a new node when its identity was lost', async () => {
    const world = new World();
    await world.run(() => {});
    if (world.plane.service) world.plane.service['version'] = 66;
    await rm(join(folder, 'compute_id'));

    await expect(world.run(() => {})).rejects.toThrow('compute_id file is lost');
  });

  it('ends an interrupted build before it consumes', async () => {
    const world = new World();
    await world.run(() => {});
    const { plane } = world;
    const flavor = object('Flavor', '1.2', { memory_mb: 64, vcpus: 1, root_gb: 1, ephemeral_gb: 0, swap: 0 });
    const fields = {
      id: 1,
      host: 'fake1',
      node: 'fake1',
      power_state: 0,
      image_ref: 'i',
      os_type: null,
      project_id: 'p',
    };
    plane.instances = [
      object('Instance', '2.7', { ...fields, uuid: 'build', vm_state: 'building', task_state: 'spawning', flavor }),
    ];
    plane.calls.length = 0;

    await world.run(() => {});

    const saved = plane.calls.indexOf('Instance.save');
    expect(saved).toBeGreaterThan(0);
    expect(saved).toBeLessThan(plane.calls.indexOf('ServiceList.get_by_binary'));
    expect(plane.casts).toEqual(['update_instance_info']);
  });
});
