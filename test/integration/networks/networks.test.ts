// Managed bridge networks on a real host: what is made, what survives the daemon, and what is left after.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { notedPid } from '#drivers/network/bridge/dnsmasq-note.ts';
import { poll } from '#src/lib/wait.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const ip = async (...args: string[]) => JSON.parse((await run('ip', ['-j', ...args])).stdout || '[]');
// without counters: the rules of others on this machine count on
const nft = async () => (await run('nft', ['--stateless', 'list', 'ruleset'])).stdout;
const exists = (name: string) => existsSync(`/sys/class/net/${name}`);

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip', 'nft', 'dnsmasq'] }, 'managed networks', () => {
  let daemon: TestDaemon;
  const made = new Set<string>();

  beforeAll(async () => {
    daemon = await TestDaemon.start();
  });

  afterAll(async () => {
    for (const name of made) await daemon.call('DELETE', `/1.0/networks/${name}`);
    await daemon[Symbol.asyncDispose]();
  });

  async function create(name: string, config: Record<string, string> = {}) {
    made.add(name);
    return daemon.call('POST', '/1.0/networks', { name, config });
  }

  const get = async (name: string) => (await daemon.call('GET', `/1.0/networks/${name}`)).metadata;
  const pidOf = (name: string) => notedPid(readFileSync(join(daemon.root, 'networks', name, 'dnsmasq.pid'), 'utf8'));
  const argsOf = (name: string) =>
    readFileSync(`/proc/${pidOf(name)}/cmdline`, 'utf8')
      .split('\0')
      .slice(0, -1);
  const global = async (name: string) => {
    const [link] = await ip('address', 'show', 'dev', name);
    const all = link.addr_info as { local: string; prefixlen: number; scope: string }[];
    return all.filter(({ scope }) => scope === 'global').map(({ local, prefixlen }) => `${local}/${prefixlen}`);
  };

  it('makes a bridge with addresses that it chose, NAT, DHCP and DNS, and removes all of it', async () => {
    const created = await create('ltnet0');
    const network = await get('ltnet0');
    const { config } = network;

    expect(created).toMatchObject({ status: 201, headers: { location: '/1.0/networks/ltnet0' } });
    expect(network).toMatchObject({
      type: 'bridge',
      managed: true,
      status: 'Created',
      used_by: [],
      locations: ['none'],
    });
    expect(config).toEqual({
      'ipv4.address': expect.stringMatching(/^10\.\d+\.\d+\.1\/24$/u),
      'ipv4.nat': 'true',
      'ipv6.address': expect.stringMatching(/^fd42:[0-9a-f:]+::1\/64$/u),
      'ipv6.nat': 'true',
    });
    expect(await global('ltnet0')).toEqual([config['ipv4.address'], config['ipv6.address']]);
    const [link] = await ip('-d', 'link', 'show', 'dev', 'ltnet0');
    expect(link).toMatchObject({ mtu: 1500, address: expect.stringMatching(/^00:16:3e/u) });
    expect(readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8').trim()).toBe('1');
    expect(readFileSync('/proc/sys/net/ipv6/conf/all/forwarding', 'utf8').trim()).toBe('1');
    const rules = await nft();
    expect(rules).toMatch(/chain pstrt\.ltnet0 \{\n.*\n.*ip saddr 10\.\d+\.\d+\.0\/24 ip daddr != .* masquerade/u);
    expect(rules).toContain('ip version 4 oifname "ltnet0" accept');
    expect(rules).toContain('iifname "ltnet0" udp dport 67 accept');
    expect(readFileSync(`/proc/${pidOf('ltnet0')}/status`, 'utf8')).toMatch(/^Uid:\s+65534\b/mu);
    const note = readFileSync(join(daemon.root, 'networks/ltnet0/dnsmasq.pid'), 'utf8');
    expect(note).toMatch(new RegExp(`^name: dnsmasq\\n[^]*^pid: ${pidOf('ltnet0')}$`, 'mu'));
    expect(argsOf('ltnet0')).toContain(
      `${(config['ipv4.address'] as string).replace('.1/24', '')}.2,${(config['ipv4.address'] as string).replace('.1/24', '')}.254,1h`,
    );

    const deleted = await daemon.call('DELETE', '/1.0/networks/ltnet0');

    expect(deleted.error).toBe('');
    expect(exists('ltnet0')).toBe(false);
    expect(await nft()).not.toContain('ltnet0');
    expect(existsSync(join(daemon.root, 'networks/ltnet0'))).toBe(false);
    expect((await daemon.call('GET', '/1.0/networks')).metadata).not.toContain('/1.0/networks/ltnet0');
  });

  it('changes what differs and nothing else', async () => {
    await create('ltnet1', { 'ipv4.address': '10.171.1.1/24', 'ipv6.address': 'none' });
    const first = pidOf('ltnet1');
    const patch = (config: object) => daemon.call('PATCH', '/1.0/networks/ltnet1', { config });

    const described = await patch({ 'user.note': 'hello', 'ipv4.routes': '10.99.0.0/24' });
    const sameServer = pidOf('ltnet1');
    const routes = await ip('route', 'show', 'dev', 'ltnet1');
    const changed = await patch({
      'ipv4.address': '10.171.2.1/24',
      'ipv4.nat': 'true',
      'ipv4.nat.address': '192.0.2.1',
      'ipv4.routes': '',
      'ipv6.address': 'fd42:171::1/64',
      'ipv6.dhcp.stateful': 'true',
      'bridge.mtu': '1400',
      'dns.domain': 'test.lan',
      'raw.dnsmasq': 'txt-record=hello.test.lan,world',
    });

    expect([described.error, changed.error]).toEqual(['', '']);
    expect(sameServer).toBe(first);
    expect(routes.map(({ dst }: { dst: string }) => dst)).toContain('10.99.0.0/24');
    const after = await ip('route', 'show', 'dev', 'ltnet1');
    expect(after.map(({ dst }: { dst: string }) => dst)).toEqual(['10.171.2.0/24']);
    expect(await global('ltnet1')).toEqual(['10.171.2.1/24', 'fd42:171::1/64']);
    expect(await nft()).toContain('ip saddr 10.171.2.0/24 ip daddr != 10.171.2.0/24 snat ip to 192.0.2.1');
    expect(pidOf('ltnet1')).not.toBe(first);
    expect(argsOf('ltnet1')).toEqual(
      expect.arrayContaining([
        '--dhcp-option-force=26,1400',
        'fd42:171::2,fd42:171::ffff:ffff:ffff:ffff,64,1h',
        '-S',
        '/test.lan/',
      ]),
    );
    expect((await ip('link', 'show', 'dev', 'ltnet1'))[0].mtu).toBe(1400);
    expect((await get('ltnet1')).config).not.toHaveProperty('ipv4.routes');
  });

  it('is as before after a change that fails, and after a creation that fails nothing is there', async () => {
    await create('ltnet2', { 'ipv4.address': '10.171.3.1/24', 'ipv6.address': 'none' });
    const before = await get('ltnet2');

    const bad = await daemon.call('PATCH', '/1.0/networks/ltnet2', {
      config: { 'raw.dnsmasq': 'no-such-option', 'ipv4.address': '10.171.4.1/24' },
    });
    const unmade = await create('ltnet3', { 'raw.dnsmasq': 'no-such-option' });

    expect(bad.error).toMatch(/^The DNS and DHCP service exited prematurely: .*bad option at line 1/u);
    expect(unmade.error).toMatch(/^The DNS and DHCP service exited prematurely/u);
    expect(await get('ltnet2')).toEqual(before);
    expect(await global('ltnet2')).toEqual(['10.171.3.1/24']);
    expect(argsOf('ltnet2')).toContain('10.171.3.2,10.171.3.254,1h');
    expect(exists('ltnet3')).toBe(false);
    expect(await nft()).not.toContain('ltnet3');
    expect(await get('ltnet3')).toBe(null);
  });

  it('joins external interfaces, gives them back, and refuses configured ones', async () => {
    await run('ip', ['link', 'add', 'ltext0', 'type', 'veth', 'peer', 'name', 'ltext1']);
    await create('ltnet4', { 'ipv4.address': 'none', 'ipv6.address': 'none' });
    const set = (value: string) =>
      daemon.call('PATCH', '/1.0/networks/ltnet4', { config: { 'bridge.external_interfaces': value } });

    await set('ltext0');
    const joined = (await ip('link', 'show', 'dev', 'ltext0'))[0].master;
    await set('');
    const left = (await ip('link', 'show', 'dev', 'ltext0'))[0].master;
    await run('ip', ['address', 'add', '10.171.5.1/24', 'dev', 'ltext0']);
    const refused = await set('ltext0');

    expect([joined, left]).toEqual(['ltnet4', undefined]);
    expect(refused).toMatchObject({ status: 500, error: 'Only unconfigured network interfaces can be bridged' });
    await run('ip', ['link', 'delete', 'ltext0']);
  });

  it('makes tunnels and takes them along', async () => {
    await create('ltnet5', {
      'ipv4.address': 'none',
      'ipv6.address': 'none',
      'tunnel.a.protocol': 'vxlan',
      'tunnel.a.local': '127.0.0.1',
      'tunnel.a.remote': '127.0.0.2',
      'tunnel.a.id': '7',
    });
    const [tunnel] = await ip('-d', 'link', 'show', 'dev', 'ltnet5-a');

    expect(tunnel).toMatchObject({
      master: 'ltnet5',
      mtu: 1400,
      linkinfo: { info_kind: 'vxlan', info_data: { id: 7 } },
    });
    await daemon.call('DELETE', '/1.0/networks/ltnet5');
    expect(exists('ltnet5-a')).toBe(false);
  });

  it('survives the daemon, which finds everything as it was', async () => {
    await create('ltnet6', { 'ipv4.address': '10.171.6.1/24', 'ipv6.address': 'none', 'ipv4.routes': '10.98.0.0/24' });
    const pid = pidOf('ltnet6');
    const [link] = await ip('link', 'show', 'dev', 'ltnet6');
    const rules = await nft();

    await daemon.kill();
    await daemon.boot();

    expect(pidOf('ltnet6')).toBe(pid);
    expect(argsOf('ltnet6').length).toBeGreaterThan(10);
    expect((await ip('link', 'show', 'dev', 'ltnet6'))[0].ifindex).toBe(link.ifindex);
    expect((await nft()).split('\n').sort()).toEqual(rules.split('\n').sort());
    expect((await get('ltnet6')).status).toBe('Created');
  });

  it('heals what was broken while the daemon was away', async () => {
    await create('ltnet7', { 'ipv4.address': '10.171.7.1/24', 'ipv6.address': 'none', 'ipv4.routes': '10.97.0.0/24' });
    await daemon.kill();
    process.kill(pidOf('ltnet7'), 'SIGKILL');
    await run('ip', ['link', 'delete', 'ltnet7']);
    await run('nft', ['delete', 'table', 'inet', 'lxd']);

    await daemon.boot();

    expect(await global('ltnet7')).toEqual(['10.171.7.1/24']);
    expect(argsOf('ltnet7')).toContain('--interface=ltnet7');
    expect(await nft()).toContain('chain fwd.ltnet7');
  });

  it('renames a network that nobody uses', async () => {
    await create('ltnet8', { 'ipv4.address': '10.171.8.1/24', 'ipv6.address': 'none' });
    made.add('ltnet9');

    const taken = await daemon.call('POST', '/1.0/networks/ltnet8', { name: 'ltnet7' });
    const renamed = await daemon.call('POST', '/1.0/networks/ltnet8', { name: 'ltnet9' });

    expect(taken).toMatchObject({ status: 409, error: 'Network "ltnet7" already exists' });
    expect(renamed).toMatchObject({ status: 201, headers: { location: '/1.0/networks/ltnet9' } });
    expect([exists('ltnet8'), exists('ltnet9')]).toEqual([false, true]);
    expect(argsOf('ltnet9')).toContain('--interface=ltnet9');
    expect(await nft()).not.toContain('ltnet8');
  });

  it('is refused with the words of LXD', async () => {
    const post = async (body: object) => {
      const { status, error } = await daemon.call('POST', '/1.0/networks', body);
      return `${status} ${error}`;
    };
    const config = (settings: object) => post({ name: 'ltx', config: settings });

    expect(await post({})).toBe('400 No name provided');
    expect(await post({ name: 'a b' })).toBe('400 Network interface contains invalid characters');
    expect(await post({ name: 'lo' })).toBe('500 Network interface "lo" already exists');
    expect(await post({ name: 'ltnet7' })).toBe('400 The network already exists');
    expect(await post({ name: 'ltx', type: 'nope' })).toBe('400 Unknown driver');
    expect(await post({ name: 'ltx', type: 'ovn' })).toBe(
      '501 Networks of type "ovn" are not supported by this server',
    );
    expect(await config({ nope: '1' })).toBe('500 Invalid option for network "ltx" option "nope"');
    expect(await config({ 'ipv4.address': '10.0.0.0/24' })).toBe(
      '500 Invalid value for network "ltx" option "ipv4.address": Not a usable IPv4 address "10.0.0.0/24"',
    );
    expect(await config({ 'bridge.driver': 'openvswitch' })).toMatch(/^50[01] .*Open ?vSwitch/iu);
    expect(await config({ 'security.acls': 'foo' })).toBe('500 Network ACL "foo" does not exist');
    const patched = await daemon.call('PATCH', '/1.0/networks/ltnet7', { config: { 'ipv4.addresss': 'b' } });
    expect(patched).toMatchObject({ status: 400, error: 'Invalid option for network "ltnet7" option "ipv4.addresss"' });
    const stale = await daemon.call('PATCH', '/1.0/networks/ltnet7', { config: {} }, { 'if-match': 'x' });
    expect(stale.status).toBe(412);
    expect(exists('ltx')).toBe(false);
  });

  it('belongs to the default project, which others share unless they have their own', async () => {
    const project = (name: string, config: object) => daemon.call('POST', '/1.0/projects', { name, config });
    await project('own', { 'features.networks': 'true' });
    await project('shared', { 'features.networks': 'false' });
    const list = async (name: string) =>
      (await daemon.call('GET', `/1.0/networks?project=${name}`)).metadata as string[];

    expect(await list('own')).toEqual([]);
    expect(await list('shared')).toContain('/1.0/networks/ltnet7');
    const refused = await daemon.call('POST', '/1.0/networks?project=own', { name: 'ltx', type: 'bridge' });
    expect(refused.error).toBe('Network type does not support non-default projects');
    await daemon.call('PATCH', '/1.0/projects/default', { config: { 'limits.networks': '1' } });
    const limited = await daemon.call('POST', '/1.0/networks', { name: 'ltx' });
    expect(limited).toMatchObject({ status: 400, error: 'Networks limit has been reached for project' });
    await daemon.call('PATCH', '/1.0/projects/default', { config: { 'limits.networks': '' } });
  });

  it('is a warning, not a failure, when it cannot be brought up at the start', async () => {
    await create('ltneta', { 'ipv4.address': '10.171.10.1/24', 'ipv6.address': 'none' });
    await daemon.kill();
    process.kill(pidOf('ltneta'), 'SIGKILL');
    await run('ip', ['link', 'delete', 'ltneta']);
    await run('ip', ['link', 'add', 'ltneta', 'type', 'veth', 'peer', 'name', 'ltnetb']);

    await daemon.boot();

    expect((await get('ltneta')).status).toBe('Unavailable');
    const warnings = (await daemon.call('GET', '/1.0/warnings?recursion=1')).metadata;
    expect(warnings).toContainEqual(
      expect.objectContaining({ type: 'Network unavailable', entity_url: '/1.0/networks/ltneta', severity: 'high' }),
    );
    await run('ip', ['link', 'delete', 'ltneta']);
    const mended = await daemon.call('PATCH', '/1.0/networks/ltneta', { config: { 'ipv4.routes': '10.96.0.0/24' } });
    expect(mended.error).toBe('');
    const status = async () => ((await get('ltneta')).status === 'Created' ? true : undefined);
    await poll(status, 50, AbortSignal.timeout(5000));
  });
});
