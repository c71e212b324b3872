// Limits that not every kernel has: of swap, of huge pages, of disks' weights. By effect where it can be had here.
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EngineClient } from '#src/client/client.ts';
import { execIn } from '../guest-exec.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { HostileGuest, python, TOOLS } from '../instances/hostile-support.ts';
import { describeWith, onKernelsWith } from '../support.ts';

type Config = Readonly<Record<string, string>>;

const MEBIBYTE = 2 ** 20;
const BUS_ERROR = 128 + 7;
const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB';

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

const hasSwap = textOf('/proc/swaps').trim().split('\n').length > 1;
const isUnified = textOf('/sys/fs/cgroup/cgroup.controllers') !== '';
const countsSwap = isUnified || textOf('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes') !== '';
const hasHugetlb = isUnified || textOf('/sys/fs/cgroup/hugetlb/tasks') !== '';
const hasHugepages = hasHugetlb && Number(textOf(`${POOL}/free_hugepages`)) >= 4;
const hasBfq = readdirSync('/sys/block').some((disk) => textOf(`/sys/block/${disk}/queue/scheduler`).includes('[bfq]'));

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'python3'] }, 'limits of some kernels', () => {
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

  async function launch(name: string, config: Config, devices: object = {}): Promise<void> {
    await daemon.launch(name, { config, devices });
    await daemon.ready(name);
  }

  async function set(name: string, config: Config): Promise<void> {
    const { status, error } = await daemon.call('PATCH', `/1.0/instances/${name}`, { config });
    expect([status, error]).toEqual([200, '']);
  }

  const sh = (name: string, script: string) => execIn(client, name, ['/bin/busybox', 'sh', '-c', script]);

  describe('of swap', () => {
    /** Holds 64 MiB on a file system of its own memory; then how much of it is swapped. */
    async function swapped(name: string): Promise<number> {
      const held =
        'mkdir -p /tmp/held && mount -t tmpfs held /tmp/held && dd if=/dev/zero of=/tmp/held/f bs=1M count=64';
      const { code } = await sh(name, `${held} 2>/dev/null`);
      const { memory } = await daemon.state(name);
      await sh(name, 'umount -l /tmp/held');
      return code === 0 ? memory.swap_usage : -1;
    }

    const soft = { 'limits.memory': '32MiB', 'limits.memory.enforce': 'soft' };

    it.runIf(onKernelsWith(hasSwap && isUnified))('let a guest swap, and keep it from it, while it runs', async () => {
      await launch('swap', soft);
      const free = await swapped('swap');
      await set('swap', { 'limits.memory.swap': 'false' });
      // of the guest's programs: what is out stays out until somebody needs it
      const { memory: before } = await daemon.state('swap');
      const kept = await swapped('swap');
      await set('swap', { 'limits.memory.swap': '', 'limits.memory.enforce': 'hard' });
      const hard = await swapped('swap');

      expect(free).toBeGreaterThan(16 * MEBIBYTE);
      expect(before.swap_usage).toBeLessThan(MEBIBYTE);
      expect(kept).toBeLessThanOrEqual(before.swap_usage);
      expect(hard).toBe(-1);
    });

    it.runIf(onKernelsWith(countsSwap))('grant so many bytes beside the memory, and others while it runs', async () => {
      /** Of its control group, in MiB. */
      const granted = async (): Promise<number> => {
        const groups = textOf(`/proc/${(await daemon.state('granted')).pid}/cgroup`);
        const own = /^(?:\d+:memory|0:):(?<path>.*lxc\.payload[^/\n]*)/m.exec(groups)?.groups?.['path'] ?? '';
        const read = (file: string) => Number(textOf(`/sys/fs/cgroup${isUnified ? '' : '/memory'}${own}/${file}`));
        if (isUnified) return read('memory.swap.max') / MEBIBYTE;
        return (read('memory.memsw.limit_in_bytes') - read('memory.limit_in_bytes')) / MEBIBYTE;
      };
      await launch('granted', { 'limits.memory': '32MiB', 'limits.memory.swap': '48MiB' });
      expect(await granted()).toBe(48);
      if (hasSwap) expect(await swapped('granted')).toBeGreaterThan(16 * MEBIBYTE);

      await set('granted', { 'limits.memory.swap': '16MiB', 'limits.memory': '64MiB' });
      expect(await granted()).toBe(16);
      await set('granted', { 'limits.memory.swap': '' });
      expect(await granted()).toBe(0);
    });

    it.runIf(onKernelsWith(hasSwap && isUnified))('hold without a limit of memory', async () => {
      await launch('no-swap', { 'limits.memory.swap': 'false' });

      const { stdout } = await sh('no-swap', 'cat /sys/fs/cgroup/memory.swap.max');
      expect(stdout).toBe('0\n');
      await set('no-swap', { 'limits.memory.swap': 'true' });
      expect((await sh('no-swap', 'cat /sys/fs/cgroup/memory.swap.max')).stdout).toBe('max\n');
    });
  });

  describe('of huge pages', () => {
    const touch = (pages: number) =>
      python(
        `import mmap\nm=mmap.mmap(-1,${pages}<<21,flags=mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS|0x40000)\nfor p in range(${pages}): m[p<<21]=1`,
      );

    it.runIf(onKernelsWith(hasHugepages))('end what takes more, and change while it runs', async () => {
      await launch('huge', { 'limits.hugepages.2MB': '2MiB' }, { tools: TOOLS });
      const guest = new HostileGuest(daemon, 'huge');
      const [one, two] = [await guest.exec(touch(1)), await guest.exec(touch(2))];
      await set('huge', { 'limits.hugepages.2MB': '4MiB' });
      const more = await guest.exec(touch(2));
      await set('huge', { 'limits.hugepages.2MB': '' });
      const free = await guest.exec(touch(4));

      expect([one.code, two.code, more.code, free.code]).toEqual([0, BUS_ERROR, 0, 0]);
    });

    it.runIf(onKernelsWith(hasHugepages))('of a size that the host has not are refused', async () => {
      const size = readdirSync('/sys/kernel/mm/hugepages').includes('hugepages-64kB') ? '1MB' : '64KB';
      const launched = daemon.launch('odd', { config: { [`limits.hugepages.${size}`]: '2MiB' } });

      await expect(launched).rejects.toThrow(
        `Cannot apply limits.hugepages.${size}: this host has no pages of that size`,
      );
    });
  });

  describe('of disks', () => {
    // Without a line as long as no disk is set up for it.
    it.runIf(!hasBfq && textOf('/sys/fs/cgroup/io.cost.qos') === '')(
      'by weight are refused without a scheduler for them',
      async () => {
        const config = { 'limits.disk.priority': '3' };
        await expect(daemon.launch('weight', { config })).rejects.toThrow('Cannot apply limits.disk.priority');

        await launch('running', {});
        const { status, error } = await daemon.call('PATCH', '/1.0/instances/running', { config });
        expect(status).toBeGreaterThanOrEqual(400);
        expect(error).toContain('Cannot apply limits.disk.priority');
      },
    );
  });
});
