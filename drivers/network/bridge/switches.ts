// What a network's bridge is: one of the kernel, or one of Open vSwitch (bridge.driver).
import type { Host } from '#src/host/host.ts';
import type { Link } from '#src/host/links.ts';
import { Ovs, type OvsBridge } from '#src/host/ovs.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NetworkConfig } from '../driver.ts';

export interface Switch {
  /** The bridge, as it shall be. AppError 'conflict' when its name is that of something else. */
  make(wanted: OvsBridge): Promise<Link>;
  /** Absent is success. */
  remove(name: string): Promise<void>;
  isMember(bridge: Link, link: Link): Promise<boolean>;
  join(bridge: string, link: string): Promise<void>;
  /** A member. */
  leave(bridge: string, link: string): Promise<void>;
}

export function switchOf(host: Host, config: NetworkConfig): Switch {
  return config['bridge.driver'] === 'openvswitch' ? new OvsSwitch(host) : new NativeSwitch(host);
}

/** `wasOvs`: what was noted of it. What else has its name is left alone. */
export async function removeSwitch(host: Host, name: string, wasOvs: boolean): Promise<void> {
  if (wasOvs) await new OvsSwitch(host).remove(name);
  const link = await host.links.find(name);
  if (link?.kind === 'bridge') await new NativeSwitch(host).remove(name);
}

class NativeSwitch implements Switch {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  async make({ name, hwaddr, mtu }: OvsBridge): Promise<Link> {
    const { links } = this.#host;
    const found = await links.find(name);
    if (found && found.kind !== 'bridge') throw new AppError('conflict', `Network interface "${name}" already exists`);
    if (!found) await links.create({ kind: 'bridge', name, hwaddr });
    const bridge = found ?? (await links.find(name));
    if (!bridge) throw new AppError('internal', `The bridge "${name}" is gone`);
    if (bridge.mtu !== mtu || bridge.hwaddr !== hwaddr) await links.change(name, { mtu, hwaddr });
    return bridge;
  }

  remove(name: string): Promise<void> {
    return this.#host.links.remove(name);
  }

  isMember(bridge: Link, { master }: Link): Promise<boolean> {
    return Promise.resolve(master === bridge.index);
  }

  join(bridge: string, link: string): Promise<void> {
    return this.#host.links.change(link, { master: bridge, up: true });
  }

  leave(_bridge: string, link: string): Promise<void> {
    return this.#host.links.change(link, { master: null });
  }
}

class OvsSwitch implements Switch {
  readonly #host: Host;
  readonly #ovs: Ovs;

  constructor(host: Host) {
    this.#host = host;
    this.#ovs = new Ovs(host);
  }

  async make(wanted: OvsBridge): Promise<Link> {
    const { name } = wanted;
    if ((await this.#host.links.find(name)) && !(await this.#ovs.hasBridge(name))) {
      throw new AppError('conflict', `Network interface "${name}" already exists`);
    }
    await this.#ovs.setBridge(wanted);
    const bridge = await this.#host.links.find(name);
    if (!bridge) throw new AppError('internal', `The bridge "${name}" is gone`);
    return bridge;
  }

  remove(name: string): Promise<void> {
    return this.#ovs.removeBridge(name);
  }

  async isMember(bridge: Link, { name }: Link): Promise<boolean> {
    return (await this.#ovs.bridgeOf(name)) === bridge.name;
  }

  async join(bridge: string, link: string): Promise<void> {
    await this.#ovs.addPort(bridge, link);
    await this.#host.links.change(link, { up: true });
  }

  leave(bridge: string, link: string): Promise<void> {
    return this.#ovs.removePort(bridge, link);
  }
}
