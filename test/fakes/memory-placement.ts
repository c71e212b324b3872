// Placement in memory, with generations, known traits and the conflicts that a compute must live with.
import { OpenStackError } from 'keystone-client-ts';
import type { Allocations, Inventory, Placement, ResourceProvider } from '#src/openstack/types.ts';

interface Provider {
  readonly uuid: string;
  readonly name: string;
  generation: number;
  inventories: Readonly<Record<string, Inventory>>;
  traits: readonly string[];
}

export class MemoryPlacement implements Placement {
  readonly providers = new Map<string, Provider>();
  readonly allocations = new Map<string, Record<string, { resources: Record<string, number> }>>();
  readonly standardTraits = new Set(['COMPUTE_NODE', 'COMPUTE_STATUS_DISABLED', 'COMPUTE_IMAGE_TYPE_RAW']);
  /** Writes and reads, in order, such as `PUT traits`. */
  readonly requests: string[] = [];
  readonly #failures: Error[] = [];

  failNext(error: Error): void {
    this.#failures.push(error);
  }

  /** Somebody else changes the provider. */
  touch(uuid: string, changes: Partial<Provider> = {}): void {
    const provider = this.#provider(uuid);
    Object.assign(provider, changes, { generation: provider.generation + 1 });
  }

  async getProviderTree(rootUuid: string): Promise<readonly ResourceProvider[]> {
    this.#request('GET tree');
    const provider = this.providers.get(rootUuid);
    return provider ? [resourceProvider(provider)] : [];
  }

  async createProvider(uuid: string, name: string): Promise<ResourceProvider> {
    this.#request('POST provider');
    if ([...this.providers.values()].some((provider) => provider.name === name)) {
      throw new OpenStackError(`Conflicting resource provider name: ${name} already exists.`, { status: 409 });
    }
    const provider = { uuid, name, generation: 0, inventories: {}, traits: [] };
    this.providers.set(uuid, provider);
    return resourceProvider(provider);
  }

  async deleteProvider(uuid: string): Promise<void> {
    this.#request('DELETE provider');
    this.providers.delete(uuid);
  }

  async getInventories(uuid: string) {
    this.#request('GET inventories');
    const { generation, inventories } = this.#provider(uuid);
    return { generation, inventories };
  }

  async putInventories(uuid: string, generation: number, inventories: Readonly<Record<string, Inventory>>) {
    this.#request('PUT inventories');
    const provider = this.#provider(uuid);
    this.#checkGeneration(provider, generation);
    provider.inventories = inventories;
    provider.generation += 1;
    return provider.generation;
  }

  async getTraits(uuid: string) {
    this.#request('GET traits');
    const { generation, traits } = this.#provider(uuid);
    return { generation, traits };
  }

  async putTraits(uuid: string, generation: number, traits: readonly string[]) {
    this.#request('PUT traits');
    const provider = this.#provider(uuid);
    this.#checkGeneration(provider, generation);
    const unknown = traits.filter((trait) => !this.standardTraits.has(trait));
    if (unknown.length > 0) throw new OpenStackError(`No such trait ${unknown.join()}`, { status: 400 });
    provider.traits = traits;
    provider.generation += 1;
    return provider.generation;
  }

  async knownTraits(names: readonly string[]): Promise<ReadonlySet<string>> {
    this.#request('GET known traits');
    return new Set(names.filter((name) => this.standardTraits.has(name)));
  }

  async createCustomTrait(name: string): Promise<void> {
    this.#request(`PUT trait ${name}`);
    if (!name.startsWith('CUSTOM_')) throw new OpenStackError('not a custom trait', { status: 400 });
    this.standardTraits.add(name);
  }

  async getAggregates(uuid: string) {
    return { generation: this.#provider(uuid).generation, aggregates: [] };
  }

  async getProviderAllocations(uuid: string) {
    this.#request('GET provider allocations');
    const ofProvider = [...this.allocations].flatMap(([consumer, byProvider]) => {
      const allocation = byProvider[uuid];
      return allocation ? [[consumer, allocation] as const] : [];
    });
    return Object.fromEntries(ofProvider);
  }

  async getAllocations(consumer: string): Promise<Allocations> {
    return { allocations: this.allocations.get(consumer) ?? {} };
  }

  async removeAllocations(consumer: string): Promise<void> {
    this.#request(`remove ${consumer}`);
    this.allocations.delete(consumer);
  }

  async removeFromAllocations(consumer: string, providerUuid: string): Promise<void> {
    this.#request(`remove ${consumer} from ${providerUuid}`);
    delete this.allocations.get(consumer)?.[providerUuid];
  }

  async deleteAllocations(consumer: string): Promise<boolean> {
    return this.allocations.delete(consumer);
  }

  async moveAllocations(source: string, target: string): Promise<void> {
    this.allocations.set(target, this.allocations.get(source) ?? {});
    this.allocations.delete(source);
  }

  #provider(uuid: string): Provider {
    const provider = this.providers.get(uuid);
    if (!provider) throw new OpenStackError(`No resource provider ${uuid}`, { status: 404 });
    return provider;
  }

  #checkGeneration(provider: Provider, generation: number): void {
    if (provider.generation === generation) return;
    throw new OpenStackError('resource provider generation conflict', {
      status: 409,
      code: 'placement.concurrent_update',
    });
  }

  #request(what: string): void {
    this.requests.push(what);
    const failure = this.#failures.shift();
    if (failure) throw failure;
  }
}

function resourceProvider({ uuid, name, generation }: Provider): ResourceProvider {
  return { uuid, name, generation, parentProviderUuid: null };
}
