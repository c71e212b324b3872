// What cloud-init reads through the engine (LXD's data source and its NoCloud templates) when it finds neither a config drive
// nor the metadata service. JSON is YAML: nothing of the user's is ever read as more than a text.
import type { Vif } from '#src/nova/network-model.ts';
import type { CloudInitData } from '#drivers/virt/driver.ts';
import type { MetadataFacts } from './metadata/facts.ts';
import type { NetworkData, NetworkEntry } from './metadata/network-data.ts';

const STATIC_TYPES: Readonly<Record<string, string>> = {
  ipv4: 'static',
  ipv6: 'static6',
  ipv4_dhcp: 'dhcp4',
  ipv6_dhcp: 'dhcp6',
};

/** `vifs`: all interfaces of the guest, in the order of their names eth0, eth1 … */
export function cloudInitData(facts: MetadataFacts, vifs: readonly Vif[]): CloudInitData {
  return {
    metaData: metaData(facts),
    userData: facts.userData === null ? null : asText(facts.userData),
    vendorData: vendorText(facts.vendorData.static),
    networkConfig:
      facts.network === null || facts.network.links.length === 0 ? null : networkConfig(facts.network, vifs),
  };
}

/** Keys that the engine's own document has as well: the later ones count, and an instance is called as Nova calls it. */
function metaData({ uuid, hostname, keyData }: MetadataFacts): string {
  const lines: Readonly<Record<string, unknown>> = {
    'instance-id': uuid,
    'local-hostname': hostname,
    ...(keyData !== null && keyData !== '' && { 'public-keys': [keyData.trim()] }),
  };
  return Object.entries(lines)
    .map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
    .join('');
}

/** Data that is no text (compressed, mostly) is wrapped as MIME, which cloud-init unwraps. */
function asText(data: Uint8Array): string {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
    if (!text.includes('\0')) return text;
  } catch {
    // not UTF-8
  }
  const isGzip = data[0] === 0x1f && data[1] === 0x8b;
  const lines =
    Buffer.from(data)
      .toString('base64')
      .match(/.{1,76}/g) ?? [];
  return [
    'MIME-Version: 1.0',
    `Content-Type: ${isGzip ? 'application/x-gzip' : 'application/octet-stream'}`,
    'Content-Transfer-Encoding: base64',
    '',
    ...lines,
    '',
  ].join('\n');
}

/** cloud-init's part of OpenStack's vendor data: a text, several of them, or under the key `cloud-init`. */
function vendorText(data: unknown): string | null {
  const own = isDict(data) ? data['cloud-init'] : data;
  if (typeof own === 'string') return own === '' ? null : own;
  if (!Array.isArray(own) || own.length === 0) return null;
  return `#cloud-config-archive\n${JSON.stringify(own.map((item: unknown) => (typeof item === 'string' ? { content: item } : item)))}\n`;
}

/** cloud-init's network configuration, version 1. */
function networkConfig({ links, networks, services }: NetworkData, vifs: readonly Vif[]): string {
  const physical = links.map(({ id, vif_id: vifId, ethernet_mac_address: mac, mtu }) => ({
    type: 'physical',
    name: `eth${vifs.findIndex((vif) => vif.id === vifId)}`,
    mac_address: mac?.toLowerCase() ?? null,
    ...(mtu !== null && { mtu }),
    subnets: networks.filter(({ link }) => link === id).map(subnetConfig),
  }));
  const servers = services.map(({ address }) => ({ type: 'nameserver', address }));
  return `${JSON.stringify({ version: 1, config: [...physical, ...servers] })}\n`;
}

function subnetConfig({ type, ip_address: address, netmask, routes }: NetworkEntry): object {
  const named = STATIC_TYPES[type] ?? type;
  if (!named.startsWith('static')) return { type: named };
  return { type: named, address, netmask, routes };
}

function isDict(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
