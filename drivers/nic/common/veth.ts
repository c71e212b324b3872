// A veth pair: its host end stays, under a name that is remembered; the other end is for the container.
import { randomBytes } from 'node:crypto';
import type { RuntimeNic } from '../../runtime/driver.ts';
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NicDevice, NicVolatile } from '../driver.ts';
import { numberOption } from './nic-options.ts';

/** host_name of the device, or a random one that no interface has. */
export async function planPair(host: Host, { config }: NicDevice): Promise<NicVolatile> {
  const wanted = config['host_name'] ?? '';
  if (wanted === '') return { host_name: await freeName(host, 'veth') };
  if (await host.links.find(wanted)) throw new AppError('invalid', `Network interface "${wanted}" already exists`);
  return { host_name: wanted };
}

export async function freeName(host: Host, prefix: string): Promise<string> {
  for (;;) {
    const name = `${prefix}${randomBytes(4).toString('hex')}`;
    if (!(await host.links.find(name))) return name;
  }
}

export interface PairSettings {
  readonly mtu?: number | undefined;
  /** Bridge that the host end joins. */
  readonly master?: string;
}

export function hostEnd({ volatile }: NicDevice): string {
  return volatile['host_name'] ?? '';
}

/** Makes the pair, down: what is to be set on the host end is set before it is put up. */
export async function makePair(host: Host, nic: NicDevice, { mtu, master }: PairSettings): Promise<RuntimeNic> {
  const { config } = nic;
  const name = hostEnd(nic);
  const inside = await freeName(host, 'veth');
  const hwaddr = config['hwaddr'] ?? '';
  const queueLength = numberOption(config, 'queue.tx.length');
  await host.links.create({
    kind: 'veth',
    name,
    peer: { name: inside, ...(hwaddr !== '' && { hwaddr }) },
    ...(mtu !== undefined && { mtu }),
    ...(master !== undefined && { master }),
    ...(queueLength !== undefined && { queueLength }),
  });
  return {
    link: inside,
    name: config['name'] ?? '',
    ...(hwaddr !== '' && { hwaddr }),
    ...(mtu !== undefined && { mtu }),
  };
}

/** Both ends, wherever the other is. */
export async function removePair(host: Host, nic: NicDevice): Promise<void> {
  const name = hostEnd(nic);
  if (name !== '') await host.links.remove(name);
}

/** The host end is a cable, not a member of the container's network. */
export async function withoutIpv6(host: Host, name: string): Promise<void> {
  const setting = `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`;
  if (await host.exists(setting)) await host.writeFile(setting, '1');
}
