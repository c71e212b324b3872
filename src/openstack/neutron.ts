// Neutron v2.0, as a compute uses it (nova-compute-contract section 8.3).
import { OpenStackError, type ServiceClient, type ServiceRequest } from 'keystone-client-ts';
import { SharedAnswers } from '#src/lib/shared-answers.ts';
import { limited } from '#src/lib/wait.ts';
import { asRequestedBy, type ClientOptions, createServiceClient, withSignal } from './service.ts';
import type { Credentials, Neutron, NeutronNetwork, NeutronPort, NeutronQuery, NeutronSubnet } from './types.ts';

type Attributes = Readonly<Record<string, unknown>>;
/** An instance's surroundings change seldom, and the instances of one network all ask for them. */
const BELIEVED_MS = 5000;
/** Of all pages, each of which has a limit of its own. */
const SHARED_LIMIT_MS = 300_000;

type Call = Pick<ServiceRequest, 'method' | 'path' | 'query' | 'body'>;

export interface NeutronOptions extends ClientOptions {
  /** Milliseconds for which the list of extensions is believed; default 600 000 ([neutron] extension_sync_interval). */
  readonly extensionSyncMs?: number;
}

export function createNeutron(options: NeutronOptions): Neutron {
  return new NeutronClient(
    createServiceClient({ serviceType: 'network' }, options),
    options.extensionSyncMs ?? 600_000,
  );
}

interface SharedList<T> {
  readonly collection: string;
  readonly query: NeutronQuery;
  readonly isKept: (found: readonly T[]) => boolean;
}

class NeutronClient implements Neutron {
  readonly #client: ServiceClient;
  readonly #extensionSyncMs: number;
  readonly #shared = new SharedAnswers<readonly unknown[]>(BELIEVED_MS);
  #extensions: { readonly aliases: ReadonlySet<string>; readonly until: number } | undefined;

  constructor(client: ServiceClient, extensionSyncMs: number) {
    this.#client = client;
    this.#extensionSyncMs = extensionSyncMs;
  }

  async extensions(credentials: Credentials, signal?: AbortSignal): Promise<ReadonlySet<string>> {
    if (this.#extensions && this.#extensions.until > Date.now()) return this.#extensions.aliases;
    const call = { method: 'GET', path: '/v2.0/extensions' } as const;
    const body = await this.#ask<{ extensions: readonly { alias: string }[] }>(credentials, call, signal);
    const aliases = new Set(body.extensions.map(({ alias }) => alias));
    this.#extensions = { aliases, until: Date.now() + this.#extensionSyncMs };
    return aliases;
  }

  async listPorts(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly NeutronPort[]> {
    if (query['device_owner'] !== 'network:dhcp') {
      return await this.#list<NeutronPort>(credentials, 'ports', query, signal);
    }
    const isThere = (ports: readonly NeutronPort[]): boolean => ports.length > 0;
    return await this.#listShared(credentials, { collection: 'ports', query, isKept: isThere }, signal);
  }

  async getPort(credentials: Credentials, id: string, signal?: AbortSignal): Promise<NeutronPort> {
    return await this.#port(credentials, { method: 'GET', path: portPath(id) }, signal);
  }

  async createPort(credentials: Credentials, port: Attributes, signal?: AbortSignal): Promise<NeutronPort> {
    return await this.#port(credentials, { method: 'POST', path: '/v2.0/ports', body: { port } }, signal);
  }

  async updatePort(
    credentials: Credentials,
    id: string,
    changes: Attributes,
    signal?: AbortSignal,
  ): Promise<NeutronPort> {
    return await this.#port(credentials, { method: 'PUT', path: portPath(id), body: { port: changes } }, signal);
  }

  async deletePort(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void> {
    try {
      await this.#ask(credentials, { method: 'DELETE', path: portPath(id) }, signal);
    } catch (error) {
      if (!(error instanceof OpenStackError && error.status === 404)) throw error;
    }
  }

  async listNetworks(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly NeutronNetwork[]> {
    return await this.#listNamed<NeutronNetwork>(credentials, 'networks', query, signal);
  }

  async listSubnets(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly NeutronSubnet[]> {
    return await this.#listNamed<NeutronSubnet>(credentials, 'subnets', query, signal);
  }

  async listFloatingIps(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly Attributes[]> {
    return await this.#list<Attributes>(credentials, 'floatingips', query, signal);
  }

  async listSecurityGroups(
    credentials: Credentials,
    query: NeutronQuery,
    signal?: AbortSignal,
  ): Promise<readonly Attributes[]> {
    return await this.#list<Attributes>(credentials, 'security-groups', query, signal);
  }

  async getAutoAllocatedTopology(credentials: Credentials, projectId: string, signal?: AbortSignal): Promise<string> {
    const call = { method: 'GET', path: `/v2.0/auto-allocated-topology/${encodeURIComponent(projectId)}` } as const;
    const body = await this.#ask<{ auto_allocated_topology: { id: string } }>(credentials, call, signal);
    return body.auto_allocated_topology.id;
  }

  /** What is asked for by its ids alone may be shared, when it is all there: what is missing may come in a moment. */
  async #listNamed<T>(
    credentials: Credentials,
    collection: string,
    query: NeutronQuery,
    signal: AbortSignal | undefined,
  ): Promise<readonly T[]> {
    const { id, ...others } = query;
    if (id === undefined || Object.keys(others).length > 0) {
      return await this.#list<T>(credentials, collection, query, signal);
    }
    const isComplete = (found: readonly T[]): boolean => found.length === [id].flat().length;
    return await this.#listShared(credentials, { collection, query, isKept: isComplete }, signal);
  }

  /** One request for all who ask the same with the same rights within a few seconds. */
  async #listShared<T>(
    credentials: Credentials,
    { collection, query, isKept }: SharedList<T>,
    signal: AbortSignal | undefined,
  ): Promise<readonly T[]> {
    const question = {
      key: JSON.stringify([credentials.kind === 'user' && credentials.token, collection, query]),
      // not the signal of the one who asks first: others wait for the same answer
      ask: () => this.#list<T>(credentials, collection, query, limited(SHARED_LIMIT_MS)),
      isKept: (answer: readonly unknown[]) => isKept(answer as readonly T[]),
    };
    return (await this.#shared.to(question, signal)) as readonly T[];
  }

  async #list<T>(
    credentials: Credentials,
    collection: string,
    query: NeutronQuery,
    signal: AbortSignal | undefined,
  ): Promise<readonly T[]> {
    const call = { method: 'GET', path: `/v2.0/${collection}`, query } as const;
    const body = await this.#ask<Record<string, readonly T[]>>(credentials, call, signal);
    return body[collection.replace('-', '_')] ?? [];
  }

  async #port(credentials: Credentials, call: Call, signal: AbortSignal | undefined): Promise<NeutronPort> {
    return (await this.#ask<{ port: NeutronPort }>(credentials, call, signal)).port;
  }

  async #ask<T>(credentials: Credentials, call: Call, signal: AbortSignal | undefined): Promise<T> {
    const request = { ...call, ...asRequestedBy(credentials), ...withSignal(signal) };
    return (await this.#client.request(request)).data as T;
  }
}

function portPath(id: string): string {
  return `/v2.0/ports/${encodeURIComponent(id)}`;
}
