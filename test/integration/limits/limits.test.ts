// Limits, measured: what a guest gets, under a limit and after another was set while it ran.
import { totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EngineClient } from '#src/client/client.ts';
import { timeFactor } from '#test/time-factor.ts';
import { execIn } from '../guest-exec.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

type Config = Readonly<Record<string, string>>;

const SECOND_MS = 1000 * timeFactor();
const SOON = { timeout: SECOND_MS, interval: SECOND_MS / 20 };
const KILLED = 137;
/** Reads and writes as much memory as `megabytes`, and ends with 137 when the kernel ends it. */
const touch = (megabytes: number) => `dd if=/dev/zero of=/dev/null bs=${megabytes}M count=1 2>/dev/null`;
/** Of the host's memory; at least 160 MiB. */
const PERCENT = Math.ceil(160 / (totalmem() / 2 ** 20 / 100));
const MORE_THAN_PERCENT = Math.ceil((PERCENT * totalmem()) / 2 ** 20 / 100) + 64;
/** Burns processor time in `loops` processes for as long as the file is there. */
const burn = (loops: number) =>
  `touch /tmp/burn; for loop in $(seq ${loops}); do (while [ -e /tmp/burn ]; do :; done) & done; wait`;

describeWith({ root: true, commands: ['lxc-start', 'busybox'] }, 'limits', () => {
  let daemon: TestDaemon;
  let client: EngineClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    await daemon.addImage();
    client = new EngineClient({ endpoint: { kind: 'unix', socketPath: daemon.socketPath } });
  });
  afterAll(async () => {
    client.close();
    await daemon[Symbol.asyncDispose]();
  });

  async function launch(name: string, config: Config): Promise<void> {
    await daemon.launch(name, { config });
    await daemon.ready(name);
  }

  /** While it runs. */
  async function set(name: string, config: Config): Promise<void> {
    const { status, error } = await daemon.call('PATCH', `/1.0/instances/${name}`, { config });
    expect([status, error]).toEqual([200, '']);
  }

  const sh = (name: string, script: string) => execIn(client, name, ['/bin/busybox', 'sh', '-c', script]);
  const used = async (name: string) => (await daemon.state(name)).cpu.usage as number;

  describe('of processes', () => {
    /** How many of 40 come about: the shell ends at the first that does not. */
    const forked = async (name: string) => {
      const { stdout } = await sh(
        name,
        `i=0; while [ $i -lt 40 ]; do sleep ${SECOND_MS / 1000} & i=$((i + 1)); echo $i; done 2>/dev/null`,
      );
      await sleep(1.2 * SECOND_MS);
      return Number(stdout.trim().split('\n').at(-1));
    };

    it('refuse forks, and allow more when they are raised', async () => {
      await launch('forks', { 'limits.processes': '20' });
      const few = await forked('forks');
      await set('forks', { 'limits.processes': '100' });
      const many = await forked('forks');
      await set('forks', { 'limits.processes': '10' });
      const fewer = await forked('forks');

      expect(few).toBeGreaterThan(5);
      expect(few).toBeLessThan(20);
      expect(many).toBe(40);
      expect(fewer).toBeLessThan(10);
    });
  });

  describe('of memory', () => {
    const touched = async (megabytes: number) => (await sh('memory', touch(megabytes))).code;

    it('end what takes more, in megabytes and in parts of what the host has', async () => {
      await launch('memory', { 'limits.memory': '32MiB' });
      expect(await touched(16)).toBe(0);
      expect(await touched(64)).toBe(KILLED);
      expect((await daemon.state('memory')).memory.usage).toBeLessThanOrEqual(32 * 2 ** 20);

      await set('memory', { 'limits.memory': '192MiB' });
      expect(await touched(64)).toBe(0);

      await set('memory', { 'limits.memory': `${PERCENT}%` });
      expect(await touched(64)).toBe(0);
      expect(await touched(MORE_THAN_PERCENT)).toBe(KILLED);

      await set('memory', { 'limits.memory': '' });
      expect(await touched(MORE_THAN_PERCENT)).toBe(0);
      expect(await daemon.status('memory')).toBe('Running');
    });

    it('are only kept to in need when they are soft', async () => {
      await set('memory', { 'limits.memory': '32MiB', 'limits.memory.enforce': 'soft' });
      expect(await touched(64)).toBe(0);
      await set('memory', { 'limits.memory.enforce': 'hard' });
      expect(await touched(64)).toBe(KILLED);
    });
  });

  describe('of processors', () => {
    /** Processors' worth of time that each of the guests takes while all of them burn. */
    async function shares(names: readonly string[], loops: number): Promise<number[]> {
      const burning = names.map((name) => sh(name, burn(loops)));
      await sleep(SECOND_MS / 2);
      const before = await Promise.all(names.map(used));
      const since = performance.now();
      await sleep(2 * SECOND_MS);
      const after = await Promise.all(names.map(used));
      const nanoseconds = (performance.now() - since) * 1e6;
      await Promise.all(names.map((name) => sh(name, 'rm /tmp/burn')));
      await Promise.all(burning);
      return after.map((value, index) => (value - (before[index] ?? 0)) / nanoseconds);
    }

    const seen = async (name: string) =>
      (await sh(name, 'grep Cpus_allowed_list /proc/self/status')).stdout.split('\t')[1];

    it('hold a guest to as many as it has, and to those that are named', async () => {
      await launch('one', { 'limits.cpu': '1' });
      expect(Number((await sh('one', 'busybox nproc')).stdout)).toBe(1);
      expect((await shares(['one'], 3))[0]).toBeLessThan(1.15);

      await set('one', { 'limits.cpu': '0-1' });
      expect(await seen('one')).toBe('0-1\n');
      expect(Number((await sh('one', 'busybox nproc')).stdout)).toBe(2);
      await set('one', { 'limits.cpu': '1-1' });
      expect(await seen('one')).toBe('1\n');
      await set('one', { 'limits.cpu': '' });
      expect(Number((await sh('one', 'busybox nproc')).stdout)).toBeGreaterThan(1);
    });

    it('put guests with one each on different ones', async () => {
      await launch('left', { 'limits.cpu': '1' });
      await launch('right', { 'limits.cpu': '1' });

      expect(new Set([await seen('left'), await seen('right')])).toEqual(new Set(['0\n', '1\n']));
    });

    it('move a guest where there is room, and find it there after the daemon', async () => {
      await set('left', { 'limits.cpu': '0-0' });
      await expect.poll(() => seen('right'), SOON).toBe('1\n');
      await set('left', { 'limits.cpu': '1-1' });
      await expect.poll(() => seen('right'), SOON).toBe('0\n');
      await daemon.kill();
      await daemon.boot();

      expect([await seen('left'), await seen('right')]).toEqual(['1\n', '0\n']);
      await set('left', { 'limits.cpu': '0-0' });
      await expect.poll(() => seen('right'), SOON).toBe('1\n');
    });

    it('hold a guest to its time, also when nobody else wants it', async () => {
      await set('one', { 'limits.cpu.allowance': '30ms/100ms' });
      const [some = 0] = await shares(['one'], 4);
      await set('one', { 'limits.cpu.allowance': '5ms/100ms' });
      const [little = 0] = await shares(['one'], 4);
      await set('one', { 'limits.cpu.allowance': '' });
      const [free = 0] = await shares(['one'], 4);

      expect(some).toBeLessThan(0.37);
      expect(little).toBeGreaterThan(0.02);
      expect(little).toBeLessThan(0.08);
      expect(free).toBeGreaterThan(1.5 * little);
    });

    it('share one processor by weight', async () => {
      await set('left', { 'limits.cpu': '0-0', 'limits.cpu.allowance': '10%' });
      await set('right', { 'limits.cpu': '0-0', 'limits.cpu.allowance': '80%' });
      const [low = 0, high = 0] = await shares(['left', 'right'], 1);
      await set('right', { 'limits.cpu.allowance': '10%' });
      const [same = 0, other = 0] = await shares(['left', 'right'], 1);

      expect(high / low).toBeGreaterThan(4);
      expect(high / low).toBeLessThan(16);
      expect(same / other).toBeGreaterThan(0.6);
      expect(same / other).toBeLessThan(1.7);
    });
  });

  it('of the kernel hold for init and for commands', async () => {
    await launch('kernel', { 'limits.kernel.nofile': '64', 'limits.kernel.fsize': '1048576' });

    const { stdout } = await sh('kernel', 'ulimit -n; grep "open files" /proc/1/limits');
    expect(stdout.replace(/ +/g, ' ')).toBe('64\nMax open files 64 64 files \n');
    const { code } = await sh('kernel', 'dd if=/dev/zero of=/root/big bs=64k count=32 2>/dev/null');
    expect(code).not.toBe(0);
    expect((await sh('kernel', 'wc -c </root/big')).stdout).toBe('1048576\n');
  });

  describe('of disks', () => {
    const MEGABYTE = 2 ** 20;
    const root = (limits: Config) => ({ root: { type: 'disk', path: '/', pool: 'default', ...limits } });

    async function limit(limits: Config): Promise<void> {
      const before = (await daemon.call('GET', '/1.0/instances/disk')).metadata;
      await daemon.operate('PUT', '/1.0/instances/disk', { ...before, devices: root(limits) });
    }

    /** Bytes per second past the page cache, by the guest’s own clock: commands may take a while to start. */
    async function rate(direction: 'read' | 'write', blockKib: number, count: number): Promise<number> {
      const ends = direction === 'read' ? 'if=/root/file of=/dev/null iflag' : 'if=/dev/zero of=/root/file oflag';
      const now = (name: string) => `read ${name} rest </proc/uptime`;
      const copy = `dd ${ends}=direct bs=${blockKib}k count=${count} conv=notrunc 2>/dev/null`;
      const { code, stdout } = await sh('disk', `${now('since')}; ${copy} && ${now('end')} && echo $since $end`);
      expect(code).toBe(0);
      const [since = 0, end = 0] = stdout.split(' ').map(Number);
      return (blockKib * 1024 * count) / (end - since);
    }

    it('hold in bytes, each way its own', async () => {
      await daemon.launch('disk', { devices: root({ 'limits.write': '4MiB', 'limits.read': '2MiB' }) });
      const written = await rate('write', 256, 32);
      const read = await rate('read', 256, 16);

      expect(written).toBeGreaterThan(MEGABYTE);
      expect(written).toBeLessThan(6 * MEGABYTE);
      expect(read).toBeGreaterThan(MEGABYTE / 2);
      expect(read).toBeLessThan(3 * MEGABYTE);
    });

    it('hold in operations, and are lifted while the guest runs', async () => {
      await limit({ 'limits.max': '50iops' });
      const slow = await rate('write', 4, 150);
      await limit({});
      const fast = await rate('write', 256, 128);

      expect(slow).toBeLessThan(75 * 4096);
      expect(slow).toBeGreaterThan(15 * 4096);
      expect(fast).toBeGreaterThan(6 * MEGABYTE);
    });
  });
});
