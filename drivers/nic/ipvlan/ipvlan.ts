// nictype=ipvlan: an interface with the MAC address of one of the host's and addresses of its own. In mode l3s the host answers for
// them; in mode l2 the container speaks for itself (lxd-engine-contract section 3.2).
import type { RuntimeNic } from '../../runtime/driver.ts';
import { KernelError } from '#src/host/kernel.ts';
import { AppError } from '#src/lib/errors.ts';
import { parseNetwork } from '#src/lib/ip.ts';
import type { NicContext, NicDevice, NicDriver, NicInfo, NicModule, NicVolatile } from '../driver.ts';
import { nicAddresses, ROUTED_CHECKS, usesAutoGateway } from '../common/addresses.ts';
import { bothFamilies, type Check, checkAddress, listOf } from '../common/nic-checks.ts';
import { listOption, numberOption, validateNic } from '../common/nic-options.ts';
import { closeParent, openParent, parentName, planParent } from '../common/parent.ts';
import { NicRoutes } from '../common/routes.ts';
import { answerFor, needForwarding, setForwarding, stopAnswering } from '../common/sysctls.ts';
import { freeName, hostEnd } from '../common/veth.ts';

const FAMILIES = ['ipv4', 'ipv6'] as const;
const MODE = 'IPVLAN in L3S mode';
const COMMON = ['parent', 'mode', 'name', 'hwaddr', 'mtu', 'vlan', 'gvrp'];
const OWN = ['address', 'gateway', 'host_table'];
const INFO: NicInfo = {
  nictype: 'ipvlan',
  options: [...COMMON, ...FAMILIES.flatMap((family) => OWN.map((option) => `${family}.${option}`))],
  required: ['parent'],
  liveOptions: [],
};
/** Of an address that has none, in mode l2. */
const LENGTH = { ipv4: 24, ipv6: 64 } as const;

const checkMode: Check = (value) => (['l3s', 'l2'].includes(value) ? undefined : 'Must be one of: l3s, l2');

const checkSubnetAddress =
  (family: 4 | 6): Check =>
  (value) => {
    const address = value.includes('/') ? parseNetwork(value)?.address.family : undefined;
    return address === family ? undefined : checkAddress(family)(value);
  };

const L2_CHECKS = {
  ...bothFamilies('address', (family) => listOf(checkSubnetAddress(family))),
  ...bothFamilies('gateway', checkAddress),
};

const isL2 = (config: Readonly<Record<string, string>>): boolean => config['mode'] === 'l2';

class IpvlanNic implements NicDriver {
  readonly info = INFO;
  readonly #context: NicContext;
  readonly #routes: NicRoutes;

  constructor(context: NicContext) {
    this.#context = context;
    this.#routes = new NicRoutes(context.host);
  }

  validate(config: Readonly<Record<string, string>>): void {
    validateNic(INFO, config, { ...ROUTED_CHECKS, mode: checkMode, ...(isL2(config) && L2_CHECKS) });
    const tables = FAMILIES.some((family) => (config[`${family}.host_table`] ?? '') !== '');
    if (isL2(config) && tables) throw new AppError('invalid', 'host_table option cannot be used in l2 mode');
  }

  async plan(nic: NicDevice): Promise<NicVolatile> {
    const { host } = this.#context;
    const planned = await planParent(host, nic);
    const makes = planned['last_state.created'] === 'true';
    if (!isL2(nic.config)) {
      await needForwarding(host, nic, { parent: makes ? undefined : parentName(nic), mode: MODE, all: false });
    }
    return { ...planned, host_name: await freeName(host, 'ipv') };
  }

  async start(nic: NicDevice): Promise<RuntimeNic> {
    const { host } = this.#context;
    const { config } = nic;
    const parent = parentName(nic);
    await openParent(host, nic);
    await this.#create(nic, parent);
    const made = { link: hostEnd(nic), name: config['name'] ?? '', ...mtuOf(nic) };
    if (isL2(config)) return { ...made, addresses: subnetAddresses(config), gateways: gatewaysOf(config) };
    if (nic.volatile['last_state.created'] === 'true') await setForwarding(host, nic, parent);
    await this.#addRoutes(nic);
    await answerFor(host, nic, parent);
    const families = FAMILIES.filter((family) => listOption(config, `${family}.address`).length > 0);
    const deviceRoutes = families.filter((family) => usesAutoGateway(config[`${family}.gateway`]));
    return { ...made, addresses: nicAddresses(config), deviceRoutes };
  }

  /** AppError 'unsupported' when the kernel has no such interfaces. */
  async #create(nic: NicDevice, parent: string): Promise<void> {
    const mode = isL2(nic.config) ? 'l2' : 'l3s';
    try {
      await this.#context.host.links.create({ kind: 'ipvlan', name: hostEnd(nic), parent, mode, ...mtuOf(nic) });
    } catch (cause) {
      if (!(cause instanceof KernelError) || cause.errno !== 'EOPNOTSUPP') throw cause;
      throw new AppError('unsupported', 'The kernel of this host has no ipvlan interfaces', { cause });
    }
  }

  /** To the loopback interface: the host answers only for what it has a route to. */
  async #addRoutes(nic: NicDevice): Promise<void> {
    for (const family of FAMILIES) {
      const addresses = nicAddresses(nic.config, family);
      const table = numberOption(nic.config, `${family}.host_table`);
      await this.#routes.add(nic, 'lo', addresses);
      if (table !== undefined) await this.#routes.add(nic, 'lo', addresses, table);
    }
  }

  async #removeRoutes(nic: NicDevice): Promise<void> {
    for (const family of FAMILIES) {
      const addresses = nicAddresses(nic.config, family);
      const table = numberOption(nic.config, `${family}.host_table`);
      await this.#routes.remove(nic, 'lo', addresses);
      if (table !== undefined) await this.#routes.remove(nic, 'lo', addresses, table);
    }
  }

  /** It is on the host again when the container ended in order. */
  async stop(nic: NicDevice): Promise<void> {
    const { host } = this.#context;
    if (hostEnd(nic) !== '') await host.links.remove(hostEnd(nic));
    if (!isL2(nic.config)) {
      await this.#removeRoutes(nic);
      await stopAnswering(host, nic, parentName(nic));
    }
    await closeParent(host, nic);
  }
}

function mtuOf({ config }: NicDevice): { mtu?: number } {
  const mtu = numberOption(config, 'mtu');
  return mtu === undefined ? {} : { mtu };
}

function subnetAddresses(config: Readonly<Record<string, string>>): readonly string[] {
  return FAMILIES.flatMap((family) =>
    listOption(config, `${family}.address`).map((one) => (one.includes('/') ? one : `${one}/${LENGTH[family]}`)),
  );
}

function gatewaysOf(config: Readonly<Record<string, string>>): readonly string[] {
  return FAMILIES.flatMap((family) => listOption(config, `${family}.gateway`));
}

export const ipvlan: NicModule = { nictype: 'ipvlan', create: (context) => new IpvlanNic(context) };
