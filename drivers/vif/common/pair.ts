// The pair of a port: one end stays on the host, where Neutron's agent finds it by its name, the other moves into the container.
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { Reverter } from '#src/lib/reverter.ts';
import type { SpawnNic } from '../../virt/driver.ts';
import type { BoundVif, KnownVif } from '../driver.ts';
import { disableIpv6, hasIpv6, hasLink, portName, runIp } from './links.ts';

export interface Ends {
  /** Stays; the agent looks for this name. */
  readonly tap: string;
  /** Moves into the container. */
  readonly peer: string;
}

export interface PairPlan extends Ends {
  /** The Linux bridge of the end that stays. */
  readonly bridge?: string;
  /** Of the end that stays; without one it has the port's, with another first byte. */
  readonly hostMac?: string;
  /** Whether the host speaks IPv6 on its end. */
  readonly keepsIpv6?: boolean;
}

export interface Making {
  readonly revert: Reverter;
  /** Takes back a pair that was not there. */
  readonly undo: () => Promise<void>;
  readonly signal: AbortSignal;
}

export function endsOf(id: string): Ends {
  return { tap: portName('tap', id), peer: portName('tin', id) };
}

/** What is there is corrected. True when it was not there. */
export async function ensurePair(
  host: Host,
  vif: BoundVif,
  plan: PairPlan,
  { revert, undo, signal }: Making,
): Promise<boolean> {
  const { tap, peer, keepsIpv6 = false } = plan;
  const [hasTap, hasPeer] = await Promise.all([hasLink(host, tap), hasLink(host, peer)]);
  if (hasTap && (await host.exists(`/sys/class/net/${tap}/tun_flags`))) {
    throw new AppError('conflict', `${tap} exists and is a tap of another program, not the end of a container's pair`);
  }
  // A peer without its tap is not ours to use; a tap without its peer has it in a container.
  const here = hasPeer ? [`link set dev ${peer} address ${macOf(vif)}${mtuOf(vif)}`] : [];
  const lines = [
    ...(hasTap ? here : [addPair(vif, plan)]),
    ...(!keepsIpv6 && (await hasIpv6(host)) ? [`link set dev ${tap} addrgenmode none`] : []),
    `link set dev ${tap}${masterOf(plan)}${mtuOf(vif)} up`,
  ];
  if (!hasTap) revert.add('pair', undo);
  await runIp(host, lines, signal);
  if (!keepsIpv6) await disableIpv6(host, [tap]);
  return !hasTap;
}

function addPair(vif: BoundVif, { tap, peer, hostMac }: PairPlan): string {
  // A bridge takes the lowest address of its ports: an end that begins with fe never becomes it, so it does not change.
  const own = hostMac ?? macOf(vif).replace(/^../, 'fe');
  return `link add name ${tap} address ${own}${mtuOf(vif)} type veth peer name ${peer} address ${macOf(vif)}${mtuOf(vif)}`;
}

function masterOf({ bridge }: PairPlan): string {
  return bridge === undefined ? '' : ` master ${bridge}`;
}

/** Of a command of ip(8). */
export function mtuOf({ mtu }: Pick<KnownVif, 'mtu'>): string {
  return mtu === null ? '' : ` mtu ${Math.trunc(mtu)}`;
}

/** Checked because it goes into a line of a batch. */
export function macOf({ id, macAddress }: KnownVif): string {
  return checkedMac(id, macAddress);
}

export function checkedMac(portId: string, text: string): string {
  if (/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) return text;
  throw new AppError('invalid', `port ${portId} has no usable MAC address: ${JSON.stringify(text)}`);
}

export function nicOf(vif: BoundVif, { peer }: Ends, guestInterface: string): SpawnNic {
  return {
    vifId: vif.id,
    macAddress: vif.macAddress,
    ...(vif.mtu === null ? {} : { mtu: vif.mtu }),
    hostInterface: peer,
    guestInterface,
  };
}
