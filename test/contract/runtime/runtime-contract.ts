// What every container runtime promises; run on the fake and on liblxc.
import { expect, it } from 'vitest';
import type { RuntimeContainer, RuntimeDriver, RuntimeSpec } from '#drivers/runtime/driver.ts';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';

export interface RuntimeUnderTest extends AsyncDisposable {
  readonly runtime: RuntimeDriver;
  /** A container that is written and not started, whose init answers requests to halt and reboot. */
  container(name: string): Promise<RuntimeContainer>;
  /** Resolves when the container's init is far enough to answer them. */
  ready(container: RuntimeContainer): Promise<void>;
  /** Like container(), but its start fails. */
  broken(name: string): Promise<RuntimeContainer>;
}

/** A spec with nothing in it, for tests to start from. */
export const PLAIN_SPEC: RuntimeSpec = {
  hostname: 'c1',
  architecture: 'x86_64',
  rootfs: { path: '/nowhere' },
  idMap: [
    { kind: 'uid', containerId: 0, hostId: 100_000, size: 65_536 },
    { kind: 'gid', containerId: 0, hostId: 100_000, size: 65_536 },
  ],
  nesting: false,
  environment: {},
  nics: [],
  mounts: [],
  limits: {},
  kernelLimits: {},
  sysctl: {},
  seccomp: { denyDefault: true, denyCompat: false, deny: [], allow: [], intercept: [] },
};

export function runtimeContract(setUp: () => Promise<RuntimeUnderTest>): void {
  const signal = (): AbortSignal => AbortSignal.timeout(20_000 * timeFactor());

  it('runs a container from start to kill', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');

    await runtime.start(container, signal());
    const running = [await runtime.state(container, signal()), await runtime.initPid(container, signal())];
    await runtime.kill(container, signal());

    expect(running).toEqual(['running', expect.any(Number)]);
    expect(await runtime.state(container, signal())).toBe('stopped');
    expect(await runtime.initPid(container, signal())).toBeUndefined();
  });

  it('takes a container that does not run for stopped, whatever is asked', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');

    await runtime.kill(container, signal());
    await runtime.requestShutdown(container, signal());
    await runtime.cleanUp(container, signal());

    expect(await runtime.watch(container, signal())).toBe('stopped');
    expect(await runtime.state(container, signal())).toBe('stopped');
  });

  it('tells the watcher of a shutdown that init was asked for', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');
    await runtime.start(container, signal());
    await under.ready(container);

    const exit = runtime.watch(container, signal());
    await runtime.requestShutdown(container, signal());

    expect(await exit).toBe('stopped');
    expect(await runtime.state(container, signal())).toBe('stopped');
  });

  it('tells the watcher of a reboot, and the container runs with another init', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');
    await runtime.start(container, signal());
    await under.ready(container);
    const before = await runtime.initPid(container, signal());

    const exit = runtime.watch(container, signal());
    await runtime.requestReboot(container, signal());

    expect(await exit).toBe('rebooted');
    const after = await poll(() => runtime.initPid(container, signal()), 20, signal());
    expect(after).not.toBe(before);
    await runtime.kill(container, signal());
  });

  it('stops watching when its signal aborts', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');
    await runtime.start(container, signal());
    const caller = new AbortController();

    const exit = runtime.watch(container, caller.signal);
    setTimeout(() => caller.abort(new Error('enough')), 50);

    await expect(exit).rejects.toThrow('enough');
    await runtime.kill(container, signal());
  });

  it('freezes and unfreezes, and kills what is frozen', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');
    await runtime.start(container, signal());

    await runtime.freeze(container, signal());
    const frozen = await runtime.state(container, signal());
    await runtime.unfreeze(container, signal());
    const thawed = await runtime.state(container, signal());
    await runtime.freeze(container, signal());
    await runtime.kill(container, signal());

    expect([frozen, thawed]).toEqual(['frozen', 'running']);
    expect(await runtime.state(container, signal())).toBe('stopped');
  });

  it('counts what a running container uses', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.container('c1');
    await runtime.start(container, signal());
    const pid = (await runtime.initPid(container, signal())) ?? 0;

    const usage = await runtime.usage(pid, signal());
    await runtime.kill(container, signal());

    expect(usage.memoryBytes).toBeGreaterThan(0);
    expect(usage.processes).toBeGreaterThan(0);
  });

  it('leaves nothing of a start that failed', async () => {
    await using under = await setUp();
    const { runtime } = under;
    const container = await under.broken('c1');

    await expect(runtime.start(container, signal())).rejects.toThrow(/./);

    expect(await runtime.state(container, signal())).toBe('stopped');
  });
}
