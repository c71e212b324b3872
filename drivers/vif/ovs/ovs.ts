// VIF type `ovs`: a port of Open vSwitch's integration bridge, which Neutron's agent or OVN wires, plugged as Nova and os-vif would.
// With a firewall of iptables there is a Linux bridge between the two, since what Open vSwitch forwards passes no such rules (hybrid plug).
import { AppError } from '#src/lib/errors.ts';
import { limited } from '#src/lib/wait.ts';
import { Reverter } from '#src/lib/reverter.ts';
import { Ovs, type OvsQueues } from '#src/host/ovs.ts';
import type { SpawnNic } from '../../virt/driver.ts';
import { checkNames, disableIpv6, hasIpv6, hasLink, portName, removeLinks, runIp } from '../common/links.ts';
import { type Ends, endsOf, ensurePair, macOf, mtuOf, nicOf } from '../common/pair.ts';
import { EndRates } from '../common/rates.ts';
import type { BoundVif, KnownVif, OvsVifOptions, VifContext, VifDriver, VifModule } from '../driver.ts';

const UNDO_LIMIT_MS = 30_000;
const DEFAULT_BRIDGE = 'br-int';
/** Neutron's dead VLAN: the agent takes the port out of it when its rules are in place. */
const DEAD_VLAN = 4095;
const DATAPATH_TYPES: ReadonlySet<string> = new Set(['system', 'netdev']);

/** The Linux bridge of a port, and the pair that joins it to the integration bridge. */
interface Hybrid {
  readonly bridge: string;
  readonly inside: string;
  readonly outside: string;
}

interface Names {
  readonly ends: Ends;
  readonly hybrid: Hybrid | null;
  /** Of Open vSwitch. */
  readonly bridge: string;
  /** The device that is the port of it. */
  readonly port: string;
}

/** A plug under way. */
interface Plug {
  readonly vif: BoundVif;
  readonly names: Names;
  /** Undefined: the bridge is not there, and nobody says what it is to be. */
  readonly datapath: string | undefined;
  readonly revert: Reverter;
  readonly signal: AbortSignal;
}

class OvsVif implements VifDriver {
  readonly types = ['ovs'];
  readonly #context: VifContext;
  readonly #options: OvsVifOptions;
  readonly #rates: EndRates;
  readonly #switch: Ovs;
  #owners: Promise<Set<string>> | undefined;
  /** Of bridges, as far as Open vSwitch was asked: OVN's bindings do not say. */
  readonly #datapaths = new Map<string, string>();

  constructor(context: VifContext) {
    this.#context = context;
    this.#options = context.ovs;
    this.#rates = new EndRates(context.host);
    this.#switch = new Ovs(context.host, context.ovs.connection);
  }

  async plug(given: BoundVif, guestInterface: string, signal: AbortSignal): Promise<SpawnNic> {
    const vif = { ...given, mtu: given.mtu ?? this.#options.defaultMtu };
    const names = namesOf(vif);
    const { ends, hybrid } = names;
    checkIds(vif);
    macOf(vif);
    const datapath = await this.#datapathOf(vif, names.bridge, signal);
    checkRates(vif, names, datapath);
    await using revert = new Reverter(this.#context.log);
    const plug = { vif, names, datapath, revert, signal };
    const isJoined = hybrid !== null && (await this.#ensureHybrid(plug, hybrid));
    const isNew = await this.#ensurePair(plug);
    await this.#sumPackets(plug, { isNew, isJoined });
    await this.#attach(plug, hybrid === null ? isNew : isJoined);
    await this.#rates.set({ name: ends.tap, isNew }, vif.rates, signal);
    revert.commit();
    return nicOf(vif, ends, guestInterface);
  }

  /** All is tried; the port first, so that Open vSwitch does not look for a device that is gone. */
  async unplug(vif: KnownVif, signal: AbortSignal): Promise<void> {
    const names = namesOf(vif);
    const { ends, hybrid } = names;
    const detached = await Promise.allSettled([this.#detach(vif, names, signal)]);
    const links = [ends.tap, ...(hybrid === null ? [] : [hybrid.inside, hybrid.bridge])];
    await removeLinks(this.#context.host, links, signal);
    await this.#rates.remove(ends.tap, signal);
    for (const result of detached) if (result.status === 'rejected') throw result.reason;
  }

  async #detach({ id }: KnownVif, { port }: Names, signal: AbortSignal): Promise<void> {
    const owners = await this.#queueOwners(signal);
    const records = owners.has(id) ? await this.#switch.queuesOf(id, signal) : [];
    // a trunk's bridge stays: the agent needs it to find what it has joined to it elsewhere, and removes it afterwards
    await this.#switch.detach({ port, records }, signal);
    owners.delete(id);
  }

  /** Ports that have records of queues: what an earlier process left, read once, since only this one changes it. */
  async #queueOwners(signal: AbortSignal): Promise<Set<string>> {
    this.#owners ??= this.#switch.queueOwners(signal).then((ids) => new Set(ids));
    try {
      return await this.#owners;
    } catch (error) {
      this.#owners = undefined;
      throw error;
    }
  }

  /** True when the pair to the integration bridge was not there. */
  async #ensureHybrid({ vif, revert, signal }: Plug, hybrid: Hybrid): Promise<boolean> {
    const { host } = this.#context;
    const { bridge, inside, outside } = hybrid;
    const [hasBridge, hasPair] = await Promise.all([hasLink(host, bridge), hasLink(host, outside)]);
    const made = [...(hasPair ? [] : [inside]), ...(hasBridge ? [] : [bridge])];
    if (made.length > 0) revert.add('bridge', () => removeLinks(host, made, limited(UNDO_LIMIT_MS)));
    const names = [bridge, inside, outside];
    const settings = 'type bridge stp_state 0 forward_delay 0 mcast_snooping 0';
    await runIp(
      host,
      [
        ...(hasBridge ? [] : [`link add name ${bridge}${mtuOf(vif)} ${settings}`]),
        ...(hasPair ? [] : [`link add name ${inside}${mtuOf(vif)} type veth peer name ${outside}${mtuOf(vif)}`]),
        ...((await hasIpv6(host)) ? names.map((name) => `link set dev ${name} addrgenmode none`) : []),
        `link set dev ${bridge} up`,
        `link set dev ${inside} master ${bridge}${mtuOf(vif)} promisc on up`,
        `link set dev ${outside}${mtuOf(vif)} promisc on up`,
      ],
      signal,
    );
    await disableIpv6(host, names);
    return !hasPair;
  }

  async #ensurePair({ vif, names, revert, signal }: Plug): Promise<boolean> {
    const { host } = this.#context;
    const { ends, hybrid } = names;
    const undo = async (): Promise<void> => {
      await removeLinks(host, [ends.tap], limited(UNDO_LIMIT_MS));
      await this.#rates.remove(ends.tap, limited(UNDO_LIMIT_MS));
    };
    const plan = { ...ends, ...(hybrid !== null && { bridge: hybrid.bridge }) };
    return await ensurePair(host, vif, plan, { revert, undo, signal });
  }

  async #datapathOf({ details }: BoundVif, bridge: string, signal: AbortSignal): Promise<string | undefined> {
    const { datapath_type: told } = details;
    if (typeof told === 'string' && told !== '') return told;
    const known = this.#datapaths.get(bridge);
    if (known !== undefined) return known;
    const asked = await this.#switch.datapathOf(bridge, signal);
    if (asked !== undefined) this.#datapaths.set(bridge, asked);
    return asked;
  }

  /** A daemon that forwards the packets itself does not add the checksums that a pair leaves to who gets its packets. */
  async #sumPackets(
    { names, datapath }: Plug,
    { isNew, isJoined }: { readonly isNew: boolean; readonly isJoined: boolean },
  ): Promise<void> {
    const { ports } = this.#context.host;
    const { ends, hybrid } = names;
    if (datapath !== 'netdev') return;
    if (hybrid === null && isNew) await ports.leaveChecksums(ends.peer, false);
    if (hybrid !== null && isJoined) await ports.leaveChecksums(hybrid.inside, false);
  }

  /** `isNew`: its device was not there, so that what Open vSwitch knows of that name is of another one. */
  async #attach(plug: Plug, isNew: boolean): Promise<void> {
    const { vif, names, datapath, revert, signal } = plug;
    const { bridge, port } = names;
    const queues = await this.#queues(plug);
    if (isNew) revert.add('port', () => this.#detach(vif, names, limited(UNDO_LIMIT_MS)));
    await this.#switch.attach(
      {
        bridge,
        port,
        isNew,
        externalIds: {
          'iface-id': vif.interfaceId,
          'iface-status': 'active',
          'attached-mac': vif.macAddress,
          'vm-uuid': vif.instanceUuid,
        },
        ...(datapath !== undefined && DATAPATH_TYPES.has(datapath) && { datapathType: datapath }),
        ...(vif.mtu !== null && { mtu: Math.trunc(vif.mtu) }),
        ...(this.#options.isolates && { firstTag: DEAD_VLAN }),
        ...(queues && { queues }),
      },
      signal,
    );
  }

  /** In a Linux bridge the end is none of Open vSwitch's business. */
  async #queues({ vif, names, signal }: Plug): Promise<OvsQueues | undefined> {
    if (names.hybrid !== null) return undefined;
    const owners = await this.#queueOwners(signal);
    const isLimited = vif.rates.inbound !== null;
    if (!isLimited && !owners.has(vif.id)) return undefined;
    owners.add(vif.id);
    return {
      action: isLimited ? 'leave' : 'take',
      owner: vif.id,
      records: await this.#switch.queuesOf(vif.id, signal),
    };
  }
}

function namesOf({ id, details, bridge: cached }: KnownVif): Names {
  const ends = endsOf(id);
  const named = typeof details['bridge_name'] === 'string' ? details['bridge_name'] : cached;
  const bridge = named === null || named === '' ? DEFAULT_BRIDGE : named;
  const hybrid =
    details['ovs_hybrid_plug'] === true
      ? { bridge: portName('qbr', id), inside: portName('qvb', id), outside: portName('qvo', id) }
      : null;
  checkNames(id, [bridge, ...Object.values(ends), ...Object.values(hybrid ?? {})]);
  return { ends, hybrid, bridge, port: hybrid?.outside ?? ends.tap };
}

/** They go into commands of ovs-vsctl, which has a syntax of its own for values. */
function checkIds({ id, interfaceId, instanceUuid }: BoundVif): void {
  for (const text of [id, interfaceId, instanceUuid]) {
    if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$/.test(text)) continue;
    throw new AppError('invalid', `port ${id}: ${JSON.stringify(text)} cannot be an id of a port of Open vSwitch`);
  }
}

/** A daemon that forwards by itself takes packets from an end before the host's filters see them: nothing would hold a guest to it. */
function checkRates({ id, rates }: BoundVif, { hybrid }: Names, datapath: string | undefined): void {
  if (datapath !== 'netdev' || hybrid !== null || rates.outbound === null) return;
  throw new AppError(
    'unsupported',
    `port ${id}: what the guest sends cannot be limited on a bridge with the datapath netdev (quota:vif_outbound_average)`,
  );
}

export const ovs: VifModule = {
  name: 'ovs',
  create: (context) => new OvsVif(context),
};
