// nictype=bridged: a veth pair whose host end joins a bridge that is there already.
import type { RuntimeNic } from '../../runtime/driver.ts';
import type { Link } from '#src/host/links.ts';
import { Ovs } from '#src/host/ovs.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NicContext, NicDevice, NicDriver, NicInfo, NicModule, NicVolatile } from '../driver.ts';
import { checkAddresses, FILTER_OPTIONS } from '../common/filters.ts';
import type { FirewallChain } from '../common/firewall.ts';
import { changeHostEnd, guardHostEnd, hostEndChains, removeHostEnd } from '../common/host-end.ts';
import { isOn, numberOption, validateNic } from '../common/nic-options.ts';
import { RATE_OPTIONS } from '../common/rates.ts';
import { EXTERNAL_ROUTE_OPTIONS, NicRoutes, ROUTE_OPTIONS, routesOf } from '../common/routes.ts';
import { hostEnd, makePair, planPair, withoutIpv6 } from '../common/veth.ts';
import { ovsVlans, requireOvsOptions } from './ovs-ports.ts';
import { checkVlans, joinVlans, requireVlans, VLAN_CHECKS, VLAN_OPTIONS } from './vlans.ts';

const ISOLATION = 'security.port_isolation';
const PAIR = ['parent', 'name', 'hwaddr', 'host_name', 'mtu', 'queue.tx.length', 'boot.priority'];
const LIVE = [
  ...RATE_OPTIONS,
  ...ROUTE_OPTIONS,
  ...EXTERNAL_ROUTE_OPTIONS,
  'ipv4.address',
  'ipv6.address',
  ...FILTER_OPTIONS,
  ISOLATION,
];
const INFO: NicInfo = {
  nictype: 'bridged',
  options: [...PAIR, ...LIVE, ...VLAN_OPTIONS],
  required: ['parent'],
  liveOptions: LIVE,
};

class BridgedNic implements NicDriver {
  readonly info = INFO;
  readonly #context: NicContext;
  readonly #routes: NicRoutes;
  readonly #ovs: Ovs;

  constructor(context: NicContext) {
    this.#context = context;
    this.#routes = new NicRoutes(context.host);
    this.#ovs = new Ovs(context.host);
  }

  validate(config: Readonly<Record<string, string>>): void {
    validateNic(INFO, config, VLAN_CHECKS);
    checkAddresses(config);
    checkVlans(config);
  }

  async plan(nic: NicDevice): Promise<NicVolatile> {
    const { host } = this.#context;
    const bridge = await this.#bridge(nic);
    if (isNative(bridge)) await requireVlans(host, nic, bridge.name);
    else requireOvsOptions(nic);
    return planPair(host, nic);
  }

  firewall(nic: NicDevice): readonly FirewallChain[] {
    return hostEndChains(nic);
  }

  async #bridge({ config }: NicDevice): Promise<Link> {
    const parent = config['parent'] ?? '';
    const link = await this.#context.host.links.find(parent);
    if (!link) throw new AppError('not_found', `Parent device "${parent}" doesn't exist`);
    if (isNative(link) || (await this.#ovs.hasBridge(parent))) return link;
    throw new AppError('invalid', `Parent device "${parent}" is not a bridge`);
  }

  async start(nic: NicDevice, signal: AbortSignal): Promise<RuntimeNic> {
    const { host } = this.#context;
    const bridge = await this.#bridge(nic);
    const mtu = numberOption(nic.config, 'mtu') ?? bridge.mtu;
    const made = await makePair(host, nic, { mtu, ...(isNative(bridge) && { master: bridge.name }) });
    await withoutIpv6(host, hostEnd(nic));
    if (isNative(bridge)) {
      if (isOn(nic.config[ISOLATION])) await host.ports.setIsolated(hostEnd(nic), true);
      await joinVlans(host, nic, bridge.name);
    } else await this.#ovs.addPort(bridge.name, hostEnd(nic), ovsVlans(nic));
    await guardHostEnd(host, nic, { chains: this.firewall(nic), signal });
    await this.#routes.add(nic, bridge.name, routesOf(nic));
    await host.links.change(hostEnd(nic), { up: true });
    return made;
  }

  async update(before: NicDevice, after: NicDevice, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    if (!isNative(await this.#bridge(after))) requireOvsOptions(after);
    await changeHostEnd(host, before, after, signal);
    const isolated = isOn(after.config[ISOLATION]);
    if (isolated !== isOn(before.config[ISOLATION])) await host.ports.setIsolated(hostEnd(after), isolated);
    await this.#routes.change(before, after, after.config['parent'] ?? '');
  }

  async stop(nic: NicDevice, signal: AbortSignal): Promise<void> {
    await this.#routes.remove(nic, nic.config['parent'] ?? '', routesOf(nic));
    await removeHostEnd(this.#context.host, nic, { chains: this.firewall(nic), signal });
    await this.#leaveOvs(nic);
  }

  /** Open vSwitch remembers ports whose interface is gone. */
  async #leaveOvs(nic: NicDevice): Promise<void> {
    const parent = nic.config['parent'] ?? '';
    const link = await this.#context.host.links.find(parent);
    if (hostEnd(nic) === '' || !link || isNative(link) || !(await this.#ovs.hasBridge(parent))) return;
    await this.#ovs.removePort(parent, hostEnd(nic));
  }
}

function isNative({ kind }: Link): boolean {
  return kind === 'bridge';
}

export const bridged: NicModule = { nictype: 'bridged', create: (context) => new BridgedNic(context) };
