// What the host needs to answer for a container's addresses on another network: settings of the kernel, and proxy entries.
import type { Host } from '#src/host/host.ts';
import { AppError } from '#src/lib/errors.ts';
import { ipText, parseIp } from '#src/lib/ip.ts';
import type { NicDevice } from '../driver.ts';
import { nicAddresses } from './addresses.ts';
import { listOption } from './nic-options.ts';

const settingPath = (setting: readonly string[]) => `/proc/sys/net/${setting.join('/')}`;

/** Settings that the addresses of a nic need, of interface `parent` or of all. */
function settingsFor({ config }: NicDevice, parent: string | undefined): readonly (readonly string[])[] {
  const four = listOption(config, 'ipv4.address').length > 0;
  const six = listOption(config, 'ipv6.address').length > 0;
  const proxied = (name: string) => [
    ['ipv6', 'conf', name, 'forwarding'],
    ['ipv6', 'conf', name, 'proxy_ndp'],
  ];
  if (parent === undefined) return six ? proxied('all') : [];
  return [...(four ? [['ipv4', 'conf', parent, 'forwarding']] : []), ...(six ? proxied(parent) : [])];
}

export interface Forwarder {
  /** Absent: it is yet to be made. */
  readonly parent: string | undefined;
  /** Whose need it is, in LXD's words. */
  readonly mode: string;
  /** Whether the host has to forward IPv6 as a whole. */
  readonly all: boolean;
}

/** AppError 'invalid' naming the first setting that is off: what others use is not changed for a container. */
export async function needForwarding(host: Host, nic: NicDevice, { parent, mode, all }: Forwarder): Promise<void> {
  const own = parent === undefined ? [] : settingsFor(nic, parent);
  for (const setting of [...(all ? settingsFor(nic, undefined) : []), ...own]) {
    if ((await host.readFile(settingPath(setting))).trim() === '1') continue;
    const name = ['net', ...setting.map((part) => part.replaceAll('.', '/'))].join('.');
    throw new AppError('invalid', `${mode} requires sysctl ${name}=1`);
  }
}

/** Of an interface that is the nic's own. */
export async function setForwarding(host: Host, nic: NicDevice, parent: string): Promise<void> {
  for (const setting of settingsFor(nic, parent)) await host.writeFile(settingPath(setting), '1');
}

/** The host answers for the nic's addresses on `parent`. */
export async function answerFor(host: Host, { config }: NicDevice, parent: string): Promise<void> {
  for (const address of nicAddresses(config)) await host.links.addProxy(parent, withoutLength(address));
}

/** Not for those that another container has meanwhile. The nic's own routes are gone already. */
export async function stopAnswering(host: Host, { config }: NicDevice, parent: string): Promise<void> {
  const addresses = nicAddresses(config);
  if (addresses.length === 0) return;
  const routed = new Set((await host.links.routes()).map(({ destination }) => destination));
  for (const address of addresses) {
    if (!routed.has(canonical(address))) await host.links.removeProxy(parent, withoutLength(address));
  }
}

const withoutLength = (address: string): string => address.replace(/\/\d+$/, '');

/** As the kernel's routes are written. */
function canonical(address: string): string {
  const ip = parseIp(withoutLength(address));
  return ip === undefined ? address : `${ipText(ip)}/${ip.family === 4 ? 32 : 128}`;
}
