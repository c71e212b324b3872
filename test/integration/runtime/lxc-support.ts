// Containers of the lxc runtime in a directory of their own, on a busybox root that belongs to the mapped root.
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { RuntimeContainer, RuntimeDriver, RuntimeSpec } from '#drivers/runtime/driver.ts';
import { lxc } from '#drivers/runtime/lxc/lxc.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { timeFactor } from '#test/time-factor.ts';
import { PLAIN_SPEC, type RuntimeUnderTest } from '#test/contract/runtime/runtime-contract.ts';
import { BUSYBOX_GREETING, makeBusyboxRoot } from '../images.ts';
import { unmountBelow } from '../mounts.ts';

const run = promisify(execFile);
const MAPPED_ROOT = 100_000;

export interface LxcUnderTest extends RuntimeUnderTest {
  readonly directory: string;
  write(name: string, changes: Partial<RuntimeSpec>): Promise<RuntimeContainer>;
  consoleLog(container: RuntimeContainer): Promise<string>;
}

export async function lxcUnderTest(): Promise<LxcUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), 'lxc-runtime-'));
  await chmod(directory, 0o711);
  const containersPath = join(directory, 'containers');
  const runtime = lxc.create({ host: new LinuxHost(), log: silentLog, containersPath });
  const made: RuntimeContainer[] = [];
  const write = async (name: string, changes: Partial<RuntimeSpec>): Promise<RuntimeContainer> => {
    const home = join(containersPath, name);
    await mkdir(home, { recursive: true });
    const rootfs = join(home, 'rootfs');
    await makeBusyboxRoot(rootfs);
    await run('chown', ['-R', '-h', `${MAPPED_ROOT}:${MAPPED_ROOT}`, rootfs]);
    const container = {
      name,
      configPath: join(home, 'lxc.conf'),
      logPath: join(home, 'lxc.log'),
      consoleLogPath: join(home, 'console.log'),
    };
    made.push(container);
    const spec = { ...PLAIN_SPEC, hostname: name, rootfs: { path: rootfs }, ...changes };
    await runtime.writeConfig(container, spec, AbortSignal.timeout(5000 * timeFactor()));
    return container;
  };
  const consoleLog = (container: RuntimeContainer) => readFile(container.consoleLogPath, 'utf8').catch(() => '');
  return {
    runtime,
    directory,
    write,
    consoleLog,
    container: (name) => write(name, {}),
    broken: (name) => write(name, { initCommand: '/sbin/absent' }),
    async ready(container) {
      const up = async () => ((await consoleLog(container)).includes(BUSYBOX_GREETING) ? true : undefined);
      await poll(up, 10 * timeFactor(), AbortSignal.timeout(10_000 * timeFactor()));
    },
    async [Symbol.asyncDispose]() {
      for (const container of made) await endIt(runtime, container);
      await unmountBelow(directory);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function endIt(runtime: RuntimeDriver, container: RuntimeContainer): Promise<void> {
  await runtime.kill(container, AbortSignal.timeout(20_000 * timeFactor()));
  await runtime.cleanUp(container, AbortSignal.timeout(20_000 * timeFactor()));
}
