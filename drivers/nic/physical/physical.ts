// nictype=physical: an interface of the host moves into the container, and comes back (or vanishes) with its end.
import type { RuntimeNic } from '../../runtime/driver.ts';
import type { Link } from '#src/host/links.ts';
import type { NicContext, NicDevice, NicDriver, NicInfo, NicModule, NicVolatile } from '../driver.ts';
import { numberOption, validateNic } from '../common/nic-options.ts';
import { closeParent, openParent, parentName, planParent } from '../common/parent.ts';

const INFO: NicInfo = {
  nictype: 'physical',
  options: ['parent', 'name', 'hwaddr', 'mtu', 'vlan', 'gvrp', 'boot.priority'],
  required: ['parent'],
  liveOptions: [],
};

class PhysicalNic implements NicDriver {
  readonly info = INFO;
  readonly #context: NicContext;

  constructor(context: NicContext) {
    this.#context = context;
  }

  validate(config: Readonly<Record<string, string>>): void {
    validateNic(INFO, config);
  }

  /** What the interface was like; one that is yet to be made is not restored. */
  async plan(nic: NicDevice): Promise<NicVolatile> {
    const { host } = this.#context;
    const planned = await planParent(host, nic);
    const link = await host.links.find(parentName(nic));
    return {
      ...planned,
      host_name: parentName(nic),
      ...(link && { 'last_state.hwaddr': link.hwaddr, 'last_state.mtu': String(link.mtu) }),
    };
  }

  /** liblxc moves, renames, and moves back. */
  async start(nic: NicDevice): Promise<RuntimeNic> {
    const { config } = nic;
    await openParent(this.#context.host, nic);
    const mtu = numberOption(config, 'mtu');
    const hwaddr = config['hwaddr'] ?? '';
    return {
      link: parentName(nic),
      name: config['name'] ?? '',
      ...(hwaddr !== '' && { hwaddr }),
      ...(mtu !== undefined && { mtu }),
    };
  }

  async stop(nic: NicDevice): Promise<void> {
    const { host } = this.#context;
    const { volatile } = nic;
    const name = volatile['host_name'] ?? '';
    if (name !== '' && volatile['last_state.created'] !== 'true') await this.#restore(name, nic);
    await closeParent(host, nic);
  }

  /** One end of a veth pair goes away with the container: there is nothing to restore then. */
  async #restore(name: string, nic: NicDevice): Promise<void> {
    const { links } = this.#context.host;
    const { volatile } = nic;
    const link = (await links.find(name)) ?? (await this.#orphan(nic));
    if (!link) return;
    const hwaddr = volatile['last_state.hwaddr'] ?? '';
    const mtu = Number(volatile['last_state.mtu'] ?? link.mtu);
    const changes = {
      ...(link.name !== name && { name }),
      ...(hwaddr !== '' && hwaddr !== link.hwaddr && { hwaddr }),
      ...(mtu !== link.mtu && { mtu }),
    };
    if (Object.keys(changes).length > 0) await links.change(link.name, { up: false, ...changes });
  }

  /** After a runtime that was killed the kernel gives the interface back itself, under the name that it had in the container. */
  async #orphan({ config, volatile }: NicDevice): Promise<Link | undefined> {
    const links = await this.#context.host.links.list();
    const hwaddr = (config['hwaddr'] ?? volatile['last_state.hwaddr'] ?? '').toLowerCase();
    const name = config['name'] ?? '';
    // The kernel calls it devN when something here has its name.
    return links.find((link) => link.hwaddr === hwaddr && (link.name === name || /^dev\d+$/.test(link.name)));
  }
}

export const physical: NicModule = { nictype: 'physical', create: (context) => new PhysicalNic(context) };
