// Addresses that a nic has by itself, without DHCP: of nictype=routed and ipvlan.
import type { NicDevice } from '../driver.ts';
import { bothFamilies, type Check, checkAddress, checkBoolean, checkUint32, listOf } from './nic-checks.ts';
import { listOption } from './nic-options.ts';

type NicConfig = NicDevice['config'];
export type FamilyName = 'ipv4' | 'ipv6';

/** What the container's default route leads to when nothing else is said. */
const HOST_ADDRESS = { ipv4: '169.254.0.1', ipv6: 'fe80::1' } as const;
const SINGLE = { ipv4: 32, ipv6: 128 } as const;

function checkGateway(value: string): string | undefined {
  return ['auto', 'none'].includes(value) ? undefined : `Invalid gateway: ${value}`;
}

export const ROUTED_CHECKS: Readonly<Record<string, Check>> = {
  ...bothFamilies('address', (family) => listOf(checkAddress(family))),
  ...bothFamilies('gateway', () => checkGateway),
  ...bothFamilies('host_address', checkAddress),
  ...bothFamilies('host_table', () => checkUint32),
  ...bothFamilies('neighbor_probe', () => checkBoolean),
};

export function usesAutoGateway(value: string | undefined): boolean {
  return value === undefined || value === '' || value === 'auto';
}

export function hostAddress(config: NicConfig, family: FamilyName): string {
  const given = config[`${family}.host_address`] ?? '';
  return given === '' ? HOST_ADDRESS[family] : given;
}

/** As CIDRs of one address each; of one family or of both. */
export function nicAddresses(config: NicConfig, only?: FamilyName): readonly string[] {
  const families = only === undefined ? (['ipv4', 'ipv6'] as const) : [only];
  return families.flatMap((family) => {
    return listOption(config, `${family}.address`).map((address) => `${address}/${SINGLE[family]}`);
  });
}
