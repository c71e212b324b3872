// limits.ingress, limits.egress and limits.max: what the container receives is queued on the host's end of its cable, what it sends is
// dropped there when it is too much (lxd-engine-contract section 4.2; a policer by nftables, which needs no act_police of the kernel).
import type { NicDevice } from '../driver.ts';
import { parseBitRate } from './bit-rate.ts';
import { chainName, type FirewallChain } from './firewall.ts';
import { hostEnd } from './veth.ts';

type NicConfig = NicDevice['config'];

/** What may be sent at once after a pause; never less than a second's worth, which the kernel adds itself. */
const BURST_BYTES = 2 ** 20;

export const RATE_OPTIONS = ['limits.ingress', 'limits.egress', 'limits.max'];

/** Bits per second; limits.max is both. */
export function ratesOf(config: NicConfig): { readonly ingress: number | null; readonly egress: number | null } {
  const rate = (option: string): number | null => {
    const text = (config['limits.max'] ?? '') === '' ? (config[option] ?? '') : (config['limits.max'] ?? '');
    return text === '' ? null : parseBitRate(text);
  };
  return { ingress: rate('limits.ingress'), egress: rate('limits.egress') };
}

/** The policer of what the container sends; [] without limits.egress. */
export function rateChains(nic: NicDevice): readonly FirewallChain[] {
  const { egress } = ratesOf(nic.config);
  if (egress === null) return [];
  const rate = Math.floor(egress / 8);
  const limit = `limit rate over ${rate} bytes/second burst ${Math.max(0, BURST_BYTES - rate)} bytes drop`;
  return [
    {
      family: 'netdev',
      name: chainName('limit', nic),
      hook: `type filter hook ingress device "${hostEnd(nic)}" priority -200; policy accept;`,
      rules: [limit],
    },
  ];
}
