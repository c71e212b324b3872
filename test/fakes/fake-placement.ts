// Placement in memory: only allocations, which is all that the operations on instances touch.
import type { Allocations, Placement } from '#src/openstack/types.ts';

export class FakePlacement {
  readonly requests: string[] = [];
  /** Consumers that have allocations. */
  readonly consumers = new Set<string>();
  #failure: Error | undefined;

  failNext(error: Error): void {
    this.#failure = error;
  }

  async getAllocations(consumer: string): Promise<Allocations> {
    this.#request(`GET ${consumer}`);
    return { allocations: {} };
  }

  async removeAllocations(consumer: string): Promise<void> {
    this.#request(`PUT ${consumer}`);
    this.consumers.delete(consumer);
  }

  async deleteAllocations(consumer: string): Promise<boolean> {
    this.#request(`DELETE ${consumer}`);
    return this.consumers.delete(consumer);
  }

  async moveAllocations(source: string, target: string): Promise<void> {
    this.#request(`POST ${source} ${target}`);
    if (this.consumers.delete(source)) this.consumers.add(target);
  }

  async removeFromAllocations(consumer: string, providerUuid: string): Promise<void> {
    this.#request(`PUT ${consumer} without ${providerUuid}`);
  }

  /** As if all were on one provider. */
  async getProviderAllocations(): Promise<Readonly<Record<string, { readonly resources: object }>>> {
    return Object.fromEntries([...this.consumers].map((consumer) => [consumer, { resources: {} }]));
  }

  /** The rest of Placement belongs to the resource tracker; using it here is a mistake. */
  asPlacement(): Placement {
    return this as unknown as Placement;
  }

  #request(what: string): void {
    this.requests.push(what);
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
  }
}
