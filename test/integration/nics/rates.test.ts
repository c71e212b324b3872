// Rates of nics, measured: bytes of a real connection between host and container, both ways, before, under and after a limit.
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const HOST_END = 'ltrate0';
const HOST_IP = '10.97.0.1';
const MEGABYTE = 1e6;

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip', 'nft'] }, 'rates of nics', () => {
  let daemon: TestDaemon;
  let pid: number;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    await daemon.launch('rated', { devices: { eth0: device({ 'limits.max': '16Mbit' }) } });
    await daemon.ready('rated');
    pid = (await daemon.state('rated')).pid;
    await run('ip', ['address', 'add', `${HOST_IP}/24`, 'dev', HOST_END]);
    await inside('ip', 'address', 'add', '10.97.0.2/24', 'dev', 'eth0');
  });

  afterAll(() => daemon[Symbol.asyncDispose]());

  const inside = (...argv: string[]) => run('nsenter', ['-t', String(pid), '-n', ...argv]);

  function device(options: Record<string, string>): Record<string, string> {
    return { type: 'nic', nictype: 'p2p', name: 'eth0', host_name: HOST_END, ...options };
  }

  async function set(options: Record<string, string>): Promise<void> {
    const before = (await daemon.call('GET', '/1.0/instances/rated')).metadata;
    const body = { ...before, devices: { ...before.devices, eth0: device(options) } };
    await daemon.operate('PUT', '/1.0/instances/rated', body);
  }

  /** Bytes per second of a transfer of `bytes`, from its connection to its end. */
  async function rate(direction: 'egress' | 'ingress', bytes: number): Promise<number> {
    const server = createServer();
    server.listen(0, HOST_IP);
    await once(server, 'listening');
    const port = String((server.address() as AddressInfo).port);
    const nc = `busybox nc -w 20 ${HOST_IP} ${port}`;
    const script = direction === 'egress' ? `head -c ${bytes} /dev/zero | ${nc}` : `${nc} </dev/null | wc -c`;
    const client = inside('sh', '-c', script);
    const [socket] = await once(server, 'connection');
    const since = performance.now();
    let seen = 0;
    socket.on('data', (chunk: Buffer) => {
      seen += chunk.length;
    });
    if (direction === 'ingress') socket.end(Buffer.alloc(bytes));
    await (direction === 'egress' ? once(socket, 'end') : client);
    const seconds = (performance.now() - since) / 1000;
    const { stdout } = await client;
    server.close();
    expect(direction === 'egress' ? seen : Number(stdout)).toBe(bytes);
    return bytes / seconds;
  }

  const classes = async () => (await run('tc', ['class', 'show', 'dev', HOST_END])).stdout;
  const chains = async () => (await run('nft', ['list', 'table', 'netdev', 'lxd'])).stdout;

  it('holds what a container receives to limits.max, and what it sends after a first second', async () => {
    const ingress = await rate('ingress', 4 * MEGABYTE);
    const egress = await rate('egress', 8 * MEGABYTE);

    expect(ingress).toBeGreaterThan(1.2 * MEGABYTE);
    expect(ingress).toBeLessThan(2.2 * MEGABYTE);
    expect(egress).toBeGreaterThan(0.8 * MEGABYTE);
    expect(egress).toBeLessThan(3.2 * MEGABYTE);
    expect(await classes()).toContain('rate 16Mbit');
  });

  it('takes other limits at once, each way its own, and none', async () => {
    const hostName = async () => (await daemon.state('rated')).network.eth0.host_name;
    const before = await hostName();
    await set({ 'limits.ingress': '32Mbit' });

    expect(await rate('ingress', 4 * MEGABYTE)).toBeLessThan(4.4 * MEGABYTE);
    expect(await rate('egress', 20 * MEGABYTE)).toBeGreaterThan(5 * MEGABYTE);
    expect(await chains()).not.toContain('chain');

    await set({ 'limits.egress': '16Mbit' });
    expect(await rate('ingress', 20 * MEGABYTE)).toBeGreaterThan(5 * MEGABYTE);
    expect(await rate('egress', 8 * MEGABYTE)).toBeLessThan(3.2 * MEGABYTE);
    expect(await classes()).toBe('');
    expect(await hostName()).toBe(before);
  });

  it('has the MTU and the queue that it is given, at both ends', async () => {
    await daemon.launch('queued', {
      devices: { eth0: device({ host_name: 'ltqueue0', mtu: '1400', 'queue.tx.length': '77', 'boot.priority': '3' }) },
    });
    const { pid: queued } = await daemon.state('queued');
    const ends = [
      await run('ip', ['-j', 'link', 'show', 'dev', 'ltqueue0']),
      await run('nsenter', ['-t', String(queued), '-n', 'ip', '-j', 'link', 'show', 'dev', 'eth0']),
    ];

    for (const { stdout } of ends) expect(JSON.parse(stdout)[0]).toMatchObject({ mtu: 1400, txqlen: 77 });
    const bad = { type: 'nic', nictype: 'p2p', 'queue.tx.length': 'long' };
    const answer = await daemon.call('PATCH', '/1.0/instances/queued', { devices: { eth1: bad } });
    expect(answer.error).toContain(
      'Invalid value for device option "queue.tx.length": Invalid value for uint32 "long"',
    );
  });

  it('takes limits.network.priority where there is a control group for it, and warns where there is none', async () => {
    const config = { 'limits.network.priority': '7' };
    await daemon.launch('prior', { config });
    const file = '/sys/fs/cgroup/net_prio/lxc.payload.prior/net_prio.ifpriomap';
    const hasGroup = await readFile('/proc/self/mountinfo', 'utf8').then((table) => /,net_prio(,|\n)/.test(table));

    if (!hasGroup) {
      expect(await daemon.log()).toContain('this host cannot hold to limits');
      return;
    }
    expect(await readFile(file, 'utf8')).toContain('lo 7');
    await daemon
      .operate('PATCH', '/1.0/instances/prior', { config: { 'limits.network.priority': '2' } })
      .catch(() => 0);
    expect(await readFile(file, 'utf8')).toContain('lo 2');
  });

  it('refuses what is no rate, and leaves nothing behind', async () => {
    const refused = set({ 'limits.ingress': 'fast' });

    await expect(refused).rejects.toThrow('Invalid value for device option "limits.ingress": Invalid value: fast');
    expect(await chains()).toContain('chain limit.rated.eth0');
    await daemon.operate('PUT', '/1.0/instances/rated/state', { action: 'stop', force: true });
    expect(await chains()).not.toContain('chain');
  });
});
