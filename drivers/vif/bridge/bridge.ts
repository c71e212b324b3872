// VIF type `bridge`: a port that Neutron's linuxbridge agent wires, plugged as Nova and os-vif would.
import { CommandError } from '#src/host/command-error.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { SpawnNic } from '../../virt/driver.ts';
import { EndRates } from '../common/rates.ts';
import type { BoundVif, VifContext, VifDriver, VifModule } from '../driver.ts';

/** Nova and the agent both cut at eleven characters of the id, so that names fit into IFNAMSIZ. */
const ID_CHARACTERS = 11;
const UNDO_LIMIT_MS = 30_000;

interface Ends {
  readonly bridge: string;
  /** The end in the bridge; the agent looks for this name. */
  readonly tap: string;
  /** The end that moves into the container. */
  readonly peer: string;
}

class BridgeVif implements VifDriver {
  readonly types = ['bridge'];
  readonly #context: VifContext;
  readonly #rates: EndRates;

  constructor(context: VifContext) {
    this.#context = context;
    this.#rates = new EndRates(context.host);
  }

  async plug(vif: BoundVif, guestInterface: string, signal: AbortSignal): Promise<SpawnNic> {
    const { host, log } = this.#context;
    const ends = endsOf(vif);
    await using revert = new Reverter(log);
    await this.#ensureBridge(ends.bridge, revert, signal);
    const isNew = await this.#ensurePair(vif, ends, revert, signal);
    await this.#rates.set({ name: ends.tap, isNew }, vif.rates, signal);
    await disableIpv6(host, ends.tap);
    revert.commit();
    return {
      vifId: vif.id,
      macAddress: vif.macAddress,
      ...(vif.mtu === null ? {} : { mtu: vif.mtu }),
      hostInterface: ends.peer,
      guestInterface,
    };
  }

  async unplug(vif: BoundVif, signal: AbortSignal): Promise<void> {
    const { tap } = endsOf(vif);
    await removeLink(this.#context.host, tap, signal);
    await this.#rates.remove(tap, signal);
  }

  /** The agent normally made it, or will adopt this one. */
  async #ensureBridge(bridge: string, revert: Reverter, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    if (await host.exists(`/sys/class/net/${bridge}/bridge`)) return;
    try {
      const options = ['type', 'bridge', 'stp_state', '0', 'forward_delay', '0'];
      await host.run(['ip', 'link', 'add', 'name', bridge, ...options], { signal });
    } catch (error) {
      // The agent was faster.
      if (await host.exists(`/sys/class/net/${bridge}/bridge`)) return;
      throw error;
    }
    revert.add('bridge', () => removeEmptyBridge(host, bridge));
    await disableIpv6(host, bridge);
    await host.run(['ip', 'link', 'set', 'dev', bridge, 'up'], { signal });
  }

  /** True when it was not there. */
  async #ensurePair(vif: BoundVif, ends: Ends, revert: Reverter, signal: AbortSignal): Promise<boolean> {
    const { host } = this.#context;
    const { tap, peer } = ends;
    const [hasTap, hasPeer] = await Promise.all([hasLink(host, tap), hasLink(host, peer)]);
    if (hasTap && (await host.exists(`/sys/class/net/${tap}/tun_flags`))) {
      throw new AppError(
        'conflict',
        `${tap} exists and is a tap of another program, not the end of a container's pair`,
      );
    }
    // A peer without its tap is not ours to use; a tap without its peer has it in a container.
    const lines = [
      ...(hasTap ? [] : [addPair(vif, ends)]),
      ...(hasTap && hasPeer ? [`link set dev ${peer} address ${macOf(vif)}${mtuOf(vif)}`] : []),
      ...((await hasIpv6(host)) ? [`link set dev ${tap} addrgenmode none`] : []),
      `link set dev ${tap} master ${ends.bridge}${mtuOf(vif)} up`,
    ];
    if (!hasTap) revert.add('pair', () => this.unplug(vif, AbortSignal.timeout(UNDO_LIMIT_MS)));
    await host.run(['ip', '-batch', '-'], { input: `${lines.join('\n')}\n`, signal });
    return !hasTap;
  }
}

function addPair(vif: BoundVif, { tap, peer }: Ends): string {
  // A bridge takes the lowest address of its ports: an end that begins with fe never becomes it, so it does not change.
  const own = macOf(vif).replace(/^../, 'fe');
  return `link add name ${tap} address ${own}${mtuOf(vif)} type veth peer name ${peer} address ${macOf(vif)}${mtuOf(vif)}`;
}

function mtuOf({ mtu }: BoundVif): string {
  return mtu === null ? '' : ` mtu ${Math.trunc(mtu)}`;
}

/** Checked because it goes into a line of a batch. */
function macOf({ id, macAddress }: BoundVif): string {
  if (/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(macAddress)) return macAddress;
  throw new AppError('invalid', `port ${id} has no usable MAC address: ${JSON.stringify(macAddress)}`);
}

function endsOf({ id, networkId, bridge }: BoundVif): Ends {
  const short = id.slice(0, ID_CHARACTERS);
  const names = {
    bridge: bridge ?? `brq${networkId.slice(0, ID_CHARACTERS)}`,
    tap: `tap${short}`,
    peer: `tin${short}`,
  };
  for (const name of Object.values(names)) {
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name)) {
      throw new AppError('invalid', `port ${id}: ${JSON.stringify(name)} cannot be the name of an interface`);
    }
  }
  return names;
}

async function hasLink(host: Host, name: string): Promise<boolean> {
  return host.exists(`/sys/class/net/${name}`);
}

async function hasIpv6(host: Host): Promise<boolean> {
  return host.exists('/proc/sys/net/ipv6/conf/all');
}

/** The host must not answer on a tenant's network. */
async function disableIpv6(host: Host, name: string): Promise<void> {
  if (await hasIpv6(host)) await host.writeFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
}

/** Absent is success. */
async function removeLink(host: Host, name: string, signal: AbortSignal): Promise<void> {
  if (!(await hasLink(host, name))) return;
  try {
    await host.run(['ip', 'link', 'delete', 'dev', name], { signal });
  } catch (error) {
    if (!(error instanceof CommandError) || (await hasLink(host, name))) throw error;
  }
}

/** One that somebody uses meanwhile stays. */
async function removeEmptyBridge(host: Host, bridge: string): Promise<void> {
  const ports = await host.list(`/sys/class/net/${bridge}/brif`);
  if (ports.length === 0) await removeLink(host, bridge, AbortSignal.timeout(UNDO_LIMIT_MS));
}

export const bridge: VifModule = {
  name: 'bridge',
  create: (context) => new BridgeVif(context),
};
