// nictype=routed: a veth pair between two single addresses. The host routes the container's addresses to it, and answers for them on
// the network of `parent`; there is no common segment (lxd-engine-contract section 3.2).
import type { RuntimeNic } from '../../runtime/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NicContext, NicDevice, NicDriver, NicInfo, NicModule, NicVolatile } from '../driver.ts';
import { hostAddress, nicAddresses, ROUTED_CHECKS, usesAutoGateway } from '../common/addresses.ts';
import { chainName, type FirewallChain, removeChains } from '../common/firewall.ts';
import { changeHostEnd, guardHostEnd, hostEndChains } from '../common/host-end.ts';
import { isOn, listOption, numberOption, validateNic } from '../common/nic-options.ts';
import { closeParent, openParent, parentName, planParent } from '../common/parent.ts';
import { RATE_OPTIONS } from '../common/rates.ts';
import { ROUTE_OPTIONS } from '../common/routes.ts';
import { answerFor, needForwarding, setForwarding, stopAnswering } from '../common/sysctls.ts';
import { hostEnd, makePair, planPair, removePair } from '../common/veth.ts';

const FAMILIES = ['ipv4', 'ipv6'] as const;
const PROBE_MS = 100;
const MODE = 'Routed mode';
const COMMON = ['parent', 'name', 'hwaddr', 'host_name', 'mtu', 'queue.tx.length', 'vlan', 'gvrp'];
const OWN = ['address', 'gateway', 'host_address', 'host_table', 'neighbor_probe'];
const INFO: NicInfo = {
  nictype: 'routed',
  options: [
    ...COMMON,
    ...RATE_OPTIONS,
    ...ROUTE_OPTIONS,
    ...FAMILIES.flatMap((family) => OWN.map((option) => `${family}.${option}`)),
  ],
  required: [],
  liveOptions: RATE_OPTIONS,
};

class RoutedNic implements NicDriver {
  readonly info = INFO;
  readonly #context: NicContext;

  constructor(context: NicContext) {
    this.#context = context;
  }

  validate(config: Readonly<Record<string, string>>): void {
    validateNic(INFO, config, ROUTED_CHECKS);
    for (const family of FAMILIES) {
      const addresses = listOption(config, `${family}.address`);
      const twice = addresses.find((address, index) => addresses.indexOf(address) !== index);
      if (twice !== undefined) throw new AppError('invalid', `Duplicate address "${twice}" in "${family}.address"`);
      if ((config[`${family}.routes`] ?? '') !== '' && addresses.length === 0) {
        throw new AppError('invalid', `${family}.routes requires ${family}.address to be set`);
      }
    }
    if ((config['parent'] ?? '') === '' && (config['vlan'] ?? '') !== '') {
      throw new AppError('invalid', 'The vlan setting can only be used when combined with a parent interface');
    }
  }

  async plan(nic: NicDevice): Promise<NicVolatile> {
    const { host } = this.#context;
    const parent = nic.config['parent'] ?? '';
    if (parent === '') return planPair(host, nic);
    if (!(await host.links.find(parent))) throw new AppError('not_found', `Parent device "${parent}" doesn't exist`);
    const planned = await planParent(host, nic);
    // What is yet to be made is set as it has to be.
    const makes = planned['last_state.created'] === 'true';
    await needForwarding(host, nic, { parent: makes ? undefined : parentName(nic), mode: MODE, all: true });
    return { ...planned, ...(await planPair(host, nic)) };
  }

  firewall(nic: NicDevice): readonly FirewallChain[] {
    return [...hostEndChains(nic), returnPath(nic)];
  }

  async start(nic: NicDevice, signal: AbortSignal): Promise<RuntimeNic> {
    const { host } = this.#context;
    const { config } = nic;
    const parent = (config['parent'] ?? '') === '' ? undefined : parentName(nic);
    await this.#openParent(nic, parent);
    const mtu =
      numberOption(config, 'mtu') ?? (parent === undefined ? undefined : (await host.links.find(parent))?.mtu);
    const made = await makePair(host, nic, { mtu });
    await this.#setUpHostEnd(nic, signal);
    await this.#addRoutes(nic);
    if (parent !== undefined) await answerFor(host, nic, parent);
    const families = FAMILIES.filter((family) => listOption(config, `${family}.address`).length > 0);
    return {
      ...made,
      addresses: nicAddresses(config),
      gateways: families
        .filter((family) => usesAutoGateway(config[`${family}.gateway`]))
        .map((family) => hostAddress(config, family)),
    };
  }

  async #openParent(nic: NicDevice, parent: string | undefined): Promise<void> {
    if (parent === undefined) return;
    const { host } = this.#context;
    await openParent(host, nic);
    if (nic.volatile['last_state.created'] === 'true') await setForwarding(host, nic, parent);
    await Promise.all(
      FAMILIES.filter((family) => isOn(nic.config[`${family}.neighbor_probe`] || 'true'))
        .flatMap((family) => listOption(nic.config, `${family}.address`))
        .map(async (address) => {
          if (!(await host.ports.isTaken(parent, address, PROBE_MS))) return;
          throw new AppError('conflict', `IP address "${address}" in use on parent network "${parent}"`);
        }),
    );
  }

  /** What comes from the container has to have an address of its own. */
  async #setUpHostEnd(nic: NicDevice, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const name = hostEnd(nic);
    await guardHostEnd(host, nic, { chains: this.firewall(nic), signal });
    if (await host.exists('/proc/sys/net/ipv6')) await host.writeFile(`/proc/sys/net/ipv6/conf/${name}/accept_ra`, '0');
    await host.writeFile(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, '1');
    await host.links.change(name, { up: true });
    for (const family of FAMILIES) {
      if (listOption(nic.config, `${family}.address`).length === 0) continue;
      await host.links.addAddress(name, `${hostAddress(nic.config, family)}/${family === 'ipv4' ? 32 : 128}`);
      await host.writeFile(`/proc/sys/net/${family}/conf/${name}/forwarding`, '1');
    }
  }

  async #addRoutes(nic: NicDevice): Promise<void> {
    const { config } = nic;
    for (const family of FAMILIES) {
      const addresses = listOption(config, `${family}.address`);
      const table = numberOption(config, `${family}.host_table`);
      for (const destination of nicAddresses(config, family)) {
        await this.#addRoute(nic, { destination });
        if (table !== undefined) await this.#addRoute(nic, { destination, table });
      }
      for (const destination of listOption(config, `${family}.routes`)) {
        await this.#addRoute(nic, { destination, gateway: addresses[0] ?? '' });
      }
    }
  }

  /** Not in place of another's. */
  async #addRoute(nic: NicDevice, route: { destination: string; gateway?: string; table?: number }): Promise<void> {
    await this.#context.host.links.addRoute({ ...route, interface: hostEnd(nic), protocol: 'boot', fresh: true });
  }

  async update(before: NicDevice, after: NicDevice, signal: AbortSignal): Promise<void> {
    await changeHostEnd(this.#context.host, before, after, signal);
  }

  /** Addresses and routes go with the interface. */
  async stop(nic: NicDevice, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    await removePair(host, nic);
    if ((nic.config['parent'] ?? '') !== '') {
      await stopAnswering(host, nic, parentName(nic));
      await closeParent(host, nic);
    }
    await removeChains(host, this.firewall(nic), signal);
  }
}

/** Reverse path filter of both families; rp_filter of the kernel is for IPv4 alone. */
function returnPath(nic: NicDevice): FirewallChain {
  return {
    family: 'inet',
    name: chainName('prert', nic),
    hook: 'type filter hook prerouting priority -300; policy accept;',
    rules: [`iifname "${hostEnd(nic)}" fib saddr . iif oif missing drop`],
  };
}

export const routed: NicModule = { nictype: 'routed', create: (context) => new RoutedNic(context) };
