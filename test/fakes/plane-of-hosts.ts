// A control plane in memory that knows hosts, for services that are started as a whole: what each calls, and what it serves.
import type { Service } from '#src/lib/service.ts';
import type { RpcClient, RpcEndpoint, RpcRequest, RpcServerOptions, RpcTransport } from '#src/messaging/types.ts';
import { object } from './compute-harness.ts';
import { FakeControlPlane, remote } from './fake-control-plane.ts';

type Json = Readonly<Record<string, any>>;
type Row = Record<string, any>;

export class PlaneOfHosts implements RpcTransport {
  readonly plane = new FakeControlPlane();
  /** By host. */
  readonly services = new Map<string, Row>();
  /** By uuid. */
  readonly nodes = new Map<string, Row>();
  /** What is served now, by queue. */
  readonly queues = new Map<string, readonly RpcEndpoint[]>();
  calls = 0;
  closed = 0;

  client(): RpcClient {
    return { cast: (request) => this.plane.cast(request), call: (request) => this.#call(request) };
  }

  server({ topic, server, endpoints }: RpcServerOptions): Service {
    const name = `${topic}.${server}`;
    return {
      name,
      start: async () => void this.queues.set(name, endpoints),
      stop: async () => void this.queues.delete(name),
    };
  }

  notifier(): never {
    throw new Error('no notifications are configured');
  }

  async close(): Promise<void> {
    this.closed += 1;
  }

  async #call(request: RpcRequest): Promise<unknown> {
    this.calls += 1;
    const { objname, objinst, objmethod, args = [], kwargs = {} } = request.args as Json;
    if (request.method === 'ping') return { service: 'conductor' };
    const what = `${objname ?? objinst['nova_object.name']}.${objmethod}`;
    const answer = this.#answer(what, objinst?.['nova_object.data'] ?? {}, [...args, ...Object.values(kwargs)]);
    if (answer === undefined) return await this.plane.call(request);
    return objinst === undefined ? answer : [{ ...(answer as object), obj_what_changed: [] }, null];
  }

  #answer(what: string, data: Row, args: readonly any[]): unknown {
    const list = (name: string, version: string, rows: readonly Row[]) =>
      object(`${name}List`, name === 'Instance' ? '2.6' : '1.0', {
        objects: rows.map((row) => object(name, version, row)),
      });
    switch (what) {
      case 'ServiceList.get_by_binary':
        return list('Service', '1.22', [{ version: 64, last_seen_up: '2126-01-01T00:00:00Z' }]);
      case 'Service.get_minimum_version':
        return 64;
      case 'Service.get_by_host_and_binary': {
        const row = this.services.get(args[0]);
        return row === undefined ? null : object('Service', '1.22', row);
      }
      case 'Service.create': {
        const made = { id: this.services.size + 1, disabled: false };
        this.services.set(data['host'], { ...data, ...made });
        return made;
      }
      case 'Service.save':
        Object.assign(this.services.get(data['host']) ?? {}, data);
        return {};
      case 'ComputeNode.get_by_uuid': {
        const row = this.nodes.get(args[0]);
        if (!row) throw remote('ComputeHostNotFound', 'no node');
        return object('ComputeNode', '1.19', row);
      }
      case 'ComputeNode.create': {
        const made = { id: this.nodes.size + 1 };
        this.nodes.set(data['uuid'], { ...data, ...made });
        return made;
      }
      case 'ComputeNode.save':
        Object.assign([...this.nodes.values()].find(({ id }) => id === data['id']) ?? {}, data);
        return {};
      case 'ComputeNodeList.get_all_by_uuids':
        return list(
          'ComputeNode',
          '1.19',
          args[0].flatMap((uuid: string) => this.nodes.get(uuid) ?? []),
        );
      case 'MigrationList.get_in_progress_and_error':
        return list('Migration', '1.7', []);
      case 'BlockDeviceMappingList.get_by_instance_uuids':
        return list('BlockDeviceMapping', '1.21', []);
      case 'InstanceList.get_by_host':
      case 'InstanceList.get_by_host_and_node':
        return list(
          'Instance',
          '2.7',
          this.#instances((row) => row['host'] === args[0]),
        );
      case 'InstanceList.get_by_filters':
        return list(
          'Instance',
          '2.7',
          this.#instances((row) => hasAll(row, args[0])),
        );
      default:
        return undefined;
    }
  }

  #instances(isWanted: (row: Row) => boolean): readonly Row[] {
    return structuredClone([...this.plane.instances.values()].filter(isWanted));
  }
}

/** Rows of the fake are never deleted ones. */
function hasAll(row: Row, { deleted = false, ...filters }: Json): boolean {
  if (deleted === true) return false;
  return Object.entries(filters).every(([key, wanted]) => [wanted].flat().includes(row[key]));
}
