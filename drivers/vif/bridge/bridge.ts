// VIF type `bridge`: a port that Neutron's linuxbridge agent wires, plugged as Nova and os-vif would.
import type { Host } from '#src/host/host.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { SpawnNic } from '../../virt/driver.ts';
import { checkNames, disableIpv6, portName, removeLinks } from '../common/links.ts';
import { type Ends, endsOf, ensurePair, macOf, nicOf } from '../common/pair.ts';
import { EndRates } from '../common/rates.ts';
import type { BoundVif, KnownVif, VifContext, VifDriver, VifModule } from '../driver.ts';

const UNDO_LIMIT_MS = 30_000;

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
    const ends = namesOf(vif);
    macOf(vif);
    await using revert = new Reverter(log);
    await this.#ensureBridge(ends.bridge, revert, signal);
    const undo = (): Promise<void> => this.unplug(vif, AbortSignal.timeout(UNDO_LIMIT_MS));
    const isNew = await ensurePair(host, vif, ends, { revert, undo, signal });
    await this.#rates.set({ name: ends.tap, isNew }, vif.rates, signal);
    revert.commit();
    return nicOf(vif, ends, guestInterface);
  }

  async unplug(vif: KnownVif, signal: AbortSignal): Promise<void> {
    const { tap } = namesOf(vif);
    await removeLinks(this.#context.host, [tap], signal);
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
    await disableIpv6(host, [bridge]);
    await host.run(['ip', 'link', 'set', 'dev', bridge, 'up'], { signal });
  }
}

function namesOf({ id, networkId, bridge }: KnownVif): Ends & { readonly bridge: string } {
  const names = { bridge: bridge ?? portName('brq', networkId), ...endsOf(id) };
  checkNames(id, Object.values(names));
  return names;
}

/** One that somebody uses meanwhile stays. */
async function removeEmptyBridge(host: Host, bridge: string): Promise<void> {
  const ports = await host.list(`/sys/class/net/${bridge}/brif`);
  if (ports.length === 0) await removeLinks(host, [bridge], AbortSignal.timeout(UNDO_LIMIT_MS));
}

export const bridge: VifModule = {
  name: 'bridge',
  create: (context) => new BridgeVif(context),
};
