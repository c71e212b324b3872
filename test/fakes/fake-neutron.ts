// Neutron in memory, as far as a compute uses it.
import { randomUUID } from 'node:crypto';
import { OpenStackError } from 'keystone-client-ts';
import { aborted } from '#src/lib/wait.ts';
import type {
  Credentials,
  Neutron,
  NeutronNetwork,
  NeutronPort,
  NeutronQuery,
  NeutronSubnet,
} from '#src/openstack/types.ts';

type Attributes = Readonly<Record<string, unknown>>;

export interface NeutronRequest {
  /** `POST ports`, `GET networks` … */
  readonly what: string;
  readonly as: Credentials['kind'];
  readonly body?: Attributes;
  readonly query?: NeutronQuery;
  readonly id?: string;
}

export class FakeNeutron implements Neutron {
  readonly requests: NeutronRequest[] = [];
  readonly ports = new Map<string, NeutronPort>();
  readonly networks = new Map<string, NeutronNetwork>();
  readonly subnets = new Map<string, NeutronSubnet>();
  readonly floatingIps: Attributes[] = [];
  readonly securityGroups: Attributes[] = [];
  readonly aliases = new Set<string>(['binding', 'binding-extended', 'provider']);
  /** What a binding to a host gives. */
  vifType = 'bridge';
  statusWhenBound = 'ACTIVE';
  /** Called after a port was bound: the moment when a real agent would begin to wire. */
  onBound: (port: NeutronPort) => void = () => {};
  /** Called with each request before it is worked on. */
  onRequest: (request: NeutronRequest) => void = () => {};
  autoTopology: string | undefined;
  delayMs = 0;
  #nextAddress = 20;
  readonly #failures: { readonly what: string; readonly error: Error; isOnce: boolean }[] = [];

  /** Requests called `what` fail: the next one, or all. */
  fail(what: string, error: Error, { isOnce = true } = {}): void {
    this.#failures.push({ what, error, isOnce });
  }

  /** A network with one subnet, as the recorded lab had it. */
  addNetwork(fields: Partial<NeutronNetwork> = {}): NeutronNetwork {
    const id = fields.id ?? randomUUID();
    const subnet: NeutronSubnet = {
      id: randomUUID(),
      network_id: id,
      cidr: '10.77.0.0/24',
      gateway_ip: '10.77.0.1',
      ip_version: 4,
      enable_dhcp: true,
      dns_nameservers: [],
      host_routes: [],
    };
    const network: NeutronNetwork = {
      id,
      name: 'labnet',
      tenant_id: 'project',
      shared: true,
      mtu: 1500,
      subnets: [subnet.id],
      port_security_enabled: true,
      'router:external': false,
      'provider:network_type': 'flat',
      'provider:physical_network': 'physnet1',
      ...fields,
    };
    this.networks.set(id, network);
    this.subnets.set(subnet.id, subnet);
    return network;
  }

  /** A port that the user made. */
  addPort(network: NeutronNetwork, fields: Attributes = {}): NeutronPort {
    const port = { ...this.#newPort({ network_id: network.id, tenant_id: 'project' }), ...fields };
    this.ports.set(port.id, port);
    return port;
  }

  /** The names of the requests in order. */
  get names(): readonly string[] {
    return this.requests.map(({ what }) => what);
  }

  async extensions(credentials: Credentials, signal?: AbortSignal): Promise<ReadonlySet<string>> {
    await this.#request({ what: 'GET extensions', as: credentials.kind }, signal);
    return this.aliases;
  }

  async listPorts(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly NeutronPort[]> {
    await this.#request({ what: 'GET ports', as: credentials.kind, query }, signal);
    return filtered([...this.ports.values()], query);
  }

  async getPort(credentials: Credentials, id: string, signal?: AbortSignal): Promise<NeutronPort> {
    await this.#request({ what: 'GET port', as: credentials.kind, id }, signal);
    return this.#port(id);
  }

  async createPort(credentials: Credentials, body: Attributes, signal?: AbortSignal): Promise<NeutronPort> {
    signal?.throwIfAborted();
    const making = this.#request({ what: 'POST port', as: credentials.kind, body }, undefined).then(() => {
      const port = { ...this.#newPort(body), ...this.#binding(body) };
      this.ports.set(port.id, port);
      if (typeof body['binding:host_id'] === 'string') this.onBound(port);
      return port;
    });
    if (!signal) return await making;
    // the real one makes a port whether or not somebody waits for the answer
    const givenUp = aborted(signal).then(() => Promise.reject(signal.reason as Error));
    return await Promise.race([making, givenUp]);
  }

  async updatePort(credentials: Credentials, id: string, body: Attributes, signal?: AbortSignal): Promise<NeutronPort> {
    await this.#request({ what: 'PUT port', as: credentials.kind, id, body }, signal);
    const binding = this.#binding(body);
    const port = { ...this.#port(id), ...body, ...binding };
    this.ports.set(id, port);
    if (typeof body['binding:host_id'] === 'string') this.onBound(port);
    return port;
  }

  async deletePort(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void> {
    await this.#request({ what: 'DELETE port', as: credentials.kind, id }, signal);
    this.ports.delete(id);
  }

  async listNetworks(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly NeutronNetwork[]> {
    await this.#request({ what: 'GET networks', as: credentials.kind, query }, signal);
    return filtered([...this.networks.values()], query);
  }

  async listSubnets(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly NeutronSubnet[]> {
    await this.#request({ what: 'GET subnets', as: credentials.kind, query }, signal);
    return filtered([...this.subnets.values()], query);
  }

  async listFloatingIps(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly Attributes[]> {
    await this.#request({ what: 'GET floatingips', as: credentials.kind, query }, signal);
    return filtered(this.floatingIps, query);
  }

  async listSecurityGroups(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly Attributes[]> {
    await this.#request({ what: 'GET security-groups', as: credentials.kind, query }, signal);
    return this.securityGroups;
  }

  async getAutoAllocatedTopology(credentials: Credentials, projectId: string, signal?: AbortSignal): Promise<string> {
    await this.#request({ what: 'GET auto-allocated-topology', as: credentials.kind, id: projectId }, signal);
    if (this.autoTopology === undefined) throw new OpenStackError('no topology', { status: 400 });
    return this.autoTopology;
  }

  #binding(body: Attributes): Attributes {
    if (!('binding:host_id' in body)) return {};
    if (body['binding:host_id'] === null) {
      return { 'binding:host_id': '', 'binding:vif_type': 'unbound', 'binding:vif_details': {}, status: 'DOWN' };
    }
    const details = { port_filter: true, connectivity: 'l2' };
    return { 'binding:vif_type': this.vifType, 'binding:vif_details': details, status: this.statusWhenBound };
  }

  #newPort(body: Attributes): NeutronPort {
    const networkId = String(body['network_id']);
    const subnet = [...this.subnets.values()].find(({ network_id }) => network_id === networkId);
    this.#nextAddress += 1;
    const address = `10.77.0.${this.#nextAddress}`;
    return {
      id: randomUUID(),
      mac_address: `fa:16:3e:00:00:${this.#nextAddress.toString(16).padStart(2, '0')}`,
      status: 'DOWN',
      device_owner: '',
      device_id: '',
      'binding:vnic_type': 'normal',
      'binding:profile': {},
      'binding:host_id': '',
      'binding:vif_type': 'unbound',
      'binding:vif_details': {},
      ...body,
      network_id: networkId,
      admin_state_up: true,
      fixed_ips: body['fixed_ips'] ?? (subnet ? [{ subnet_id: subnet.id, ip_address: address }] : []),
    };
  }

  #port(id: string): NeutronPort {
    const port = this.ports.get(id);
    if (!port) throw new OpenStackError(`Port ${id} could not be found.`, { status: 404, code: 'PortNotFound' });
    return port;
  }

  async #request(request: NeutronRequest, signal: AbortSignal | undefined): Promise<void> {
    this.requests.push(request);
    signal?.throwIfAborted();
    this.onRequest(request);
    await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    signal?.throwIfAborted();
    const index = this.#failures.findIndex(({ what }) => what === request.what);
    const failure = this.#failures[index];
    if (failure?.isOnce) this.#failures.splice(index, 1);
    if (failure) throw failure.error;
  }
}

function filtered<T extends Attributes>(items: readonly T[], query: NeutronQuery): readonly T[] {
  return items.filter((item) =>
    Object.entries(query).every(
      ([key, wanted]) => key === 'fields' || (Array.isArray(wanted) ? wanted : [wanted]).includes(item[key] as never),
    ),
  );
}
