// Switches of the kernel that a bridge network needs.
import type { Host } from '#src/host/host.ts';
import { readKernelFile } from '#src/host/kernel-files.ts';
import type { NetworkConfig } from '../driver.ts';
import { addressOf, isOn } from './config-keys.ts';

const NET = '/proc/sys/net';

export function hasIpv6(): boolean {
  return readKernelFile(`${NET}/ipv6/conf/default/disable_ipv6`) !== undefined;
}

/** Before the bridge has addresses: it is the router, and listens to no other. */
export async function prepareIpv6(host: Host, bridge: string, config: NetworkConfig): Promise<void> {
  if (!hasIpv6()) return;
  const conf = `${NET}/ipv6/conf/${bridge}`;
  await set(host, `${conf}/disable_ipv6`, addressOf(config, 6) === undefined ? '1' : '0');
  await set(host, `${conf}/autoconf`, '0');
  await set(host, `${conf}/accept_dad`, '0');
}

/** The host forwards; nothing of it is taken back, as others may rely on it. */
export async function enableForwarding(host: Host, config: NetworkConfig): Promise<void> {
  if (addressOf(config, 4) !== undefined && isOn(config, 'ipv4.routing'))
    await set(host, `${NET}/ipv4/ip_forward`, '1');
  if (addressOf(config, 6) === undefined || !isOn(config, 'ipv6.routing')) return;
  if (readKernelFile(`${NET}/ipv6/conf/all/forwarding`)?.trim() === '1') return;
  // A host that forwards takes no more router advertisements unless told to: its own addresses would expire.
  for (const name of await host.list(`${NET}/ipv6/conf`)) {
    const setting = `${NET}/ipv6/conf/${name}/accept_ra`;
    if (readKernelFile(setting)?.trim() === '1') await set(host, setting, '2');
  }
  await set(host, `${NET}/ipv6/conf/all/forwarding`, '1');
}

async function set(host: Host, path: string, value: string): Promise<void> {
  if (readKernelFile(path)?.trim() !== value) await host.writeFile(path, value);
}
