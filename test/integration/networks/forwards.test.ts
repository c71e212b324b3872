// Addresses that are forwarded into a managed network, and firewalls that are in its way.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { StockClient } from '../engine/stock-client.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const NETWORK = 'ltfwd0';
const LISTEN = '192.0.2.9';

const commands = ['lxc', 'lxc-start', 'busybox', 'ip', 'nft', 'dnsmasq'];

describeWith({ root: true, commands }, 'forwards of managed networks', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await run('ip', ['address', 'add', `${LISTEN}/32`, 'dev', 'lo']);
    await client.run('network', 'create', NETWORK, 'ipv4.address=10.174.1.1/24', 'ipv6.address=none');
  });

  afterAll(async () => {
    await run('ip', ['address', 'delete', `${LISTEN}/32`, 'dev', 'lo']);
    const { metadata } = await daemon.call('GET', '/1.0/instances?recursion=1');
    for (const { name } of metadata as { name: string }[]) {
      await daemon.operate('PUT', `/1.0/instances/${name}/state`, { action: 'stop', force: true });
      await daemon.operate('DELETE', `/1.0/instances/${name}`);
    }
    await daemon.call('DELETE', `/1.0/networks/${NETWORK}`);
    await daemon[Symbol.asyncDispose]();
  });

  const url = `/1.0/networks/${NETWORK}/forwards`;

  it("lead to the instance that they name, over the daemon's end, and no longer when they are gone", async () => {
    const device = { type: 'nic', network: NETWORK, 'ipv4.address': '10.174.1.20' };
    await daemon.launch('server', { devices: { eth0: device } });
    const answering = client.spawn('exec', 'server', '--', 'sh', '-c', 'while :; do echo hello | nc -l -p 8080; done');
    const read = () =>
      run('busybox', ['nc', '-w', '2', LISTEN, '80'], { timeout: 4000 }).then(
        ({ stdout }) => stdout,
        () => '',
      );
    const heard = async () => ((await read()) === 'hello\n' ? true : undefined);

    await client.run('network', 'forward', 'create', NETWORK, LISTEN);
    await client.run('network', 'forward', 'port', 'add', NETWORK, LISTEN, 'tcp', '80', '10.174.1.20', '8080');
    await poll(heard, 200, AbortSignal.timeout(30_000));
    await daemon.kill();
    const alone = await poll(heard, 200, AbortSignal.timeout(10_000));
    await daemon.boot();
    const shown = await client.run('network', 'forward', 'show', NETWORK, LISTEN);
    await client.run('network', 'forward', 'delete', NETWORK, LISTEN);
    const after = await read();
    answering.kill();

    expect(alone).toBe(true);
    expect(shown).toContain('listen_port: "80"');
    expect(shown).toContain('target_address: 10.174.1.20');
    expect(after).toBe('');
    expect((await run('nft', ['list', 'ruleset'])).stdout).not.toContain(LISTEN);
  });

  it('are shown, changed and refused with the words of LXD', async () => {
    const post = async (body: object) => {
      const { status, error } = await daemon.call('POST', url, body);
      return `${status} ${error}`;
    };
    const port = { protocol: 'tcp', listen_port: '80,90-92', target_port: '8080', target_address: '10.174.1.6' };
    const made = await daemon.call('POST', url, { listen_address: LISTEN, ports: [port] });
    const one = await daemon.call('GET', `${url}/${LISTEN}`);

    expect(made).toMatchObject({ status: 201, headers: { location: `${url}/${LISTEN}` } });
    expect(one.metadata).toEqual({
      description: '',
      config: {},
      ports: [{ description: '', ...port }],
      listen_address: LISTEN,
      location: 'none',
    });
    expect((await daemon.call('GET', url)).metadata).toEqual([`${url}/${LISTEN}`]);
    const patched = await daemon.call('PATCH', `${url}/${LISTEN}`, { config: { target_address: '10.174.1.7' } });
    expect(patched.error).toBe('');
    expect((await daemon.call('GET', `${url}/${LISTEN}`)).metadata.ports).toHaveLength(1);
    expect((await daemon.call('PUT', `${url}/${LISTEN}`, {}, { 'if-match': 'x' })).status).toBe(412);
    const begin = 'Failed creating forward:';
    expect(await post({ listen_address: LISTEN })).toBe(
      `409 ${begin} A forward for that listen address already exists`,
    );
    expect(await post({})).toBe(
      `500 ${begin} Failed parsing address forward listen address "": invalid CIDR address: /32`,
    );
    const ports = (ports: object[]) => post({ listen_address: '192.0.2.10', ports });
    expect(await ports([{ ...port, protocol: 'foo' }])).toBe(
      `500 ${begin} Invalid port protocol in port specification 0, protocol must be one of: tcp, udp`,
    );
    expect(await ports([{ ...port, listen_port: 'foo' }])).toBe(
      `500 ${begin} Invalid listen port in port specification 0: strconv.ParseInt: parsing "foo": invalid syntax`,
    );
    expect(await ports([{ ...port, listen_port: '1-4', target_port: '5-6' }])).toBe(
      `500 ${begin} Mismatch of listen port(s) and target port(s) count in port specification 0`,
    );
    expect(await ports([port, { ...port, listen_port: '91' }])).toBe(
      `500 ${begin} Duplicate listen port 91 for protocol "tcp" in port specification 1`,
    );
    expect(await post({ listen_address: '192.0.2.10', config: { target_address: '10.78.0.5' } })).toBe(
      `500 ${begin} Default target address is not within the network subnet`,
    );
    expect((await daemon.call('GET', `${url}/192.0.2.8`)).error).toBe('Network forward not found');
    expect((await daemon.call('DELETE', `${url}/192.0.2.8`)).error).toBe(
      'Failed deleting forward: Network forward not found',
    );
    await daemon.call('DELETE', `${url}/${LISTEN}`);
  });

  it('cannot pass a firewall that drops what is forwarded: a warning says how to let it through', async () => {
    const touch = (note: string) => daemon.call('PATCH', `/1.0/networks/${NETWORK}`, { config: { 'user.note': note } });
    const warnings = async () => {
      const all = (await daemon.call('GET', '/1.0/warnings?recursion=1')).metadata as Record<string, string>[];
      return all.filter(({ type }) => type === 'Forwarded traffic is dropped').map(({ status }) => status);
    };
    const nft = (script: string) => run('nft', [script]);
    await nft('add table ip filter');
    await nft('add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }');
    await touch('dropped');
    const raised = await warnings();
    await nft(`add rule ip filter FORWARD iifname "${NETWORK}" accept`);
    await touch('accepted');
    const resolved = await warnings();
    await nft('delete table ip filter');

    expect(raised).toEqual(['new']);
    expect(resolved).toEqual(['resolved']);
  });
});
