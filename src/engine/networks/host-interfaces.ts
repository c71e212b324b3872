// The host's network interfaces as LXD lists them, and how each is.
import type { LinkAddress } from '#src/host/links.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';

type Context = Pick<EngineContext, 'host'>;

export type InterfaceType = 'loopback' | 'bridge' | 'bond' | 'vlan' | 'physical' | 'unknown';

export interface HostInterface {
  readonly name: string;
  readonly type: InterfaceType;
}

export interface NetworkAddress {
  readonly family: 'inet' | 'inet6';
  readonly address: string;
  readonly netmask: string;
  readonly scope: 'local' | 'link' | 'global';
}

export interface NetworkState {
  readonly addresses: readonly NetworkAddress[];
  readonly counters: Readonly<Record<string, number>>;
  readonly hwaddr: string;
  readonly mtu: number;
  readonly state: 'up' | 'down';
  readonly type: 'loopback' | 'broadcast' | 'point-to-point';
  readonly bridge: BridgeState | null;
}

export interface BridgeState {
  readonly id: string;
  readonly stp: boolean;
  readonly forward_delay: number;
  readonly vlan_default: number;
  readonly vlan_filtering: boolean;
  readonly upper_devices: readonly string[];
}

const FLAG_UP = 0x1;
const FLAG_LOOPBACK = 0x8;
const FLAG_POINT_TO_POINT = 0x10;

const COUNTERS = {
  bytes_received: 'rx_bytes',
  bytes_sent: 'tx_bytes',
  packets_received: 'rx_packets',
  packets_sent: 'tx_packets',
} as const;

export class HostInterfaces {
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
  }

  /** In the kernel's order. Ends of containers' cables are not networks. */
  async list(): Promise<readonly HostInterface[]> {
    const names = await this.names();
    return Promise.all(names.map((name) => this.#describe(name)));
  }

  async names(): Promise<readonly string[]> {
    const found = await this.#context.host.list('/sys/class/net');
    const indexed = await Promise.all(
      found
        .filter((name) => !name.startsWith('veth') && name !== 'bonding_masters')
        .map(async (name) => ({ name, index: Number(await this.#read(name, 'ifindex')) })),
    );
    return indexed.toSorted((a, b) => a.index - b.index).map(({ name }) => name);
  }

  /** AppError 'not_found' with LXD's text. */
  async get(name: string): Promise<HostInterface> {
    if (!(await this.#exists(name))) throw new AppError('not_found', 'Network not found');
    return this.#describe(name);
  }

  /** Of any interface, containers' cables included. */
  async state(name: string): Promise<NetworkState> {
    if (!(await this.#exists(name))) throw new AppError('not_found', `Network interface "${name}" not found`);
    const flags = Number(await this.#read(name, 'flags'));
    const counters = Object.entries(COUNTERS).map(async ([key, file]) => {
      return [key, Number(await this.#read(name, `statistics/${file}`))] as const;
    });
    const hwaddr = await this.#read(name, 'address');
    return {
      addresses: await this.#addresses(name),
      counters: Object.fromEntries(await Promise.all(counters)),
      hwaddr: hwaddr === '00:00:00:00:00:00' ? '' : hwaddr,
      mtu: Number(await this.#read(name, 'mtu')),
      state: flags & FLAG_UP ? 'up' : 'down',
      type: kindOfLink(flags),
      bridge: (await this.#type(name)) === 'bridge' ? await this.#bridge(name) : null,
    };
  }

  /** Of one that has no carrier, too. */
  async #addresses(name: string): Promise<readonly NetworkAddress[]> {
    const { links } = this.#context.host;
    const index = (await links.find(name))?.index;
    return (await links.addresses()).filter((address) => address.index === index).map(addressOf);
  }

  async #describe(name: string): Promise<HostInterface> {
    return { name, type: await this.#type(name) };
  }

  async #type(name: string): Promise<InterfaceType> {
    const { host } = this.#context;
    if (Number(await this.#read(name, 'flags')) & FLAG_LOOPBACK) return 'loopback';
    const marks: readonly (readonly [InterfaceType, string])[] = [
      ['bridge', `/sys/class/net/${name}/bridge`],
      ['bond', `/sys/class/net/${name}/bonding`],
      ['vlan', `/proc/net/vlan/${name}`],
      ['physical', `/sys/class/net/${name}/device`],
    ];
    for (const [type, path] of marks) if (await host.exists(path)) return type;
    return 'unknown';
  }

  async #bridge(name: string): Promise<BridgeState> {
    const read = async (file: string) => Number(await this.#read(name, `bridge/${file}`));
    return {
      id: await this.#read(name, 'bridge/bridge_id'),
      stp: (await read('stp_state')) !== 0,
      forward_delay: await read('forward_delay'),
      vlan_default: await read('default_pvid').catch(() => 0),
      vlan_filtering: (await read('vlan_filtering').catch(() => 0)) !== 0,
      upper_devices: await this.#context.host.list(`/sys/class/net/${name}/brif`),
    };
  }

  async #exists(name: string): Promise<boolean> {
    return !name.includes('/') && name !== '.' && name !== '..' && this.#context.host.exists(`/sys/class/net/${name}`);
  }

  async #read(name: string, file: string): Promise<string> {
    return (await this.#context.host.readFile(`/sys/class/net/${name}/${file}`)).trim();
  }
}

function kindOfLink(flags: number): NetworkState['type'] {
  if (flags & FLAG_LOOPBACK) return 'loopback';
  return flags & FLAG_POINT_TO_POINT ? 'point-to-point' : 'broadcast';
}

function addressOf({ address: text, scope }: LinkAddress): NetworkAddress {
  const [address = '', netmask = ''] = text.split('/');
  return { family: address.includes(':') ? 'inet6' : 'inet', address, netmask, scope };
}
