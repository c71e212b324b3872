// The resource tracker: claims of builds, the ComputeNode record, the report to Placement (contract sections 4.4 to 4.8).
import { Coalesced } from '#src/lib/coalesced.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { MIGRATION_STATUSES } from '#src/nova/states.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { Placement } from '#src/openstack/types.ts';
import type { HostFacts, VirtDriver } from '#drivers/virt/driver.ts';
import type { ResourcesConfig } from '../config/config.ts';
import { type Asking, findInstance, findService, type Instance } from '../records.ts';
import type { Claim, ResourceTracker } from '../types.ts';
import {
  assignFields,
  type ComputeNode,
  createComputeNode,
  findComputeNode,
  type NodeIdentity,
  nodeFields,
  usageFields,
} from './compute-node.ts';
import { readHostUsages } from './host-usages.ts';
import { wantedInventories } from './inventory.ts';
import { UsageLedger } from './ledger.ts';
import { removeOrphanAllocations } from './orphans.ts';
import type { ProviderAdditions } from './provider-config.ts';
import { ProviderReport } from './provider-report.ts';
import { wantedTraits } from './traits.ts';
import { migrationContext } from './migration-context.ts';
import { flavorUsage, hostUsage, moveKey, usageOf } from './usage.ts';
import { VolumeRoots } from './volume-roots.ts';
import { checkCpuSets, shareOf } from './cpu-sets.ts';
import { pin, unpin, wantsPins } from './pinning.ts';

export interface TrackerOptions {
  readonly config: ResourcesConfig;
  readonly identity: NodeIdentity;
  readonly nodeName: string;
  readonly additions: ProviderAdditions;
  readonly conductor: Conductor;
  readonly placement: Placement;
  readonly virt: VirtDriver;
  readonly log: Log;
}

export class HostResourceTracker implements ResourceTracker {
  readonly nodeName: string;
  readonly computeNodeUuid: string;
  readonly #options: TrackerOptions;
  readonly #ledger = new UsageLedger();
  readonly #roots = new VolumeRoots();
  readonly #report: ProviderReport;
  readonly #save: Coalesced;
  #node: ComputeNode | undefined;
  #facts: HostFacts | undefined;
  /** Chosen for claims that Nova does not know of yet: a reading of its records would lose them. */
  readonly #claiming = new Map<string, readonly number[]>();
  #failedBuilds = 0;
  #isDisabled = false;
  #serviceId: number | undefined;

  constructor(options: TrackerOptions) {
    const { config, identity, nodeName, placement, log } = options;
    this.#options = options;
    this.nodeName = nodeName;
    this.computeNodeUuid = identity.uuid;
    this.#report = new ProviderReport({ placement, log, refreshMs: config.associationRefreshMs });
    this.#save = new Coalesced(() => this.#saveNode());
  }

  get computeNodeId(): number {
    return this.#present().get('id');
  }

  /** The Service record that the ComputeNode belongs to; from then on it is written. */
  useService(serviceId: number): void {
    this.#serviceId = serviceId;
  }

  async instanceClaim(
    context: RequestContext,
    instance: Instance,
    { isOnVolume }: { readonly isOnVolume?: boolean } = {},
  ): Promise<Claim> {
    const { host } = this.#options.identity;
    this.#present();
    await this.#loadTopology(context, instance);
    instance.set('host', host).set('launched_on', host).set('node', this.nodeName);
    instance.set('compute_id', this.computeNodeId);
    const uuid = instance.get('uuid');
    // together: nobody else's claim comes between
    pin(instance, this.#freeCpus(), this.#knownFacts());
    if (isOnVolume !== undefined) this.#roots.learn(uuid, isOnVolume);
    const usage = usageOf(instance, { isOnVolume: this.#roots.isOnVolume(instance) });
    this.#claiming.set(uuid, usage?.pins ?? []);
    this.#ledger.set(uuid, usage);
    try {
      // side by side: neither needs the other, and each is a round trip to the conductor
      await Promise.all([this.#options.conductor.save(context, instance), this.#saveSoon()]);
      this.#ledger.set(uuid, usage);
    } catch (error) {
      this.#ledger.set(uuid, undefined);
      await this.#saveSoon();
      throw error;
    } finally {
      this.#claiming.delete(uuid);
    }
    return { abort: () => this.#abortClaim(context, instance) };
  }

  cpusFor(uuid: string, vcpus: number): readonly number[] | null {
    const pins = this.#ledger.get(uuid)?.pins ?? [];
    return pins.length > 0 ? pins : shareOf(this.#options.config.cpuSets, uuid, vcpus);
  }

  async resizeClaim(
    context: RequestContext,
    instance: Instance,
    { migration, flavor }: Parameters<ResourceTracker['resizeClaim']>[2],
  ): Promise<void> {
    const { conductor, identity } = this.#options;
    this.#present();
    migration.set('dest_compute', identity.host).set('dest_node', this.nodeName).set('dest_host', identity.hostIp);
    migration.set('status', MIGRATION_STATUSES.preMigrating);
    // control planes before 2023.2 do not know the field, and their migrations come without it
    if (migration.has('dest_compute_id')) migration.set('dest_compute_id', this.computeNodeId);
    await conductor.save(context.elevated(), migration);
    instance.set('migration_context', migrationContext(instance, migration));
    this.#ledger.set(moveKey(instance.get('uuid')), flavorUsage(flavor, this.#roots.isOnVolume(instance)));
    try {
      await conductor.save(context, instance);
    } catch (error) {
      this.#ledger.set(moveKey(instance.get('uuid')), undefined);
      throw error;
    }
    await this.#saveSoon();
  }

  async keepRoom(instance: Instance, flavor: NovaObject<'Flavor'> | null): Promise<void> {
    const usage = flavor === null ? undefined : flavorUsage(flavor, this.#roots.isOnVolume(instance));
    this.#ledger.set(moveKey(instance.get('uuid')), usage);
    await this.#saveSoon();
  }

  async updateUsage(_context: RequestContext, instance: Instance): Promise<void> {
    const isOurs = instance.get('host') === this.#options.identity.host && instance.get('node') === this.nodeName;
    const pins = this.#ledger.get(instance.get('uuid'))?.pins;
    const isOnVolume = this.#roots.isOnVolume(instance);
    const usage = isOurs ? usageOf(instance, { isOnVolume, ...(pins && { pins }) }) : undefined;
    this.#ledger.set(instance.get('uuid'), usage);
    if (!usage) this.#ledger.set(moveKey(instance.get('uuid')), undefined);
    if (!usage) this.#roots.forget(instance.get('uuid'));
    await this.#saveSoon();
  }

  async release(instance: Instance): Promise<void> {
    const uuid = instance.get('uuid');
    this.#ledger.set(uuid, undefined);
    this.#ledger.set(moveKey(uuid), undefined);
    this.#roots.forget(uuid);
    await this.#saveSoon();
  }

  buildSucceeded(): void {
    this.#failedBuilds = 0;
  }

  buildFailed(): void {
    this.#failedBuilds += 1;
  }

  async setDisabled(disabled: boolean, signal?: AbortSignal): Promise<void> {
    this.#isDisabled = disabled;
    await this.#reportProvider(signal);
  }

  /** Everything anew from Nova and the engine; the periodic task, and once at start. */
  async update(context: RequestContext, signal: AbortSignal): Promise<void> {
    await (await this.read(context, signal))();
  }

  /** The first part of update(), after which claims can be made; what it resolves with is the other one, for Placement. */
  async read(context: RequestContext, signal: AbortSignal): Promise<() => Promise<void>> {
    const { conductor, identity, virt } = this.#options;
    const asking = { conductor, context };
    this.#facts = await virt.hostFacts(signal);
    this.#checkName(this.#facts);
    checkCpuSets(this.#options.config.cpuSets, this.#facts);
    const begunAt = this.#ledger.beginReading();
    const { usages, migrationUuids } = await readHostUsages(
      asking,
      { host: identity.host, node: this.nodeName },
      { roots: this.#roots, more: this.#options.config.cpuSets.dedicated === null ? [] : ['numa_topology'] },
    );
    this.#ledger.replace(usages, begunAt);
    this.#node ??= await this.#findOrCreate(context);
    this.#isDisabled = (await findService(asking, identity.host))?.get('disabled') ?? false;
    const isKnown = (uuid: string): boolean => this.#ledger.has(uuid) || migrationUuids.has(uuid);
    return async () => this.#reportAll({ asking, isKnown }, signal);
  }

  async #reportAll(
    { asking, isKnown }: { readonly asking: Asking; readonly isKnown: (uuid: string) => boolean },
    signal: AbortSignal,
  ): Promise<void> {
    const { identity, placement, log } = this.#options;
    await this.#reportProvider(signal);
    await this.#save.run();
    await removeOrphanAllocations({ asking, placement, log }, { providerUuid: identity.uuid, isKnown }, signal);
  }

  async #findOrCreate(context: RequestContext): Promise<ComputeNode> {
    const { conductor, identity, log } = this.#options;
    const found = await findComputeNode(conductor, context, identity.uuid);
    if (found) return found;
    const node = await createComputeNode(conductor, context, identity, this.#fields());
    log.info('compute node created', { uuid: identity.uuid, name: this.nodeName });
    return node;
  }

  /** A claim is good without it: the next periodic run writes what this one could not. */
  async #saveSoon(): Promise<void> {
    // recovery runs before the record is read
    if (!this.#node) return;
    await this.#save.run().catch((error: unknown) => {
      this.#options.log.warn('compute node not saved, trying again later', { node: this.nodeName, error });
    });
  }

  /** No call when nothing differs. */
  async #saveNode(): Promise<void> {
    const { conductor } = this.#options;
    const node = this.#present();
    assignFields(node, this.#fields());
    await conductor.save(RequestContext.admin(), node);
  }

  #fields(): ReturnType<typeof nodeFields> {
    const { config, identity, virt } = this.#options;
    const facts = this.#knownFacts();
    const usage = hostUsage(this.#ledger.usages(), config, this.#failedBuilds);
    const hypervisorType = virt.info.hypervisorType;
    return {
      ...nodeFields(
        identity,
        { facts, usage, serviceId: this.#serviceId, hypervisorType, pinnedCpus: this.#pinnedCpus() },
        config,
      ),
      ...usageFields(facts, usage),
    };
  }

  /** Messages of an unshelving have none. */
  async #loadTopology(context: RequestContext, instance: Instance): Promise<void> {
    const flavor = instance.find('flavor');
    if (instance.has('numa_topology') || !flavor || !wantsPins(instance, flavor)) return;
    const asking = { conductor: this.#options.conductor, context: context.elevated() };
    const found = await findInstance(asking, instance.get('uuid'), ['numa_topology']);
    instance.load('numa_topology', found?.find('numa_topology') ?? null);
  }

  #pinnedCpus(): ReadonlySet<number> {
    const counted = this.#ledger.usages().flatMap(({ pins = [] }) => pins);
    return new Set([...counted, ...[...this.#claiming.values()].flat()]);
  }

  #freeCpus(): readonly number[] {
    const pinned = this.#pinnedCpus();
    return (this.#options.config.cpuSets.dedicated ?? []).filter((id) => !pinned.has(id));
  }

  async #reportProvider(signal?: AbortSignal): Promise<void> {
    const { config, additions, virt } = this.#options;
    const facts = this.#knownFacts();
    await this.#report.sync(
      { uuid: this.computeNodeUuid, name: this.nodeName },
      {
        inventories: (present) => ({ ...additions.inventories, ...wantedInventories(facts, config, present) }),
        traits: wantedTraits({
          info: virt.info,
          imageTypeExcludeList: config.imageTypeExcludeList,
          isDisabled: this.#isDisabled,
          additional: additions.traits,
        }),
      },
      signal,
    );
  }

  async #abortClaim(context: RequestContext, instance: Instance): Promise<void> {
    this.#ledger.set(instance.get('uuid'), undefined);
    unpin(instance);
    instance.set('host', null).set('node', null).set('compute_id', null);
    await this.#options.conductor.save(context, instance);
    await this.#saveSoon();
  }

  /** Nova knows the node by its name for ever: instances, allocations and aggregates hang on it. */
  #checkName({ hypervisorHostname }: HostFacts): void {
    if (hypervisorHostname === this.nodeName) return;
    throw new AppError(
      'conflict',
      `the engine calls this node ${hypervisorHostname}, Nova knows it as ${this.nodeName}`,
    );
  }

  #present(): ComputeNode {
    if (this.#node) return this.#node;
    throw new AppError('unavailable', `compute node ${this.nodeName} is not known to Nova yet`);
  }

  #knownFacts(): HostFacts {
    if (this.#facts) return this.#facts;
    throw new AppError('unavailable', `the engine of ${this.nodeName} has not told what it has`);
  }
}
