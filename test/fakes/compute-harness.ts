// The operations of the compute service on fakes of everything around them; messages go in at the endpoints.
import { randomUUID } from 'node:crypto';
import type { ComputeConfig } from '#src/compute/config/config.ts';
import { composeConfig } from '#src/compute/config/compose.ts';
import { parseIni } from '#src/compute/config/ini.ts';
import { Options } from '#src/compute/config/options.ts';
import { computeEndpoints, createInstanceOperations } from '#src/compute/rpc/endpoints.ts';
import { UnderWay } from '#src/compute/rpc/under-way.ts';
import type { ComputeServices, InstanceNotifications } from '#src/compute/types.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log, LogFields } from '#src/lib/log.ts';
import { createConductor } from '#src/nova/conductor.ts';
import { FakeVirtDriver } from '#drivers/virt/fake/fake.ts';
import { FakeControlPlane } from './fake-control-plane.ts';
import { FakeCinder } from './fake-cinder.ts';
import { FakeGlance } from './fake-glance.ts';
import { FakeHostVolumes } from './fake-host-volumes.ts';
import { FakeNeutron } from './fake-neutron.ts';
import { FakePlacement } from './fake-placement.ts';
import { FakeTracker } from './fake-tracker.ts';
import { FakeVif } from './fake-vif.ts';

type Json = Readonly<Record<string, any>>;

export const HOST = 'fake1';
export const TOKEN = 'the-user-token';

const SECTION = 'auth_type = password\nauth_url = http://k\nusername = u\npassword = p\nproject_name = service\n';

const configs = new Map<string, ComputeConfig>();

export function testConfig(text = ''): ComputeConfig {
  const config = configs.get(text) ?? composeTestConfig(text);
  configs.set(text, config);
  return config;
}

function composeTestConfig(text: string): ComputeConfig {
  const sections = ['placement', 'neutron', 'glance', 'cinder', 'service_user'].map((name) => `[${name}]\n${SECTION}`);
  const ini = `[DEFAULT]\nvif_plugging_timeout = 2\n${text}\n${sections.join('')}`;
  const options = new Options({
    files: [parseIni(ini, 'nova.conf')],
    environment: {},
    machineDefaults: { host: HOST, my_ip: '10.0.0.1', tempdir: '/tmp' },
  });
  return composeConfig(options, []);
}

export class RecordingLog implements Log {
  readonly lines: { level: string; message: string; fields: LogFields | undefined }[] = [];
  debug = this.#at('debug');
  info = this.#at('info');
  warn = this.#at('warn');
  error = this.#at('error');

  #at(level: string): (message: string, fields?: LogFields) => void {
    return (message, fields) => this.lines.push({ level, message, fields });
  }
}

export interface HarnessOptions {
  readonly config?: string;
  readonly delayMs?: number;
  readonly host?: string;
  readonly beside?: ComputeHarness;
}

export interface SendOptions {
  readonly context?: Json;
  readonly major?: string;
  readonly namespace?: string;
}

export class ComputeHarness {
  readonly plane: FakeControlPlane;
  readonly neutron: FakeNeutron;
  readonly placement: FakePlacement;
  readonly glance = new FakeGlance();
  readonly cinder: FakeCinder;
  readonly volumes = new FakeHostVolumes();
  readonly vif = new FakeVif();
  readonly log = new RecordingLog();
  readonly moments: string[] = [];
  readonly virt: FakeVirtDriver;
  readonly tracker: FakeTracker;
  readonly services: ComputeServices;
  readonly operations: ReturnType<typeof createInstanceOperations>;
  readonly endpoints: ReturnType<typeof computeEndpoints>;

  /** `beside`: another compute of the same cloud. */
  constructor({ config = '', delayMs = 0, host = HOST, beside }: HarnessOptions = {}) {
    this.plane = beside?.plane ?? new FakeControlPlane();
    this.neutron = beside?.neutron ?? new FakeNeutron();
    this.placement = beside?.placement ?? new FakePlacement();
    this.cinder = beside?.cinder ?? new FakeCinder();
    const conductor = createConductor(this.plane);
    this.virt = new FakeVirtDriver({ nodeName: host, delayMs });
    this.tracker = new FakeTracker(host, conductor);
    const notifications: InstanceNotifications = {
      moment: (_context, _instance, { name, phase }) => this.moments.push(phase === 'once' ? name : `${name}.${phase}`),
      failure: (_context, { method }) => this.moments.push(`failure ${method}`),
    };
    this.services = {
      config: { ...testConfig(config), host },
      log: this.log,
      conductor,
      rpc: this.plane,
      virt: this.virt,
      placement: this.placement.asPlacement(),
      neutron: this.neutron,
      glance: this.glance,
      cinder: this.cinder,
      volumes: this.volumes,
      connector: async () => ({ host, ip: '10.0.0.1' }),
      tracker: this.tracker,
      vifs: [this.vif],
      notifications,
      locks: new KeyedLock(),
      underWay: new UnderWay(),
    };
    this.operations = createInstanceOperations(this.services);
    this.endpoints = computeEndpoints(this.services, this.operations);
  }

  /** Sends a message to the endpoint of that major version, as the messaging server would. */
  async send(
    method: string,
    args: Json,
    { context = userContext(), major = '6', namespace }: SendOptions = {},
  ): Promise<unknown> {
    const endpoint = this.endpoints.find((one) =>
      namespace === undefined ? one.version.startsWith(`${major}.`) : one.namespace === namespace,
    );
    const handler = endpoint?.methods[method];
    if (handler === undefined) throw new Error(`no such method: ${method}`);
    return await handler(context, structuredClone(args), new AbortController().signal);
  }

  /** A build, waited for. */
  async build(instance: Json, args: Json = {}): Promise<void> {
    this.plane.add(instance);
    this.placement.consumers.add(instance['nova_object.data'].uuid);
    await this.send('build_and_run_instance', buildArgs(instance, args));
    await this.operations.drain(AbortSignal.timeout(9000));
  }

  row(instance: Json): Record<string, any> {
    const row = this.plane.instances.get(instance['nova_object.data'].uuid);
    if (!row) throw new Error('no such instance');
    return row;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.operations.cancelWaits();
    await this.operations.drain(AbortSignal.timeout(2000));
  }
}

export function userContext(fields: Json = {}): Json {
  return {
    user_id: 'user',
    project_id: 'project',
    is_admin: false,
    auth_token: TOKEN,
    request_id: 'req-11111111-1111-4111-8111-111111111111',
    roles: ['member', 'reader'],
    read_deleted: 'no',
    timestamp: '2026-01-01T00:00:00.000000',
    service_catalog: [],
    ...fields,
  };
}

export function object(name: string, version: string, data: Json): Json {
  return {
    'nova_object.name': name,
    'nova_object.namespace': 'nova',
    'nova_object.version': version,
    'nova_object.data': data,
  };
}

export function instanceOf(fields: Json = {}): Json {
  const uuid = fields['uuid'] ?? randomUUID();
  return object('Instance', '2.7', {
    id: 42,
    uuid,
    user_id: 'user',
    project_id: 'project',
    hostname: 'web',
    display_name: 'web',
    image_ref: 'image-1',
    vm_state: 'building',
    task_state: 'scheduling',
    power_state: 0,
    memory_mb: 64,
    vcpus: 1,
    host: null,
    node: null,
    launched_on: null,
    availability_zone: 'nova',
    root_device_name: null,
    config_drive: '',
    user_data: null,
    access_ip_v4: null,
    access_ip_v6: null,
    metadata: {},
    system_metadata: { image_base_image_ref: 'image-1' },
    info_cache: infoCache(uuid, '[]'),
    pci_requests: object('InstancePCIRequests', '1.1', { instance_uuid: uuid, requests: [] }),
    trusted_certs: null,
    flavor: object('Flavor', '1.2', {
      id: 1,
      name: 'm1.tiny',
      memory_mb: 64,
      vcpus: 1,
      root_gb: 1,
      ephemeral_gb: 0,
      swap: 0,
      extra_specs: {},
    }),
    ...fields,
  });
}

export function infoCache(uuid: string, networkInfo: string): Json {
  return object('InstanceInfoCache', '1.5', { instance_uuid: uuid, network_info: networkInfo });
}

export const IMAGE: Json = {
  id: 'image-1',
  name: 'busybox',
  status: 'active',
  size: 7,
  disk_format: 'raw',
  container_format: 'bare',
  checksum: 'cs',
  os_hash_algo: 'sha512',
  os_hash_value: 'hash',
  min_disk: 0,
  min_ram: 0,
  properties: {},
};

export function networkRequests(...requests: readonly Json[]): Json {
  const empty = { network_id: null, address: null, port_id: null, pci_request_id: null, tag: null };
  return object('NetworkRequestList', '1.1', {
    objects: requests.map((request) => object('NetworkRequest', '1.3', { ...empty, ...request })),
  });
}

export const NO_NETWORK = networkRequests({ network_id: 'none' });

export function buildArgs(instance: Json, args: Json = {}): Json {
  const uuid = instance['nova_object.data'].uuid;
  return {
    instance,
    image: IMAGE,
    request_spec: null,
    filter_properties: { retry: { num_attempts: 1, hosts: [[HOST, HOST]] }, limits: {} },
    accel_uuids: [],
    admin_password: 'very-secret',
    injected_files: [],
    requested_networks: NO_NETWORK,
    security_groups: ['default'],
    block_device_mapping: object('BlockDeviceMappingList', '1.18', {
      objects: [
        object('BlockDeviceMapping', '1.21', {
          id: 1,
          uuid: randomUUID(),
          instance_uuid: uuid,
          source_type: 'image',
          destination_type: 'local',
          boot_index: 0,
          device_name: null,
          tag: null,
        }),
      ],
    }),
    node: HOST,
    limits: {},
    host_list: [],
    ...args,
  };
}
