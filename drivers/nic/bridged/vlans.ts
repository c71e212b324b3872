// vlan and vlan.tagged of a nic in a bridge that filters VLANs: what goes out untagged, and what goes out tagged.
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import type { NicDevice } from '../driver.ts';
import { type Check, listOf } from '../common/nic-checks.ts';
import { isOn, listOption } from '../common/nic-options.ts';
import { hostEnd } from '../common/veth.ts';

type NicConfig = NicDevice['config'];

export const VLAN_OPTIONS = ['vlan', 'vlan.tagged'];
const MAX_VLAN = 4094;
const FILTERS = ['security.ipv4_filtering', 'security.ipv6_filtering'];

function checkId(value: string): string | undefined {
  if (!/^\d{1,9}$/.test(value)) return `Invalid VLAN ID "${value}"`;
  return Number(value) > MAX_VLAN ? `Out of VLAN ID range (0-${MAX_VLAN}) "${value}"` : undefined;
}

function checkRange(value: string): string | undefined {
  const [first = '', last = first, ...rest] = value.split('-');
  const complaint = rest.length > 0 ? `Invalid VLAN range input: ${value}` : (checkId(first) ?? checkId(last));
  if (complaint !== undefined) return complaint;
  return Number(last) < Number(first) ? `Invalid VLAN range boundary. start:${first}, end:${last}` : undefined;
}

export const VLAN_CHECKS: Readonly<Record<string, Check>> = {
  vlan: (value) => (value === 'none' ? undefined : checkId(value)),
  'vlan.tagged': listOf(checkRange),
};

/** Of a checked configuration: what does not go together. */
export function checkVlans(config: NicConfig): void {
  const vlan = config['vlan'] ?? '';
  const tagged = listOption(config, 'vlan.tagged');
  if (vlan === '' && tagged.length === 0) return;
  if (FILTERS.some((option) => isOn(config[option]))) {
    throw new AppError('invalid', 'IP filtering cannot be used with VLAN filtering');
  }
  if (tagged.includes(vlan)) {
    throw new AppError('invalid', `Tagged VLAN ID "${vlan}" cannot be the same as untagged VLAN ID`);
  }
  if (vlan === '0') throw new AppError('invalid', 'VLAN ID 0 is not allowed for native Linux bridges');
  if (taggedIds(config).includes(0)) {
    throw new AppError('invalid', 'VLAN tagged ID 0 is not allowed for native Linux bridges');
  }
}

export function taggedIds(config: NicConfig): readonly number[] {
  return listOption(config, 'vlan.tagged').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/** AppError 'unsupported' when the bridge, or the kernel at all, does not filter VLANs and the nic wants it. */
export async function requireVlans(host: Host, { config }: NicDevice, bridge: string): Promise<void> {
  if ((config['vlan'] ?? '') === '' && (config['vlan.tagged'] ?? '') === '') return;
  const filters = await host.readFile(`/sys/class/net/${bridge}/bridge/vlan_filtering`).catch(() => '0');
  if (filters.trim() !== '1') {
    throw new AppError('unsupported', `VLAN filtering is not enabled in parent bridge "${bridge}"`);
  }
}

/** The host end is in the bridge already. */
export async function joinVlans(host: Host, nic: NicDevice, bridge: string): Promise<void> {
  const vlan = nic.config['vlan'] ?? '';
  const port = hostEnd(nic);
  if (vlan !== '') {
    const preset = Number(await host.readFile(`/sys/class/net/${bridge}/bridge/default_pvid`));
    if (preset !== 0 && String(preset) !== vlan) await host.ports.removeVlan(port, preset);
    if (vlan !== 'none') await host.ports.addVlan(port, { id: Number(vlan), untagged: true });
  }
  for (const id of taggedIds(nic.config)) await host.ports.addVlan(port, { id, untagged: false });
}
