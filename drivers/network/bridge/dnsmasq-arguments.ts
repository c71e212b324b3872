// The command line of a network's dnsmasq, and what it writes down about leases.
import { firstOf, type IpAddress, type IpNetwork, ipText, lastOf, parseNetwork } from '#src/lib/ip.ts';
import { listItems } from '../common/validate.ts';
import type { ManagedNetwork, NetworkConfig, NetworkLease } from '../driver.ts';
import { addressOf, DEFAULT_MTU, isOn, mtuOf } from './config-keys.ts';

export interface DnsmasqFiles {
  readonly pid: string;
  readonly leases: string;
  /** A directory. */
  readonly hosts: string;
  /** raw.dnsmasq. */
  readonly raw: string;
}

export interface DnsmasqAccount {
  readonly user: string;
  readonly group: string;
}

const LEASE_TIME = '1h';

/** Without the program itself; undefined: there is nothing to serve. */
export function dnsmasqArguments(
  { name, config }: Pick<ManagedNetwork, 'name' | 'config'>,
  files: DnsmasqFiles,
  { user, group }: DnsmasqAccount,
): readonly string[] | undefined {
  const own = [addressOf(config, 4), addressOf(config, 6)].map((text) => parseNetwork(text ?? ''));
  const [four, six] = own;
  if (!four && !six) return undefined;
  return [
    '--strict-order',
    '--bind-interfaces',
    '--except-interface=lo',
    `--pid-file=${files.pid}`,
    '--no-ping',
    `--interface=${name}`,
    '--dhcp-rapid-commit',
    '--quiet-dhcp',
    '--quiet-dhcp6',
    '--quiet-ra',
    ...dhcpArguments(config, files),
    ...(four ? fourArguments(four, config) : []),
    ...(six ? sixArguments(six, name, config) : []),
    ...dnsArguments(name, config),
    `--conf-file=${files.raw}`,
    '-u',
    user,
    '-g',
    group,
  ];
}

function dhcpArguments(config: NetworkConfig, { leases, hosts }: DnsmasqFiles): readonly string[] {
  const four = addressOf(config, 4) !== undefined && isOn(config, 'ipv4.dhcp');
  const six = addressOf(config, 6) !== undefined && isOn(config, 'ipv6.dhcp');
  if (!four && !six) return [];
  return ['--dhcp-no-override', '--dhcp-authoritative', `--dhcp-leasefile=${leases}`, `--dhcp-hostsfile=${hosts}`];
}

function fourArguments(own: IpNetwork, config: NetworkConfig): readonly string[] {
  const listen = `--listen-address=${ipText(own.address)}`;
  if (!isOn(config, 'ipv4.dhcp')) return [listen];
  const gateway = config['ipv4.dhcp.gateway'] ?? '';
  const search = listItems(config['dns.search']);
  const mtu = mtuOf(config);
  return [
    listen,
    ...(gateway === '' ? [] : [`--dhcp-option-force=3,${gateway}`]),
    ...(mtu === DEFAULT_MTU ? [] : [`--dhcp-option-force=26,${mtu}`]),
    ...(search.length === 0 ? [] : [`--dhcp-option-force=119,${search.join(',')}`]),
    ...ranges(config['ipv4.dhcp.ranges'], own).flatMap((range) => {
      return ['--dhcp-range', [range, expiry(config, 'ipv4')].join(',')];
    }),
  ];
}

function sixArguments(own: IpNetwork, name: string, config: NetworkConfig): readonly string[] {
  const begin = [`--listen-address=${ipText(own.address)}`, '--enable-ra'];
  if (!isOn(config, 'ipv6.dhcp')) return [...begin, '--dhcp-range', `::,constructor:${name},ra-only`];
  if (!isStateful(config)) return [...begin, '--dhcp-range', `::,constructor:${name},ra-stateless,ra-names`];
  const all = ranges(config['ipv6.dhcp.ranges'], own);
  return [...begin, ...all.flatMap((range) => ['--dhcp-range', [range, own.prefix, expiry(config, 'ipv6')].join(',')])];
}

export function isStateful(config: NetworkConfig): boolean {
  return /^(true|1|yes|on)$/i.test(config['ipv6.dhcp.stateful'] ?? '');
}

function expiry(config: NetworkConfig, family: 'ipv4' | 'ipv6'): string {
  const value = config[`${family}.dhcp.expiry`] ?? '';
  return value === '' ? LEASE_TIME : value;
}

/** "FIRST,LAST" of each range; without ranges the whole network but its ends. */
function ranges(value: string | undefined, own: IpNetwork): readonly string[] {
  const wanted = listItems(value);
  if (wanted.length > 0) return wanted.map((range) => range.replace('-', ','));
  const first = plus(firstOf(own), 2n);
  const last = own.address.family === 4 ? plus(lastOf(own), -1n) : lastOf(own);
  return [`${ipText(first)},${ipText(last)}`];
}

function plus({ family, value }: IpAddress, count: bigint): IpAddress {
  return { family, value: value + count };
}

export function domainOf(config: NetworkConfig): string {
  const domain = config['dns.domain'] ?? '';
  return domain === '' ? 'lxd' : domain;
}

function dnsArguments(name: string, config: NetworkConfig): readonly string[] {
  if (config['dns.mode'] === 'none') return [];
  const domain = domainOf(config);
  return ['-s', domain, '--interface-name', `_gateway.${domain},${name}`, '-S', `/${domain}/`];
}

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

/** Lines "EXPIRY MAC ADDRESS NAME ID"; of DHCPv6 "EXPIRY IAID ADDRESS NAME DUID". Written by a process that we do not trust. */
export function parseLeases(text: string): readonly NetworkLease[] {
  return text.split('\n').flatMap((line) => {
    const [, identity = '', address = '', name = ''] = /^\d+ (\S+) ([0-9a-f.:]+) (\S+)/i.exec(line) ?? [];
    if (address === '') return [];
    const hwaddr = address.includes(':') ? '' : identity.toLowerCase();
    if (hwaddr !== '' && !MAC.test(hwaddr)) return [];
    return [{ hostname: name === '*' ? '' : name, hwaddr, address, type: 'dynamic' as const }];
  });
}
