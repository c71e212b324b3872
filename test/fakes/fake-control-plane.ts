// nova-conductor and nova-scheduler in memory: keeps Nova's rows, checks expected states, records every message.
import { randomUUID } from 'node:crypto';
import { RemoteError } from '#src/messaging/errors.ts';
import type { RpcClient, RpcRequest } from '#src/messaging/types.ts';

type Json = Readonly<Record<string, any>>;
type Row = Record<string, any>;

/** One message sent to the control plane, in the words of the recordings. */
export interface Sent {
  /** `Instance.save`, `InstanceActionEvent.event_start`, `build_instances` … */
  readonly what: string;
  readonly args: readonly unknown[];
  readonly kwargs: Json;
  /** Of object actions: the changed fields with their values. */
  readonly changes: Json;
  readonly request: RpcRequest;
}

type Answer = (sent: Sent) => unknown;

export class FakeControlPlane implements RpcClient {
  readonly sent: Sent[] = [];
  readonly instances = new Map<string, Row>();
  readonly faults: Row[] = [];
  readonly events: { event: string; result: 'started' | 'Success' | 'Error'; details: string | null }[] = [];
  readonly virtualInterfaces: Row[] = [];
  readonly groups = new Map<string, Row>();
  readonly blockDevices: Row[] = [];
  /** By id. */
  readonly migrations = new Map<number, Row>();
  /** Computes that are called by others, by host. */
  readonly peers = new Map<string, (request: RpcRequest) => Promise<unknown>>();
  readonly casts: RpcRequest[] = [];
  /** Milliseconds that every answer takes. */
  delayMs = 0;
  readonly #overrides = new Map<string, Answer[]>();

  /** Keeps the row of an instance primitive. */
  add(instance: Json): void {
    this.instances.set(instance['nova_object.data'].uuid, structuredClone(instance['nova_object.data']));
  }

  addMigration(migration: Json): void {
    const data = structuredClone(migration['nova_object.data']);
    this.migrations.set(data.id, data);
  }

  /** The next answer to that message; throw for an exception. */
  next(what: string, answer: Answer): void {
    this.#overrides.set(what, [...(this.#overrides.get(what) ?? []), answer]);
  }

  /** The messages' names in order. */
  get names(): readonly string[] {
    return this.sent.map(({ what }) => what);
  }

  named(what: string): readonly Sent[] {
    return this.sent.filter((sent) => sent.what === what);
  }

  async call(request: RpcRequest): Promise<unknown> {
    const sent = describe(request);
    this.sent.push(sent);
    const peer = request.target.topic === 'compute' ? this.peers.get(request.target.server ?? '') : undefined;
    if (peer) return await peer(request);
    await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    const override = this.#overrides.get(sent.what)?.shift();
    if (override) return wrap(request, await override(sent));
    return wrap(request, this.#answer(sent));
  }

  async cast(request: RpcRequest): Promise<void> {
    this.casts.push(request);
    this.sent.push({ what: request.method, args: [], kwargs: request.args as Json, changes: {}, request });
  }

  #answer(sent: Sent): unknown {
    const handler = this.#handlers[sent.what];
    return handler === undefined ? {} : handler(sent);
  }

  readonly #handlers: Readonly<Record<string, Answer>> = {
    'Instance.save': (sent) => this.#save(sent),
    'Instance.destroy': (sent) => {
      const row = this.#row(dataOf(sent)['uuid']);
      row['deleted'] = true;
      this.instances.delete(row['uuid']);
      return {};
    },
    'Instance.get_by_uuid': ({ args, kwargs }) => {
      const row = this.#row(String(kwargs['uuid'] ?? args[0]));
      // messages and rows made of them do not all have it, the database does
      const flavor = objectOf('Flavor', '1.2', { id: 1, memory_mb: 64, vcpus: 1, root_gb: 1, extra_specs: {} });
      const wantsFlavor = (kwargs['expected_attrs'] as string[] | undefined)?.includes('flavor') === true;
      return objectOf('Instance', '2.7', structuredClone({ ...(wantsFlavor && { flavor }), ...row }));
    },
    'Migration.save': (sent) => {
      Object.assign(this.migrations.get(dataOf(sent)['id']) ?? {}, sent.changes);
      return {};
    },
    'Migration.get_by_id': ({ args: [id] }) => {
      const row = this.migrations.get(Number(id));
      if (!row) throw remote('MigrationNotFound', `Migration ${String(id)} could not be found.`, { code: 404 });
      return objectOf('Migration', '1.7', structuredClone(row));
    },
    'Migration.get_by_uuid': ({ args: [uuid] }) => {
      const row = [...this.migrations.values()].find((one) => one['uuid'] === uuid);
      if (!row) throw remote('MigrationNotFound', `Migration ${String(uuid)} could not be found.`, { code: 404 });
      return objectOf('Migration', '1.7', structuredClone(row));
    },
    'MigrationList.get_by_filters': ({ args: [filters] }) => {
      const rows = [...this.migrations.values()].filter((row) => matches(row, filters as Json));
      return listObject('Migration', '1.7', structuredClone(rows));
    },
    'ComputeNode.get_by_host_and_nodename': ({ args: [host, node] }) =>
      objectOf('ComputeNode', '1.19', { id: 7, host, hypervisor_hostname: node, hypervisor_type: 'fake' }),
    'InstanceInfoCache.save': (sent) => {
      const { instance_uuid: uuid, network_info: info } = dataOf(sent);
      const row = this.instances.get(uuid);
      if (row?.['info_cache']) row['info_cache']['nova_object.data'].network_info = info;
      return {};
    },
    'InstanceInfoCache.refresh': (sent) => {
      const row = this.#row(dataOf(sent)['instance_uuid']);
      return { network_info: row['info_cache']['nova_object.data'].network_info };
    },
    'VirtualInterface.create': (sent) => {
      const id = this.virtualInterfaces.length + 1;
      this.virtualInterfaces.push({ ...dataOf(sent), id });
      return { id };
    },
    'BlockDeviceMappingList.get_by_instance_uuid': ({ args: [uuid] }) =>
      listObject(
        'BlockDeviceMapping',
        '1.21',
        structuredClone(this.blockDevices.filter((row) => row['instance_uuid'] === uuid)),
      ),
    'BlockDeviceMappingList.get_by_instance_uuids': ({ args: [uuids] }) =>
      listObject(
        'BlockDeviceMapping',
        '1.21',
        structuredClone(this.blockDevices.filter((row) => (uuids as string[]).includes(row['instance_uuid']))),
      ),
    'BlockDeviceMapping.create': (sent) => {
      const own = { id: this.blockDevices.length + 100, uuid: randomUUID(), delete_on_termination: false };
      this.blockDevices.push({ ...dataOf(sent), ...own });
      return own;
    },
    'BlockDeviceMapping.save': (sent) => {
      const row = this.blockDevices.find(({ id }) => id === dataOf(sent)['id']);
      if (row) Object.assign(row, sent.changes);
      return {};
    },
    'BlockDeviceMapping.destroy': (sent) => {
      const index = this.blockDevices.findIndex(({ id }) => id === dataOf(sent)['id']);
      if (index >= 0) this.blockDevices.splice(index, 1);
      return {};
    },
    'ConsoleAuthToken.authorize': () => new Result(`token-${this.named('ConsoleAuthToken.authorize').length}`),
    'VirtualInterface.get_by_uuid': ({ args: [uuid] }) => {
      const found = this.virtualInterfaces.find((row) => row['uuid'] === uuid);
      return found === undefined ? null : objectOf('VirtualInterface', '1.3', found);
    },
    'VirtualInterface.destroy': (sent) => {
      const index = this.virtualInterfaces.findIndex((row) => row['uuid'] === dataOf(sent)['uuid']);
      if (index >= 0) this.virtualInterfaces.splice(index, 1);
      return {};
    },
    'VirtualInterface.delete_by_instance_uuid': ({ args: [uuid] }) => {
      const left = this.virtualInterfaces.filter((row) => row['instance_uuid'] !== uuid);
      this.virtualInterfaces.splice(0, Number.POSITIVE_INFINITY, ...left);
      return null;
    },
    'VirtualInterfaceList.get_by_instance_uuid': ({ args: [uuid] }) =>
      listObject(
        'VirtualInterface',
        '1.3',
        this.virtualInterfaces.filter((row) => row['instance_uuid'] === uuid),
      ),
    'InstanceFault.create': (sent) => {
      this.faults.push(dataOf(sent));
      return {};
    },
    'InstanceActionEvent.event_start': ({ args: [, event] }) => {
      this.events.push({ event: String(event), result: 'started', details: null });
      return null;
    },
    'InstanceActionEvent.event_finish_with_failure': ({ args: [, event], kwargs }) => {
      const started = this.events.findLast((row) => row.event === event && row.result === 'started');
      if (!started) throw remote('InstanceActionEventNotFound', `Event ${String(event)} not found`);
      started.result = kwargs['exc_tb'] === null ? 'Success' : 'Error';
      started.details = kwargs['exc_val'];
      return null;
    },
    'InstanceGroup.get_by_uuid': ({ args: [uuid] }) => {
      const group = this.groups.get(String(uuid));
      if (!group) throw remote('InstanceGroupNotFound', `Instance group ${String(uuid)} could not be found.`);
      return objectOf('InstanceGroup', '1.11', group);
    },
    'InstanceGroup.get_hosts': (sent) => {
      const uuid = dataOf(sent)['uuid'];
      return new Result(this.groups.get(uuid)?.['hosts'] ?? []);
    },
    'InstanceList.get_by_host': ({ args: [host] }) => {
      const rows = [...this.instances.values()].filter((row) => row['host'] === host);
      return listObject('Instance', '2.7', structuredClone(rows), '2.6');
    },
    'InstanceList.get_by_filters': ({ args: [filters] }) => {
      const rows = [...this.instances.values()].filter((row) => matches(row, filters as Json));
      return listObject('Instance', '2.7', structuredClone(rows), '2.6');
    },
    'InstanceList.get_uuids_by_host': ({ args: [host] }) =>
      [...this.instances.values()].filter((row) => row['host'] === host).map((row) => row['uuid']),
    'MigrationList.get_in_progress_by_host_and_node': () => listObject('Migration', '1.7', []),
  };

  #row(uuid: string): Row {
    const row = this.instances.get(uuid);
    if (!row) throw remote('InstanceNotFound', `Instance ${uuid} could not be found.`, { code: 404 });
    return row;
  }

  #save({ request, kwargs, changes }: Sent): unknown {
    const row = this.#row(dataOfRequest(request)['uuid']);
    const expected = kwargs['expected_task_state'];
    if (expected !== undefined && ![expected].flat().includes(row['task_state'])) {
      const isDeleting = row['task_state'] === 'deleting';
      const name = isDeleting ? 'UnexpectedDeletingTaskStateError' : 'UnexpectedTaskStateError';
      const message = `Conflict updating instance ${row['uuid']}. Expected: ${JSON.stringify(expected)}. Actual: ${row['task_state']}`;
      throw remote(name, message);
    }
    for (const [field, value] of Object.entries(changes)) if (field !== 'info_cache') row[field] = value;
    return { updated_at: '2026-01-01T00:00:00Z' };
  }
}

function matches(row: Row, { host, status, ...others }: Json): boolean {
  const isAtEnd = host === undefined || row['source_compute'] === host || row['dest_compute'] === host;
  const hasStatus = status === undefined || [status].flat().includes(row['status']);
  return isAtEnd && hasStatus && Object.entries(others).every(([key, value]) => [value].flat().includes(row[key]));
}

/** The result of an object action that returns something. */
class Result {
  readonly value: unknown;
  constructor(value: unknown) {
    this.value = value;
  }
}

export function remote(name: string, message: string, kwargs: Json = {}): RemoteError {
  return new RemoteError({ class: name, module: 'nova.exception', message, args: [message], kwargs, tb: [] });
}

function describe(request: RpcRequest): Sent {
  const { method, args } = request as { method: string; args: Json };
  if (method === 'object_action') {
    const object = args['objinst'];
    const changes = Object.fromEntries(
      (object['nova_object.changes'] ?? []).map((field: string) => [field, object['nova_object.data'][field]]),
    );
    const what = `${object['nova_object.name']}.${args['objmethod']}`;
    return { what, args: args['args'], kwargs: args['kwargs'], changes, request };
  }
  if (method === 'object_class_action_versions') {
    const what = `${args['objname']}.${args['objmethod']}`;
    return { what, args: args['args'], kwargs: args['kwargs'], changes: {}, request };
  }
  return { what: method, args: [], kwargs: args, changes: {}, request };
}

function wrap(request: RpcRequest, answer: unknown): unknown {
  if (request.method !== 'object_action') return answer;
  if (answer instanceof Result) return [{ obj_what_changed: [] }, answer.value];
  return [{ ...(answer as object), obj_what_changed: [] }, null];
}

function dataOf({ request }: Sent): Row {
  return dataOfRequest(request);
}

function dataOfRequest(request: RpcRequest): Row {
  return (request.args as Json)['objinst']['nova_object.data'];
}

function objectOf(name: string, version: string, data: Json): Json {
  return {
    'nova_object.name': name,
    'nova_object.namespace': 'nova',
    'nova_object.version': version,
    'nova_object.data': data,
  };
}

function listObject(name: string, version: string, rows: readonly Json[], ofList = '1.0'): Json {
  return objectOf(`${name}List`, ofList, { objects: rows.map((row) => objectOf(name, version, row)) });
}
