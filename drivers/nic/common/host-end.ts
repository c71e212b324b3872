// What is set on the host's end of a container's cable, beside its being there: rates and filters.
import type { Host } from '#src/host/host.ts';
import type { NicDevice } from '../driver.ts';
import { filterChains } from './filters.ts';
import { type FirewallChain, removeChains, replaceChains, setChains } from './firewall.ts';
import { rateChains, ratesOf } from './rates.ts';
import { hostEnd, removePair } from './veth.ts';

export function hostEndChains(nic: NicDevice): readonly FirewallChain[] {
  return [...rateChains(nic), ...filterChains(nic)];
}

interface Guard {
  /** All of the nic. */
  readonly chains: readonly FirewallChain[];
  readonly signal: AbortSignal;
}

/** Before it is put up. */
export async function guardHostEnd(host: Host, nic: NicDevice, { chains, signal }: Guard): Promise<void> {
  const { ingress } = ratesOf(nic.config);
  if (ingress !== null) await host.ports.setRate(hostEnd(nic), ingress);
  await setChains(host, chains, signal);
}

/** While it is used: packets in between are under the old rules or under the new ones. */
export async function changeHostEnd(host: Host, before: NicDevice, after: NicDevice, signal: AbortSignal) {
  const [was, is] = [ratesOf(before.config).ingress, ratesOf(after.config).ingress];
  if (was !== is) await host.ports.setRate(hostEnd(after), is);
  await replaceChains(host, hostEndChains(before), hostEndChains(after), signal);
}

/** Both ends of the cable, and what was set for them. */
export async function removeHostEnd(host: Host, nic: NicDevice, { chains, signal }: Guard): Promise<void> {
  await removePair(host, nic);
  await removeChains(host, chains, signal);
}
