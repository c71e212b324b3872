// nictype=p2p: a veth pair whose host end belongs to nothing; the operator routes to it.
import type { RuntimeNic } from '../../runtime/driver.ts';
import type { NicContext, NicDevice, NicDriver, NicInfo, NicModule, NicVolatile } from '../driver.ts';
import type { FirewallChain } from '../common/firewall.ts';
import { changeHostEnd, guardHostEnd, hostEndChains, removeHostEnd } from '../common/host-end.ts';
import { numberOption, validateNic } from '../common/nic-options.ts';
import { RATE_OPTIONS } from '../common/rates.ts';
import { NicRoutes, ROUTE_OPTIONS, routesOf } from '../common/routes.ts';
import { hostEnd, makePair, planPair } from '../common/veth.ts';

const LIVE = [...RATE_OPTIONS, ...ROUTE_OPTIONS];
const INFO: NicInfo = {
  nictype: 'p2p',
  options: ['name', 'hwaddr', 'host_name', 'mtu', 'queue.tx.length', 'boot.priority', ...LIVE],
  required: [],
  liveOptions: LIVE,
};

class P2pNic implements NicDriver {
  readonly info = INFO;
  readonly #context: NicContext;
  readonly #routes: NicRoutes;

  constructor(context: NicContext) {
    this.#context = context;
    this.#routes = new NicRoutes(context.host);
  }

  validate(config: Readonly<Record<string, string>>): void {
    validateNic(INFO, config);
  }

  plan(nic: NicDevice): Promise<NicVolatile> {
    return planPair(this.#context.host, nic);
  }

  firewall(nic: NicDevice): readonly FirewallChain[] {
    return hostEndChains(nic);
  }

  async start(nic: NicDevice, signal: AbortSignal): Promise<RuntimeNic> {
    const { host } = this.#context;
    const made = await makePair(host, nic, { mtu: numberOption(nic.config, 'mtu') });
    await guardHostEnd(host, nic, { chains: this.firewall(nic), signal });
    await host.links.change(hostEnd(nic), { up: true });
    await this.#routes.add(nic, hostEnd(nic), routesOf(nic));
    return made;
  }

  async update(before: NicDevice, after: NicDevice, signal: AbortSignal): Promise<void> {
    await changeHostEnd(this.#context.host, before, after, signal);
    await this.#routes.change(before, after, hostEnd(after));
  }

  /** Routes go with the interface. */
  async stop(nic: NicDevice, signal: AbortSignal): Promise<void> {
    await removeHostEnd(this.#context.host, nic, { chains: this.firewall(nic), signal });
  }
}

export const p2p: NicModule = { nictype: 'p2p', create: (context) => new P2pNic(context) };
