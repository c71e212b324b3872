// VIF type `tap`: an interface of the host's own, which somebody routes to (Calico and the like). It is in no bridge.
import { limited } from '#src/lib/wait.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { SpawnNic } from '../../virt/driver.ts';
import { checkNames, removeLinks } from '../common/links.ts';
import { checkedMac, type Ends, endsOf, ensurePair, macOf, nicOf } from '../common/pair.ts';
import { EndRates } from '../common/rates.ts';
import type { BoundVif, KnownVif, VifContext, VifDriver, VifModule } from '../driver.ts';

const UNDO_LIMIT_MS = 30_000;

class TapVif implements VifDriver {
  readonly types = ['tap'];
  readonly #context: VifContext;
  readonly #rates: EndRates;

  constructor(context: VifContext) {
    this.#context = context;
    this.#rates = new EndRates(context.host);
  }

  async plug(vif: BoundVif, guestInterface: string, signal: AbortSignal): Promise<SpawnNic> {
    const { host, log } = this.#context;
    const ends = namesOf(vif);
    const { mac_address: hostMac } = vif.details;
    macOf(vif);
    await using revert = new Reverter(log);
    const undo = (): Promise<void> => this.unplug(vif, limited(UNDO_LIMIT_MS));
    // the host is the guest's router here, by IPv6 as well
    const plan = {
      ...ends,
      keepsIpv6: true,
      ...(typeof hostMac === 'string' && hostMac !== '' && { hostMac: checkedMac(vif.id, hostMac) }),
    };
    const isNew = await ensurePair(host, vif, plan, { revert, undo, signal });
    await this.#rates.set({ name: ends.tap, isNew }, vif.rates, signal);
    revert.commit();
    return nicOf(vif, ends, guestInterface);
  }

  async unplug(vif: KnownVif, signal: AbortSignal): Promise<void> {
    const { tap } = namesOf(vif);
    await removeLinks(this.#context.host, [tap], signal);
    await this.#rates.remove(tap, signal);
  }
}

function namesOf({ id }: KnownVif): Ends {
  const ends = endsOf(id);
  checkNames(id, Object.values(ends));
  return ends;
}

export const tap: VifModule = {
  name: 'tap',
  create: (context) => new TapVif(context),
};
