// Placement, as a compute uses it (nova-compute-contract section 8.2).
import { OpenStackError, type ServiceClient, type ServiceRequest } from 'keystone-client-ts';
import { type ClientOptions, createServiceClient, withSignal } from './service.ts';
import type { Allocations, Inventory, Placement, ResourceProvider } from './types.ts';

/** Microversion per call; requests without one speak 1.0. */
type Call = Pick<ServiceRequest, 'method' | 'path' | 'query' | 'body'> & { readonly microversion?: string };

interface ProviderBody {
  readonly uuid: string;
  readonly name: string;
  readonly generation: number;
  readonly parent_provider_uuid?: string | null;
}

interface InventoryBody {
  readonly total: number;
  readonly reserved: number;
  readonly min_unit: number;
  readonly max_unit: number;
  readonly step_size: number;
  readonly allocation_ratio: number;
}

interface AllocationsBody {
  readonly allocations: Allocations['allocations'];
  readonly project_id?: string;
  readonly user_id?: string;
  readonly consumer_generation?: number | null;
}

type GenerationBody = { readonly resource_provider_generation: number };

export function createPlacement(options: ClientOptions): Placement {
  return new PlacementClient(createServiceClient({ serviceType: 'placement' }, options));
}

class PlacementClient implements Placement {
  readonly #client: ServiceClient;

  constructor(client: ServiceClient) {
    this.#client = client;
  }

  async getProviderTree(rootUuid: string, signal?: AbortSignal): Promise<readonly ResourceProvider[]> {
    const call = {
      method: 'GET',
      path: '/resource_providers',
      query: { in_tree: rootUuid },
      microversion: '1.14',
    } as const;
    const body = await this.#ask<{ resource_providers: readonly ProviderBody[] }>(call, signal);
    return body.resource_providers.map(toProvider);
  }

  async createProvider(uuid: string, name: string, signal?: AbortSignal): Promise<ResourceProvider> {
    const call = { method: 'POST', path: '/resource_providers', body: { uuid, name }, microversion: '1.20' } as const;
    return toProvider(await this.#ask<ProviderBody>(call, signal));
  }

  async deleteProvider(uuid: string, signal?: AbortSignal): Promise<void> {
    await this.#deleted(`/resource_providers/${uuid}`, signal);
  }

  async getInventories(uuid: string, signal?: AbortSignal) {
    const body = await this.#ask<GenerationBody & { inventories: Record<string, InventoryBody> }>(
      { method: 'GET', path: `/resource_providers/${uuid}/inventories` },
      signal,
    );
    return { generation: body.resource_provider_generation, inventories: mapValues(body.inventories, toInventory) };
  }

  async putInventories(
    uuid: string,
    generation: number,
    inventories: Readonly<Record<string, Inventory>>,
    signal?: AbortSignal,
  ): Promise<number> {
    const body = { resource_provider_generation: generation, inventories: mapValues(inventories, fromInventory) };
    const call = {
      method: 'PUT',
      path: `/resource_providers/${uuid}/inventories`,
      body,
      microversion: '1.26',
    } as const;
    return (await this.#ask<GenerationBody>(call, signal)).resource_provider_generation;
  }

  async getTraits(uuid: string, signal?: AbortSignal) {
    const call = { method: 'GET', path: `/resource_providers/${uuid}/traits`, microversion: '1.6' } as const;
    const body = await this.#ask<GenerationBody & { traits: readonly string[] }>(call, signal);
    return { generation: body.resource_provider_generation, traits: body.traits };
  }

  async putTraits(uuid: string, generation: number, traits: readonly string[], signal?: AbortSignal): Promise<number> {
    const body = { resource_provider_generation: generation, traits };
    const call = { method: 'PUT', path: `/resource_providers/${uuid}/traits`, body, microversion: '1.6' } as const;
    return (await this.#ask<GenerationBody>(call, signal)).resource_provider_generation;
  }

  async knownTraits(names: readonly string[], signal?: AbortSignal): Promise<ReadonlySet<string>> {
    if (names.length === 0) return new Set();
    const query = { name: `in:${names.join(',')}` };
    const call = { method: 'GET', path: '/traits', query, microversion: '1.6' } as const;
    return new Set((await this.#ask<{ traits: readonly string[] }>(call, signal)).traits);
  }

  async createCustomTrait(name: string, signal?: AbortSignal): Promise<void> {
    await this.#ask({ method: 'PUT', path: `/traits/${name}`, microversion: '1.6' }, signal);
  }

  async getAggregates(uuid: string, signal?: AbortSignal) {
    const call = { method: 'GET', path: `/resource_providers/${uuid}/aggregates`, microversion: '1.19' } as const;
    const body = await this.#ask<GenerationBody & { aggregates: readonly string[] }>(call, signal);
    return { generation: body.resource_provider_generation, aggregates: body.aggregates };
  }

  async getProviderAllocations(uuid: string, signal?: AbortSignal): Promise<Allocations['allocations']> {
    const call = { method: 'GET', path: `/resource_providers/${uuid}/allocations` } as const;
    return (await this.#ask<AllocationsBody>(call, signal)).allocations;
  }

  async getAllocations(consumer: string, signal?: AbortSignal): Promise<Allocations> {
    const call = { method: 'GET', path: `/allocations/${consumer}`, microversion: '1.28' } as const;
    const body = await this.#ask<AllocationsBody>(call, signal);
    return {
      allocations: body.allocations,
      ...(body.project_id !== undefined && { projectId: body.project_id }),
      ...(body.user_id !== undefined && { userId: body.user_id }),
      ...(body.consumer_generation !== undefined && { consumerGeneration: body.consumer_generation }),
    };
  }

  async removeAllocations(consumer: string, signal?: AbortSignal): Promise<void> {
    const current = await this.getAllocations(consumer, signal);
    if (Object.keys(current.allocations).length === 0) return;
    const body = { allocations: {}, ...ownerOf(current), consumer_generation: current.consumerGeneration };
    await this.#ask({ method: 'PUT', path: `/allocations/${consumer}`, body, microversion: '1.28' }, signal);
  }

  async removeFromAllocations(consumer: string, providerUuid: string, signal?: AbortSignal): Promise<void> {
    const current = await this.getAllocations(consumer, signal);
    const { [providerUuid]: gone, ...rest } = current.allocations;
    if (!gone) return;
    const allocations = mapValues(rest, ({ resources }) => ({ resources }));
    const body = { allocations, ...ownerOf(current), consumer_generation: current.consumerGeneration };
    await this.#ask({ method: 'PUT', path: `/allocations/${consumer}`, body, microversion: '1.28' }, signal);
  }

  async deleteAllocations(consumer: string, signal?: AbortSignal): Promise<boolean> {
    return await this.#deleted(`/allocations/${consumer}`, signal);
  }

  async moveAllocations(source: string, target: string, signal?: AbortSignal): Promise<void> {
    const [from, to] = await Promise.all([this.getAllocations(source, signal), this.getAllocations(target, signal)]);
    if (Object.keys(from.allocations).length === 0) return;
    const owner = ownerOf(from);
    const body = {
      [source]: { allocations: {}, ...owner, consumer_generation: from.consumerGeneration },
      [target]: {
        allocations: mapValues(from.allocations, ({ resources }) => ({ resources })),
        ...owner,
        consumer_generation: to.consumerGeneration ?? null,
      },
    };
    await this.#ask({ method: 'POST', path: '/allocations', body, microversion: '1.28' }, signal);
  }

  async #deleted(path: string, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      await this.#ask({ method: 'DELETE', path }, signal);
      return true;
    } catch (error) {
      if (error instanceof OpenStackError && error.status === 404) return false;
      throw error;
    }
  }

  async #ask<T>({ microversion, ...call }: Call, signal: AbortSignal | undefined): Promise<T> {
    const headers = microversion === undefined ? {} : { 'OpenStack-API-Version': `placement ${microversion}` };
    const response = await this.#client.request({ ...call, headers, ...withSignal(signal) });
    return response.data as T;
  }
}

function ownerOf({ projectId, userId }: Allocations): { project_id: string | undefined; user_id: string | undefined } {
  return { project_id: projectId, user_id: userId };
}

function toProvider({ uuid, name, generation, parent_provider_uuid = null }: ProviderBody): ResourceProvider {
  return { uuid, name, generation, parentProviderUuid: parent_provider_uuid };
}

function toInventory(body: InventoryBody): Inventory {
  const { total, reserved, min_unit, max_unit, step_size, allocation_ratio } = body;
  return {
    total,
    reserved,
    minUnit: min_unit,
    maxUnit: max_unit,
    stepSize: step_size,
    allocationRatio: allocation_ratio,
  };
}

function fromInventory({ total, reserved, minUnit, maxUnit, stepSize, allocationRatio }: Inventory): InventoryBody {
  return {
    total,
    reserved,
    min_unit: minUnit,
    max_unit: maxUnit,
    step_size: stepSize,
    allocation_ratio: allocationRatio,
  };
}

function mapValues<A, B>(record: Readonly<Record<string, A>>, change: (value: A) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}
