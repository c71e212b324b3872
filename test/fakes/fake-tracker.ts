// A resource tracker without a host: claims set what a claim must set, and are counted.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { Conductor } from '#src/nova/types.ts';
import { migrationContext } from '#src/compute/resources/migration-context.ts';
import type { Claim, ResourceTracker } from '#src/compute/types.ts';

export class FakeTracker implements ResourceTracker {
  readonly nodeName: string;
  readonly computeNodeId = 7;
  readonly computeNodeUuid = '11111111-1111-4111-8111-111111111111';
  readonly claims = new Set<string>();
  readonly calls: string[] = [];
  readonly #host: string;
  readonly #conductor: Conductor;
  #failure: Error | undefined;

  constructor(host: string, conductor: Conductor) {
    this.nodeName = host;
    this.#host = host;
    this.#conductor = conductor;
  }

  failNext(error: Error): void {
    this.#failure = error;
  }

  async instanceClaim(context: RequestContext, instance: NovaObject<'Instance'>): Promise<Claim> {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
    const uuid = instance.get('uuid');
    instance
      .set('host', this.#host)
      .set('launched_on', this.#host)
      .set('node', this.nodeName)
      .set('compute_id', this.computeNodeId);
    await this.#conductor.save(context, instance);
    this.claims.add(uuid);
    return {
      abort: async () => {
        this.calls.push('abort');
        this.claims.delete(uuid);
        instance.set('host', null).set('node', null).set('compute_id', null);
        await this.#conductor.save(context, instance);
      },
    };
  }

  cpusFor(): null {
    return null;
  }

  async resizeClaim(
    context: RequestContext,
    instance: NovaObject<'Instance'>,
    { migration }: Parameters<ResourceTracker['resizeClaim']>[2],
  ): Promise<void> {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure) throw failure;
    this.calls.push('resizeClaim');
    migration.set('dest_compute', this.#host).set('dest_node', this.nodeName).set('dest_host', '10.0.0.1');
    await this.#conductor.save(context, migration);
    instance.set('migration_context', migrationContext(instance, migration));
    await this.#conductor.save(context, instance);
  }

  async keepRoom(_instance: NovaObject<'Instance'>, flavor: NovaObject<'Flavor'> | null): Promise<void> {
    this.calls.push(`keepRoom ${flavor?.get('name') ?? 'none'}`);
  }

  async updateUsage(_context: RequestContext, instance: NovaObject<'Instance'>): Promise<void> {
    this.calls.push('updateUsage');
    if (instance.find('vm_state') === 'deleted') this.claims.delete(instance.get('uuid'));
  }

  async release(instance: NovaObject<'Instance'>): Promise<void> {
    this.calls.push('release');
    this.claims.delete(instance.get('uuid'));
  }

  buildSucceeded(): void {
    this.calls.push('buildSucceeded');
  }

  buildFailed(): void {
    this.calls.push('buildFailed');
  }

  async setDisabled(disabled: boolean): Promise<void> {
    this.calls.push(`setDisabled ${disabled}`);
  }
}
