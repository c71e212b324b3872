// nictype=macvlan: an interface with its own MAC address on top of one of the host's. Host and container do not see each other.
import type { RuntimeNic } from '../../runtime/driver.ts';
import type { NicContext, NicDevice, NicDriver, NicInfo, NicModule, NicVolatile } from '../driver.ts';
import { numberOption, validateNic } from '../common/nic-options.ts';
import { closeParent, openParent, parentName, planParent } from '../common/parent.ts';
import { freeName, hostEnd } from '../common/veth.ts';

const INFO: NicInfo = {
  nictype: 'macvlan',
  options: ['parent', 'name', 'hwaddr', 'mtu', 'vlan', 'gvrp', 'boot.priority'],
  required: ['parent'],
  liveOptions: [],
};

class MacvlanNic implements NicDriver {
  readonly info = INFO;
  readonly #context: NicContext;

  constructor(context: NicContext) {
    this.#context = context;
  }

  validate(config: Readonly<Record<string, string>>): void {
    validateNic(INFO, config);
  }

  async plan(nic: NicDevice): Promise<NicVolatile> {
    const { host } = this.#context;
    return { ...(await planParent(host, nic)), host_name: await freeName(host, 'mac') };
  }

  async start(nic: NicDevice): Promise<RuntimeNic> {
    const { host } = this.#context;
    const { config } = nic;
    await openParent(host, nic);
    const mtu = numberOption(config, 'mtu');
    const settings = { hwaddr: config['hwaddr'] ?? '', ...(mtu !== undefined && { mtu }) };
    await host.links.create({ kind: 'macvlan', name: hostEnd(nic), parent: parentName(nic), ...settings });
    return { link: hostEnd(nic), name: config['name'] ?? '', ...settings };
  }

  /** It is on the host again when the container ended in order. */
  async stop(nic: NicDevice): Promise<void> {
    const { host } = this.#context;
    if (hostEnd(nic) !== '') await host.links.remove(hostEnd(nic));
    await closeParent(host, nic);
  }
}

export const macvlan: NicModule = { nictype: 'macvlan', create: (context) => new MacvlanNic(context) };
