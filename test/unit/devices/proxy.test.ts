// Proxy devices: what their options may say (LXD 5.0.2's words), and what they become.
import { describe, expect, it } from 'vitest';
import { natLabel, natRemoval, natRules, natTarget } from '#drivers/devices/proxy/nat.ts';
import { parseAddress, validate } from '#drivers/devices/proxy/options.ts';
import { forwardOf } from '#drivers/devices/proxy/proxy.ts';
import { portAddress, proxyHeader, readableAddress, unixAddress } from '#src/host/forwarding/addresses.ts';
import type { PortAddress } from '#src/host/forwarding/messages.ts';

const web = { listen: 'tcp:127.0.0.1:80', connect: 'tcp:127.0.0.1:80' };
const ports = (text: string) => parseAddress(text) as PortAddress;
const owner = {
  project: 'default',
  name: 'c1',
  hostName: 'c1',
  idMap: { uidBase: 100_000, gidBase: 200_000, size: 65_536 },
  devices: {},
};

describe('options of a proxy', () => {
  const tooShort = 'Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties';
  it.each([
    [{ listen: '', connect: web.connect }, 'Invalid value for device option "listen": Unknown protocol type ""'],
    [{ listen: web.listen }, 'Invalid value for device option "connect": Unknown protocol type ""'],
    [{ ...web, listen: 'xx:1.1.1.1:1' }, 'Invalid value for device option "listen": Unknown protocol type "xx"'],
    [{ ...web, listen: 'tcp' }, 'Invalid value for device option "listen": Missing address'],
    [{ ...web, listen: 'unix:' }, 'Invalid value for device option "listen": Missing address'],
    [{ ...web, listen: 'tcp:host:80' }, 'Invalid value for device option "listen": Not an IP address "host"'],
    [
      { ...web, listen: 'tcp:127.0.0.1' },
      'Invalid value for device option "listen": address 127.0.0.1: missing port in address',
    ],
    [
      { ...web, listen: 'tcp:::1:80' },
      'Invalid value for device option "listen": address ::1:80: too many colons in address',
    ],
    [
      { ...web, listen: 'tcp:127.0.0.1:a' },
      'Invalid value for device option "listen": strconv.ParseInt: parsing "a": invalid syntax',
    ],
    [
      { ...web, listen: 'tcp:127.0.0.1:80-70' },
      'Invalid value for device option "listen": End port should be higher than start port',
    ],
    [{ ...web, listen: 'tcp:127.0.0.1:65536' }, 'Invalid port number "65536"'],
    [{ ...web, connect: 'tcp:127.0.0.1:80-90' }, 'Mismatch between listen port(s) and connect port(s) count'],
    [{ ...web, bind: 'foo' }, 'Invalid binding side given. Must be "host" or "instance"'],
    [{ ...web, foo: '1' }, 'Invalid device option "foo"'],
    [{ ...web, mode: '0600' }, tooShort],
    [{ ...web, listen: 'unix:@a', uid: '1' }, tooShort],
    [
      { ...web, listen: 'unix:/a', mode: '09' },
      'Invalid value for device option "mode": Invalid value for an octal file mode',
    ],
    [{ ...web, listen: 'unix:/a', uid: 'x' }, 'Invalid value for device option "uid": Invalid value for a UNIX ID'],
    [
      { ...web, connect: 'udp:1.1.1.1:1', proxy_protocol: 'true' },
      'The PROXY header can only be sent to tcp servers in non-nat mode',
    ],
    [{ ...web, nat: 'true', bind: 'instance' }, 'Only host-bound proxies can use NAT'],
    [{ ...web, nat: 'true', connect: 'udp:1.1.1.1:1' }, 'Proxying tcp <-> udp is not supported when using NAT'],
    [{ ...web, nat: 'true', listen: 'tcp:0.0.0.0:80' }, 'Cannot listen on wildcard address "0.0.0.0" when in nat mode'],
    [{ ...web, nat: 'true', listen: 'tcp:[::1]:80' }, 'Cannot mix IP versions between listen and connect in nat mode'],
  ])('%j: %s', (config, complaint) => {
    expect(() => validate({ type: 'proxy', ...config })).toThrow(complaint);
  });

  it.each([
    web,
    { ...web, listen: 'tcp::80', connect: 'tcp:[::1]:80' },
    { ...web, listen: 'unix:/a', uid: '1', gid: '2', mode: '0600', 'security.uid': '4', 'security.gid': '8' },
    { ...web, bind: 'guest', proxy_protocol: 'true' },
    { ...web, nat: 'true', connect: 'tcp:0.0.0.0:80' },
  ])('%j is fine', (config) => {
    expect(() => validate({ type: 'proxy', ...config })).not.toThrow();
  });

  it('ports are lists of ranges', () => {
    expect(ports('tcp:[::1]:80,90-92')).toEqual({ kind: 'tcp', address: '::1', ports: [80, 90, 91, 92] });
  });
});

describe('a proxy for the forward server', () => {
  it('has the ids of the side on which they count', () => {
    const config = { ...web, listen: 'unix:/run/x', uid: '7', mode: '0600', 'security.gid': '9' };

    const onHost = forwardOf({ owner, device: 'x', config }, 42);
    const inside = forwardOf({ owner, device: 'x', config: { ...config, bind: 'instance' } }, 42);

    expect(onHost).toMatchObject({
      id: 'c1/x',
      initPid: 42,
      listensInside: false,
      socket: { uid: 7, gid: 0, mode: 0o600 },
      connector: { uid: 100_000, gid: 200_009 },
      root: { uid: 100_000, gid: 200_000 },
    });
    expect(inside).toMatchObject({
      listensInside: true,
      socket: { uid: 100_007, gid: 200_000 },
      connector: { uid: 0, gid: 9 },
    });
  });
});

describe('NAT', () => {
  it('goes to an address that a nic of the instance has for sure', () => {
    const devices = {
      eth0: { type: 'nic', nictype: 'bridged', 'ipv4.address': '10.0.0.5' },
      eth1: { type: 'nic', network: 'br1', 'ipv4.address': '10.1.0.5', 'ipv6.address': 'fd00::5' },
    };

    expect(natTarget({ devices }, ports('tcp:0.0.0.0:80')).address).toBe('10.0.0.5');
    expect(natTarget({ devices }, ports('tcp:10.1.0.5:80')).address).toBe('10.1.0.5');
    expect(natTarget({ devices }, ports('tcp:[::]:80')).address).toBe('fd00::5');
    expect(() => natTarget({ devices }, ports('tcp:10.9.9.9:80'))).toThrow(
      'Proxy connect IP cannot be used with any of the instance NICs static IPs',
    );
  });

  it('is rules under the names of the device', () => {
    const rules = natRules('c1.web', ports('tcp:1.2.3.4:80,90'), ports('tcp:10.0.0.5:8080'));

    expect(rules).toContain(
      'add rule inet lxd prert.c1.web ip daddr 1.2.3.4 tcp dport { 80, 90 } dnat ip to 10.0.0.5:8080',
    );
    expect(rules).toContain(
      'add rule inet lxd pstrt.c1.web ip saddr 10.0.0.5 ip daddr 10.0.0.5 tcp dport 8080 masquerade',
    );
    const six = natRules('c1.web', ports('udp:[fd00::1]:80-81'), ports('udp:[fd00::5]:90-91'));
    expect(six).toContain('ip6 daddr fd00::1 udp dport 81 dnat ip6 to [fd00::5]:91');
    const same = natRules('c', ports('tcp:1.1.1.1:80-81'), ports('tcp:2.2.2.2:80-81'));
    expect(same).toContain('tcp dport 80-81 dnat ip to 2.2.2.2\n');
    const one = natRules('c', ports('tcp:1.1.1.1:80'), ports('tcp:2.2.2.2:80'));
    expect(one).toContain('tcp dport 80 dnat ip to 2.2.2.2:80\n');
    const mixed = natRules('c', ports('tcp:1.1.1.1:80,90-92'), ports('tcp:2.2.2.2:8080'));
    expect(mixed).toContain('tcp dport { 80, 90-92 } dnat ip to 2.2.2.2:8080\n');
    expect(natRemoval('c1.web').split('\n')).toContain('delete chain inet lxd prert.c1.web');
  });

  it('has names that the packet filter takes', () => {
    expect(natLabel(owner, 'web')).toBe('c1.web');
    expect(natLabel(owner, 'a:b')).toMatch(/^c1\.a_b\.[0-9a-f]{12}$/u);
    expect(natLabel(owner, 'a:b')).not.toBe(natLabel(owner, 'a_b'));
  });
});

describe('addresses of sockets', () => {
  it.each([
    ['1.2.3.4', '1.2.3.4'],
    ['::1', '::1'],
    ['fd00:1::2:3', 'fd00:1::2:3'],
    ['::ffff:1.2.3.4', '1.2.3.4'],
    ['', '::'],
  ])('%s is read as %s', (address, text) => {
    expect(readableAddress(portAddress(address, 443))).toEqual({ address: text, port: 443 });
  });

  it('the PROXY header has them', () => {
    const [from, to] = [portAddress('::ffff:1.2.3.4', 5), portAddress('5.6.7.8', 80)];

    expect(proxyHeader(from, to).toString()).toBe('PROXY TCP4 1.2.3.4 5.6.7.8 5 80\r\n');
    expect(proxyHeader(unixAddress('/x', false), to).toString()).toBe('PROXY UNKNOWN\r\n');
  });

  it('paths of Unix sockets are limited', () => {
    expect(unixAddress('a', true)).toEqual(Buffer.from([1, 0, 0, 97]));
    expect(() => unixAddress('/'.padEnd(108, 'x'), false)).toThrow('too long');
  });
});
