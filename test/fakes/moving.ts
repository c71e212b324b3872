// Two computes of one cloud, and messages between them; records of a move as the conductor makes them.
import { ComputeHarness, instanceOf, object } from './compute-harness.ts';

type Json = Readonly<Record<string, any>>;

export const SOURCE = 'fake1';
export const TARGET = 'fake2';
const MIGRATION = 'mig';

export function flavorOf(id: number, fields: Json = {}): Json {
  return object('Flavor', '1.2', {
    id,
    name: `m${id}`,
    memory_mb: 64 * id,
    vcpus: id,
    root_gb: id,
    ephemeral_gb: 0,
    swap: 0,
    extra_specs: {},
    ...fields,
  });
}

export class TwoComputes implements AsyncDisposable {
  readonly source: ComputeHarness;
  readonly target: ComputeHarness;
  readonly #computes: ReadonlyMap<string, ComputeHarness>;

  constructor({ config = '' } = {}) {
    this.source = new ComputeHarness({ host: SOURCE, config });
    this.target = new ComputeHarness({ host: TARGET, config, beside: this.source });
    this.#computes = new Map([
      [SOURCE, this.source],
      [TARGET, this.target],
    ]);
    for (const [host, compute] of this.#computes) {
      this.plane.peers.set(host, async ({ method, args, target: { namespace }, context }) => {
        const endpoint = compute.endpoints.find((one) => one.namespace === namespace);
        return await endpoint?.methods[method]?.(context, structuredClone(args), new AbortController().signal);
      });
    }
  }

  get plane() {
    return this.source.plane;
  }

  get statuses(): readonly unknown[] {
    return this.plane
      .named('Migration.save')
      .flatMap(({ changes }) => ('status' in changes ? [changes['status']] : []));
  }

  get consumers(): ReadonlySet<string> {
    return this.source.placement.consumers;
  }

  /** A server with a port on the source, as the conductor leaves it for a move. */
  async server(fields: Json = {}): Promise<Json> {
    const built = instanceOf();
    const { uuid } = built['nova_object.data'];
    const network = this.source.neutron.addNetwork({ tenant_id: 'project' });
    const requests = object('NetworkRequestList', '1.1', {
      objects: [
        object('NetworkRequest', '1.3', {
          network_id: network.id,
          address: null,
          port_id: null,
          pci_request_id: null,
          tag: null,
        }),
      ],
    });
    await this.source.build(built, { requested_networks: requests });
    const data: Json = {
      ...this.source.row(built),
      task_state: 'resize_prep',
      instance_type_id: 1,
      flavor: flavorOf(1),
      old_flavor: null,
      new_flavor: null,
      ...fields,
    };
    const instance = object('Instance', '2.7', data);
    this.plane.add(instance);
    if (data['vm_state'] === 'stopped') {
      await this.source.virt.powerOff(uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));
    }
    this.source.placement.consumers.add(MIGRATION);
    for (const list of [this.plane.faults, this.plane.events, this.plane.sent, this.plane.casts]) list.length = 0;
    return instance;
  }

  migration(instance: Json, fields: Json = {}): Json {
    const migration = object('Migration', '1.7', {
      id: 1,
      uuid: MIGRATION,
      instance_uuid: instance['nova_object.data'].uuid,
      source_compute: SOURCE,
      source_node: SOURCE,
      dest_compute: null,
      dest_node: null,
      dest_host: null,
      old_instance_type_id: 1,
      new_instance_type_id: 2,
      status: 'accepted',
      migration_type: 'resize',
      ...fields,
    });
    this.plane.addMigration(migration);
    return migration;
  }

  /** prep_resize at the target, and `steps` of what follows (all when absent). */
  async move(instance: Json, { flavor = flavorOf(2), steps = 99 } = {}): Promise<readonly string[]> {
    await this.target.send('prep_resize', {
      instance,
      flavor,
      image: {},
      request_spec: null,
      filter_properties: {},
      node: TARGET,
      migration: this.migration(instance),
      clean_shutdown: true,
      host_list: [],
    });
    return await this.deliver(steps);
  }

  /** What the API sends for the end of a move. */
  async end(instance: Json, method: 'confirm_resize' | 'revert_resize'): Promise<readonly string[]> {
    const row = this.plane.migrations.get(1) ?? {};
    const isRevert = method === 'revert_resize';
    row['status'] = isRevert ? 'reverting' : 'confirming';
    if (isRevert) this.source.row(instance)['task_state'] = 'resize_reverting';
    const compute = isRevert ? this.target : this.source;
    const migration = object('Migration', '1.7', row);
    await compute.send(method, { instance: this.stored(instance), migration, request_spec: null });
    return await this.deliver();
  }

  /** Delivers casts until there are none; the methods in their order, with their hosts. */
  async deliver(limit = 99): Promise<readonly string[]> {
    const done: string[] = [];
    while (done.length < limit) {
      const index = this.plane.casts.findIndex(({ target }) => this.#computes.has(target.server ?? ''));
      const cast = index < 0 ? undefined : this.plane.casts.splice(index, 1)[0];
      if (!cast) break;
      done.push(`${cast.method} ${cast.target.server}`);
      const { namespace } = cast.target;
      const options = namespace === undefined ? {} : { namespace };
      await this.#computes.get(cast.target.server ?? '')?.send(cast.method, cast.args as Json, options);
    }
    return done;
  }

  stored(instance: Json): Json {
    return object('Instance', '2.7', this.source.row(instance));
  }

  guests(instance: Json) {
    const { uuid } = instance['nova_object.data'];
    return [this.source, this.target].map(({ virt }) => virt.instances.get(uuid));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.source[Symbol.asyncDispose]();
    await this.target[Symbol.asyncDispose]();
  }
}
