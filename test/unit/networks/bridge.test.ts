// What a bridge network is asked for, as text: rules of the firewall, arguments of dnsmasq, its leases.
import { expect, it } from 'vitest';
import { validateBridge } from '#drivers/network/bridge/config-keys.ts';
import { dnsmasqArguments, parseLeases } from '#drivers/network/bridge/dnsmasq-arguments.ts';
import { dnsmasqNote, notedPid } from '#drivers/network/bridge/dnsmasq-note.ts';
import { emptyFirewallScript, firewallScript } from '#drivers/network/bridge/firewall.ts';
import { dropsForwarding } from '#drivers/network/bridge/forwarding-policy.ts';
import type { NetworkForward } from '#drivers/network/driver.ts';

const files = { pid: '/n/pid', leases: '/n/leases', hosts: '/n/hosts', raw: '/n/raw' };
const account = { user: 'nobody', group: 'nogroup' };
const argumentsOf = (config: Record<string, string>) => dnsmasqArguments({ name: 'br0', config }, files, account);
const rulesOf = (config: Record<string, string>, forwards: readonly NetworkForward[] = []) =>
  firewallScript({ name: 'br0', config, hwaddr: '', forwards }).split('\n');

const complaint = (config: Record<string, string>): string => {
  try {
    validateBridge('br0', config);
    return '';
  } catch (error) {
    return (error as Error).message;
  }
};

it('serves nothing without an address', () => {
  expect(argumentsOf({ 'ipv4.address': 'none', 'ipv6.address': 'none' })).toBeUndefined();
});

it('notes its dnsmasq as LXD does, and reads what dnsmasq notes itself', () => {
  const note = dnsmasqNote(77, ['--dhcp-range', '10.1.0.2,10.1.0.9', '-u']);

  expect(note.split('\n')).toEqual(expect.arrayContaining(['name: dnsmasq', 'pid: 77']));
  expect([note, '78\n', '', 'pid: no\n'].map(notedPid)).toEqual([77, 78, 0, 0]);
});

it('serves DNS alone where DHCP is off', () => {
  const args = argumentsOf({ 'ipv4.address': '10.1.0.1/24', 'ipv4.dhcp': 'false' });

  expect(args?.some((arg) => arg.startsWith('--dhcp-leasefile'))).toBe(false);
  expect(args).toEqual(expect.arrayContaining(['--listen-address=10.1.0.1', '-s', 'lxd', '-S', '/lxd/']));
});

it('gives out the whole network, or the ranges that are named, for the time that is named', () => {
  const all = argumentsOf({ 'ipv4.address': '10.1.0.1/23', 'ipv6.address': 'fd00::1/64' });
  const some = argumentsOf({
    'ipv4.address': '10.1.0.1/24',
    'ipv4.dhcp.ranges': '10.1.0.5-10.1.0.6, 10.1.0.9-10.1.0.9',
    'ipv4.dhcp.expiry': '2h',
    'ipv4.dhcp.gateway': '10.1.0.254',
    'dns.mode': 'none',
  });

  expect(all).toEqual(expect.arrayContaining(['10.1.0.2,10.1.1.254,1h', '::,constructor:br0,ra-stateless,ra-names']));
  expect(some).toEqual(
    expect.arrayContaining(['10.1.0.5,10.1.0.6,2h', '10.1.0.9,10.1.0.9,2h', '--dhcp-option-force=3,10.1.0.254']),
  );
  expect(some).not.toContain('-s');
});

it('reads leases, and nothing else that may stand in their file', () => {
  const text = [
    '1700000000 00:16:3E:aa:bb:cc 10.1.0.7 c1 ff:12',
    'duid 00:01:00:01',
    '1700000000 123 fd00::7 * 00:04:aa',
    '1700000000 zz 10.1.0.8 c2 *',
    'x'.repeat(100),
  ].join('\n');

  expect(parseLeases(text)).toEqual([
    { hostname: 'c1', hwaddr: '00:16:3e:aa:bb:cc', address: '10.1.0.7', type: 'dynamic' },
    { hostname: '', hwaddr: '', address: 'fd00::7', type: 'dynamic' },
  ]);
});

it('empties every chain before it fills some, and leaves no empty one', () => {
  const rules = rulesOf({ 'ipv4.address': '10.1.0.1/24', 'ipv4.nat': 'true', 'ipv4.routing': 'false' });

  expect(rules).toContain('add rule inet lxd pstrt.br0 ip saddr 10.1.0.0/24 ip daddr != 10.1.0.0/24 masquerade');
  expect(rules).toContain('add rule inet lxd fwd.br0 ip version 4 iifname "br0" reject');
  expect(rules).toContain('delete chain inet lxd fwdprert.br0');
  expect(rules.join('\n')).not.toContain('ip6 version');
  const flushed = emptyFirewallScript('br0').split('\n');
  expect(flushed.filter((line) => line.startsWith('delete chain'))).toHaveLength(7);
});

it('forwards ports one by one, many to one, and the rest', () => {
  const port = { description: '', protocol: 'tcp' as const, targetAddress: '10.1.0.9' };
  const forward = {
    listenAddress: '192.0.2.1',
    description: '',
    config: { target_address: '10.1.0.5' },
    ports: [
      { ...port, listenPort: '80,90-91', targetPort: '' },
      { ...port, listenPort: '1000-1001', targetPort: '2000-2001' },
      { ...port, listenPort: '3000-3001', targetPort: '4000' },
    ],
  };

  const rules = rulesOf({ 'ipv4.address': '10.1.0.1/24' }, [forward]);

  const begin = 'add rule inet lxd fwdprert.br0 ip daddr 192.0.2.1';
  expect(rules.filter((rule) => rule.startsWith(begin))).toEqual([
    `${begin} tcp dport 80 dnat ip to 10.1.0.9`,
    `${begin} tcp dport 90-91 dnat ip to 10.1.0.9`,
    `${begin} tcp dport 1000 dnat ip to 10.1.0.9:2000`,
    `${begin} tcp dport 1001 dnat ip to 10.1.0.9:2001`,
    `${begin} tcp dport 3000-3001 dnat ip to 10.1.0.9:4000`,
    `${begin} dnat ip to 10.1.0.5`,
  ]);
});

it.each([
  [{ 'ipv4.address': '10.0.0.1' }, 'ipv4.address": invalid CIDR address: 10.0.0.1'],
  [{ 'ipv4.address': 'fd00::1/64' }, 'Not an IPv4 address "fd00::1/64"'],
  [{ 'ipv4.routes': 'foo' }, 'Item "foo": invalid CIDR address: foo'],
  [{ 'ipv6.routes': '10.0.0.0/8' }, 'Item "10.0.0.0/8": Not an IPv6 network "10.0.0.0/8"'],
  [{ 'ipv4.dhcp.ranges': '10.0.0.1' }, 'Item "10.0.0.1": IP range must contain start and end IP addresses'],
  [{ 'bridge.mtu': '500' }, 'Out of MTU range (1280-16384) "500"'],
  [{ 'bridge.external_interfaces': 'no such' }, 'Invalid interface name "no such"'],
  [{ 'tunnel.a.foo': '1' }, 'Invalid option for network "br0" option "tunnel.a.foo"'],
  [{ 'tunnel.abcdefghijklmnop.id': '4' }, 'Network name too long for tunnel interface: br0-abcdefghijklmnop'],
  [{ 'dns.mode': 'foo' }, 'Invalid value "foo" (not one of [dynamic managed none])'],
  [{ 'ipv4.dhcp.expiry': '1h,set:x' }, 'Invalid DHCP lease time "1h,set:x"'],
  [{ 'dns.domain': 'a/8.8.8.8' }, 'Invalid domain name'],
  [{ 'fan.overlay_subnet': '240.0.0.0/8' }, "FAN configuration may only be set when in 'fan' mode"],
])('refuses %j', (config, words) => {
  expect(complaint(config as Record<string, string>)).toContain(words);
});

it('knows a firewall that drops what is forwarded, unless a rule names the bridge', () => {
  const table = (policy: string, rules: readonly object[] = []) =>
    JSON.stringify({
      nftables: [
        { chain: { family: 'ip', table: 'filter', name: 'FORWARD', hook: 'forward', policy } },
        ...rules.map((rule) => ({ rule })),
      ],
    });
  const letsIn = { chain: 'DOCKER-USER', expr: [{ match: { right: 'br0' } }, { accept: null }] };

  expect(dropsForwarding(table('accept'), 'br0')).toBe(false);
  expect(dropsForwarding(table('drop'), 'br0')).toBe(true);
  expect(dropsForwarding(table('drop', [letsIn]), 'br0')).toBe(false);
  expect(dropsForwarding(table('drop', [letsIn]), 'br1')).toBe(true);
});
