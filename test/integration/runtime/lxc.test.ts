// liblxc keeps the runtime contract, and what only the real thing can show.
import { readdir, readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { runtimeContract } from '#test/contract/runtime/runtime-contract.ts';
import { describeWith } from '../support.ts';
import { lxcUnderTest } from './lxc-support.ts';

const signal = (): AbortSignal => AbortSignal.timeout(20_000 * timeFactor());

describeWith({ root: true, commands: ['lxc-start', 'busybox'] }, 'the lxc runtime', () => {
  runtimeContract(lxcUnderTest);

  it('gives the container its name, environment, limits and mapped ids', async () => {
    await using under = await lxcUnderTest();
    const container = await under.write('spec1', {
      hostname: 'inside',
      environment: { GREETING: 'hello there' },
      limits: { memory: { bytes: 64 * 1024 * 1024, enforce: 'hard' }, processes: 50 },
    });

    await under.runtime.start(container, signal());
    await under.ready(container);
    const pid = await under.runtime.initPid(container, signal());

    expect(await under.consoleLog(container)).toContain('up as inside');
    expect(await readFile(`/proc/${pid}/environ`, 'utf8')).toContain('GREETING=hello there');
    expect(await readFile(`/proc/${pid}/uid_map`, 'utf8')).toMatch(/^\s+0\s+100000\s+65536$/m);
    expect(await readFile(`/proc/${pid}/status`, 'utf8')).toMatch(/^Seccomp:\s+2$/m);
    const usage = await under.runtime.usage(pid ?? 0, signal());
    expect(usage.memoryBytes).toBeLessThan(64 * 1024 * 1024);
  });

  it('quotes the log of a start that failed', async () => {
    await using under = await lxcUnderTest();
    const container = await under.broken('fail1');

    await expect(under.runtime.start(container, signal())).rejects.toThrow(/lxc-start fail1: .*\/sbin\/absent/);
  });

  it('leaves no control groups, and cleans those of a monitor that was killed', async () => {
    await using under = await lxcUnderTest();
    const container = await under.container('gone1');
    await under.runtime.start(container, signal());
    const pid = await under.runtime.initPid(container, signal());
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const monitor = Number(/^PPid:\s+(\d+)$/m.exec(status)?.[1]);

    const exit = under.runtime.watch(container, signal());
    process.kill(monitor, 'SIGKILL');
    expect(await exit).toBe('stopped');
    await poll(async () => ((await processExists(pid ?? 0)) ? undefined : true), 10, signal());
    await under.runtime.cleanUp(container, signal());

    expect(await groupsOf('gone1')).toEqual([]);
  });
});

async function processExists(pid: number): Promise<boolean> {
  return readFile(`/proc/${pid}/stat`, 'utf8').then(
    () => true,
    () => false,
  );
}

async function groupsOf(name: string): Promise<string[]> {
  const trees = await readdir('/sys/fs/cgroup', { withFileTypes: true });
  const inner = await Promise.all(
    trees.filter((entry) => entry.isDirectory()).map((entry) => readdir(`/sys/fs/cgroup/${entry.name}`)),
  );
  return [...trees.map((entry) => entry.name), ...inner.flat()].filter((entry) => entry.endsWith(`.${name}`));
}
