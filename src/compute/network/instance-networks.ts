// The network of an instance: allocated, moved here, read again, given back (section 8.3).
import type { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { Log } from '#src/lib/log.ts';
import { Turns } from '#src/lib/turns.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { serializeNetworkInfo, type Vif } from '#src/nova/network-model.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import type { Conductor } from '#src/nova/types.ts';
import type { Neutron, NeutronPort } from '#src/openstack/types.ts';
import type { ComputeServices } from '../types.ts';
import { buildVif, readSurroundings, type Surroundings, type VifOptions } from './build-vifs.ts';
import { type ChosenInterface, chooseInterfaces, securityGroupIds } from './choose-networks.ts';
import { serviceCredentials } from './credentials.ts';
import { releasePorts, unbindFromHost } from './deallocate.ts';
import { cachedVifs, reloadCache, saveVifs } from './info-cache.ts';
import { bindPort, createMissingPorts, type MadePort, type PortMaker, registerPort } from './make-ports.ts';
import type { PortRights } from './port-rights.ts';
import type { NetworkWishes } from './request.ts';

type Instance = NovaObject<'Instance'>;

/**
 * Instances whose ports are made and bound at the same time. More would make all wait for the last one: Neutron's writes are
 * slow, and an instance whose ports are bound waits for Neutron's agent while the next ones are made.
 */
const ALLOCATIONS_AT_ONCE = 3;

/** The interfaces that an instance is to have. */
export interface NetworkPlan {
  readonly interfaces: readonly ChosenInterface[];
  /** Ids. */
  readonly groups: readonly string[];
  /** Whether Neutron names ports in DNS. */
  readonly hasDns: boolean;
}

interface Bound {
  readonly made: readonly MadePort[];
  readonly bound: readonly NeutronPort[];
  readonly hasDns: boolean;
}

/** The network of an instance that is being built. */
export interface Allocation {
  /** Enough to plug; without what only the guest's user wants to know. */
  readonly vifs: readonly Vif[];
  /** The whole of it, when it is in Nova's cache: read while Neutron's agent is at work. */
  readonly cached: Promise<readonly Vif[]>;
}

export interface Deallocation {
  /** Ports that are to stay. */
  readonly userPorts?: readonly string[];
  /** Takes interfaces from this host that the cache does not name: a build that was killed may have plugged them. */
  readonly unplug: (vifs: readonly Vif[]) => Promise<void>;
  readonly signal: AbortSignal;
}

const NOTHING: Surroundings = { networks: new Map(), subnets: new Map(), dhcpPorts: [], floatingIps: [] };

export function allocationOf(vifs: readonly Vif[]): Allocation {
  return { vifs, cached: Promise.resolve(vifs) };
}

export class InstanceNetworks {
  readonly #neutron: Neutron;
  readonly #conductor: Conductor;
  readonly #log: Log;
  readonly #locks: KeyedLock;
  readonly #host: string;
  readonly #ovsBridge: string;
  readonly #turns = new Turns(ALLOCATIONS_AT_ONCE);
  readonly #rights: PortRights;

  constructor({ neutron, conductor, log, locks, config }: ComputeServices, rights: PortRights) {
    this.#rights = rights;
    this.#neutron = neutron;
    this.#conductor = conductor;
    this.#log = log;
    this.#locks = locks;
    this.#host = config.host;
    this.#ovsBridge = config.neutron.ovsBridge;
  }

  /** What allocate() needs to know of Neutron; changes nothing, so it may be asked for early. */
  async plan(
    context: RequestContext,
    instance: Instance,
    { networks, securityGroups }: { readonly networks: NetworkWishes; readonly securityGroups: readonly string[] },
    signal: AbortSignal,
  ): Promise<NetworkPlan> {
    const asking = { neutron: this.#neutron, context, instance, signal };
    const [interfaces, groups, extensions] = await Promise.all([
      chooseInterfaces(asking, networks),
      securityGroupIds(asking, securityGroups),
      this.#neutron.extensions(serviceCredentials(context), signal),
    ]);
    return { interfaces, groups, hasDns: extensions.has('dns-integration') };
  }

  /**
   * Ports as planned, bound to this host; those that exist already once `bindAfter` is settled. After a failure, which that of `bindAfter` is as well, no
   * port is left of those made here.
   */
  async allocate(
    context: RequestContext,
    instance: Instance,
    { plan, bindAfter }: { readonly plan: NetworkPlan; readonly bindAfter: Promise<void> },
    signal: AbortSignal,
  ): Promise<Allocation> {
    if (plan.interfaces.length === 0) {
      await bindAfter;
      return allocationOf([]);
    }
    const maker: PortMaker = {
      neutron: this.#neutron,
      conductor: this.#conductor,
      log: this.#log,
      host: this.#host,
      rights: this.#rights,
      context,
      instance,
      signal,
    };
    const { made, bound } = await this.#turns.run(() => this.#makeAndBind(maker, plan, bindAfter));
    const { hasDns } = plan;
    const vifs = bound.map((port) => buildVif(port, knownOf(made), this.#vifOptions(made)));
    return { vifs, cached: this.#cacheAllocated(maker, { made, bound, hasDns }) };
  }

  async #makeAndBind(
    maker: PortMaker,
    { interfaces, groups, hasDns }: NetworkPlan,
    bindAfter: Promise<void>,
  ): Promise<Bound> {
    maker.signal.throwIfAborted();
    const made = await createMissingPorts(maker, interfaces, { securityGroups: groups, hasDns });
    try {
      await bindAfter;
      return { made, bound: await settled(made.map((port) => bindPort(maker, port, hasDns))), hasDns };
    } catch (error) {
      await this.#undo(maker, made);
      throw error;
    }
  }

  /** What Neutron adds to a port after the binding comes with the network-changed that it sends of it. */
  async #cacheAllocated(maker: PortMaker, { made, bound, hasDns }: Bound): Promise<readonly Vif[]> {
    const { context, instance, signal } = maker;
    const options = this.#vifOptions(made);
    const [around] = await Promise.all([
      // a port that was made a moment ago has no floating IP
      readSurroundings(this.#neutron, context, { ports: bound, floating: [...options.preserved] }, signal),
      settled(made.map((port) => registerPort(maker, port, hasDns))),
    ]);
    return await this.#locks.run(cacheLock(instance), async () => {
      const vifs = bound.map((port) => buildVif(port, around, options));
      await saveVifs(this.#conductor, context, instance, vifs);
      return vifs;
    });
  }

  #vifOptions(made: readonly MadePort[]): VifOptions {
    const preserved = new Set(made.flatMap(({ chosen, port }) => (chosen.port === null ? [] : [port.id])));
    return { ovsBridge: this.#ovsBridge, preserved };
  }

  async #undo(maker: PortMaker, made: readonly MadePort[]): Promise<void> {
    const keep = made.flatMap(({ chosen, port }) => (chosen.port === null ? [] : [port.id]));
    const remove = made.flatMap(({ chosen, port }) => (chosen.port === null ? [port.id] : []));
    await releasePorts(maker, { keep, remove }).catch((error: unknown) => {
      this.#log.warn('cannot give back the ports of a failed allocation', { instance: maker.instance, error });
    });
    await this.#forgetInterfaces(maker.context, maker.instance).catch((error: unknown) => {
      this.#log.warn('cannot delete virtual interfaces', { instance: maker.instance, error });
    });
  }

  /** Makes this host the one of all ports of the instance (an earlier attempt on another host made them). */
  async bindHere(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const ports = await this.#portsOf(context, instance, signal);
    const failed: ReadonlySet<unknown> = new Set(['unbound', 'binding_failed']);
    const elsewhere = ports.filter(
      (port) => port['binding:host_id'] !== this.#host || failed.has(port['binding:vif_type']),
    );
    const changes = {
      'binding:host_id': this.#host,
      device_owner: `compute:${instance.find('availability_zone') ?? 'None'}`,
    };
    await settled(
      elsewhere.map((port) => {
        const { migrating_to: target, ...profile } = (port['binding:profile'] ?? {}) as Record<string, unknown>;
        const update = { ...changes, ...(target !== undefined && { 'binding:profile': profile }) };
        return this.#neutron.updatePort(serviceCredentials(context), port.id, update, signal);
      }),
    );
  }

  /** All ports stay the instance's, and are bound to no host. */
  async unbind(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<void> {
    const ports = await this.#portsOf(context, instance, signal);
    const asking = { neutron: this.#neutron, context, signal };
    await settled(ports.map((port) => unbindFromHost(asking, port)));
  }

  /**
   * Builds the cache anew from Neutron and saves it. `portId`: only that port. Ports that Neutron has no more are dropped;
   * when Neutron cannot be asked the cache stays as it is, and the call rejects.
   */
  async refresh(
    context: RequestContext,
    instance: Instance,
    { portId, signal }: { readonly portId?: string | null; readonly signal: AbortSignal },
  ): Promise<readonly Vif[]> {
    return await this.#locks.run(
      cacheLock(instance),
      async () => {
        const [ports] = await Promise.all([
          this.#portsOf(context, instance, signal),
          reloadCache(this.#conductor, context, instance),
        ]);
        const cached = cachedVifs(instance);
        const isPartial = portId !== undefined && portId !== null && cached.length > 0;
        const wanted = isPartial
          ? ports.filter(({ id }) => id === portId)
          : await this.#ordered(context, instance, ports, cached);
        const fresh = await this.#build(context, wanted, cached, signal);
        const vifs = isPartial ? merged(cached, portId, fresh) : fresh;
        if (!isCached(vifs, cached)) await saveVifs(this.#conductor, context, instance, vifs);
        return vifs;
      },
      signal,
    );
  }

  async #build(
    context: RequestContext,
    ports: readonly NeutronPort[],
    cached: readonly Vif[],
    signal: AbortSignal,
  ): Promise<readonly Vif[]> {
    const around = await readSurroundings(this.#neutron, context, { ports }, signal);
    const preserved = new Set(cached.filter(({ preserveOnDelete }) => preserveOnDelete).map(({ id }) => id));
    return ports.map((port) => buildVif(port, around, { ovsBridge: this.#ovsBridge, preserved }));
  }

  /** As in the cache; ports that the cache has not come behind, in the order in which Nova registered them. */
  async #ordered(
    context: RequestContext,
    instance: Instance,
    ports: readonly NeutronPort[],
    cached: readonly Vif[],
  ): Promise<readonly NeutronPort[]> {
    const order = new Map(cached.map(({ id }, index) => [id, index]));
    if (ports.some(({ id }) => !order.has(id))) {
      const rows = await this.#conductor.classMethod(context, {
        object: 'VirtualInterfaceList',
        method: 'get_by_instance_uuid',
        args: [instance.get('uuid')],
      });
      for (const row of expectList(rows, 'VirtualInterfaceList')) {
        if (!order.has(row.get('uuid'))) order.set(row.get('uuid'), cached.length + row.get('id'));
      }
    }
    const rank = ({ id }: NeutronPort): number => order.get(id) ?? Number.POSITIVE_INFINITY;
    return ports.toSorted((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
  }

  /** Gives the ports back: ours are deleted, the user's are unbound. An instance without ports is fine. */
  async deallocate(
    context: RequestContext,
    instance: Instance,
    { userPorts = [], unplug, signal }: Deallocation,
  ): Promise<void> {
    await this.#locks.run(cacheLock(instance), async () => {
      const cached = cachedVifs(instance);
      const asking = { neutron: this.#neutron, context, instance, signal, log: this.#log };
      const kept = new Set([
        ...userPorts,
        ...cached.filter(({ preserveOnDelete }) => preserveOnDelete).map(({ id }) => id),
      ]);
      const ports = await this.#neutron.listPorts(
        serviceCredentials(context),
        { device_id: instance.get('uuid') },
        signal,
      );
      const remove = ports.map(({ id }) => id).filter((id) => !kept.has(id));
      const uncached = ports.filter(({ id }) => !cached.some((vif) => vif.id === id));
      await unplug(uncached.map((port) => buildVif(port, NOTHING, { ovsBridge: this.#ovsBridge, preserved: kept })));
      await releasePorts(asking, { keep: [...kept], remove });
      await Promise.all([this.#forgetInterfaces(context, instance), saveVifs(this.#conductor, context, instance, [])]);
    });
  }

  /** Drops one VIF of the cache: Neutron deleted its port. Undefined when the cache has it not. */
  async forgetPort(context: RequestContext, instance: Instance, portId: string): Promise<Vif | undefined> {
    return await this.#locks.run(cacheLock(instance), async () => {
      const cached = cachedVifs(instance);
      const gone = cached.find(({ id }) => id === portId);
      if (gone === undefined) return undefined;
      const left = cached.filter((vif) => vif !== gone);
      await saveVifs(this.#conductor, context, instance, left);
      return gone;
    });
  }

  async #forgetInterfaces(context: RequestContext, instance: Instance): Promise<void> {
    await this.#conductor.classMethod(context, {
      object: 'VirtualInterface',
      method: 'delete_by_instance_uuid',
      args: [instance.get('uuid')],
    });
  }

  async #portsOf(context: RequestContext, instance: Instance, signal: AbortSignal): Promise<readonly NeutronPort[]> {
    const query = { tenant_id: instance.get('project_id') ?? '', device_id: instance.get('uuid') };
    return await this.#neutron.listPorts(serviceCredentials(context), query, signal);
  }
}

/** What is known of the networks without asking again. */
function knownOf(made: readonly MadePort[]): Surroundings {
  const networks = new Map(made.map(({ chosen: { network } }) => [network.id, network]));
  return { ...NOTHING, networks };
}

function merged(cached: readonly Vif[], portId: string, fresh: readonly Vif[]): readonly Vif[] {
  const [vif] = fresh;
  if (vif === undefined) return cached.filter(({ id }) => id !== portId);
  return cached.some(({ id }) => id === portId)
    ? cached.map((old) => (old.id === portId ? vif : old))
    : [...cached, vif];
}

function isCached(vifs: readonly Vif[], cached: readonly Vif[]): boolean {
  return serializeNetworkInfo(vifs) === serializeNetworkInfo(cached);
}

/** Waits for all, so that nothing runs on when the first one fails. */
async function settled<T>(work: readonly Promise<T>[]): Promise<readonly T[]> {
  const results = await Promise.allSettled(work);
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

/** The cache is written as a whole, so its writers take turns; not the instance's own lock, which a build holds for long. */
export function cacheLock(instance: Instance): string {
  return `network-cache:${instance.get('uuid')}`;
}
