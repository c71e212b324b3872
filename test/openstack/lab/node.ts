// Our own part of the lab: the engine and the compute.
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { get } from 'node:http';
import { fileURLToPath } from 'node:url';
import { EngineClient } from '#src/client/client.ts';
import { poll } from '#src/lib/wait.ts';
import { run } from './commands.ts';
import type { Processes } from './processes.ts';
import type { LabPaths } from './settings.ts';
import { STOCK_ENGINES } from './stock-engines.ts';

export const bin = (name: string) => fileURLToPath(new URL(`../../../bin/${name}`, import.meta.url));

/** Whether the engine answers on its socket. */
export async function engineAnswers(socketPath: string): Promise<boolean> {
  return await new Promise((resolve) => {
    get({ socketPath, path: '/1.0', timeout: 5000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    }).on('error', () => resolve(false));
  });
}

export const LXCFS = 'lxcfs';
const LXCFS_FOLDER = '/var/lib/lxcfs';

/** A file system whose process was killed stays mounted and answers nothing. */
async function detachDead(folder: string): Promise<void> {
  try {
    statSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTCONN') await run(['umount', '--lazy', folder]);
  }
}

/** Shows containers their own processors and memory; the engine looks for it when it starts. The machine may run it already. */
async function startLxcfs(processes: Processes): Promise<void> {
  const isUp = () => existsSync(join(LXCFS_FOLDER, 'proc/cpuinfo'));
  if (isUp() || !existsSync('/dev/fuse')) return;
  await detachDead(LXCFS_FOLDER);
  mkdirSync(LXCFS_FOLDER, { recursive: true });
  const pidFile = join('/run', `${LXCFS}.pid`);
  processes.start({ name: LXCFS, argv: [LXCFS, '-f', '-p', pidFile, LXCFS_FOLDER] });
  await processes.waitFor(LXCFS, async () => isUp());
}

export async function startEngine(paths: LabPaths, processes: Processes): Promise<void> {
  const { engine, engineFolder } = paths;
  await startLxcfs(processes);
  if (engine === 'lighterd') {
    processes.start({ name: engine, argv: [bin('lighterd')], env: { LIGHTER_DIR: engineFolder } });
  } else {
    const { argv, directoryVariable, path } = STOCK_ENGINES[engine];
    // the ids that containers are mapped to must get through
    mkdirSync(engineFolder, { recursive: true, mode: 0o711 });
    processes.start({ name: engine, argv, env: { PATH: path, [directoryVariable]: engineFolder } });
  }
  const socketPath = join(engineFolder, 'unix.socket');
  await processes.waitFor(engine, () => engineAnswers(socketPath));
  if (engine !== 'lighterd') await ensurePool(socketPath);
}

/** A stock engine begins without one. */
async function ensurePool(socketPath: string): Promise<void> {
  using client = new EngineClient({ endpoint: { kind: 'unix', socketPath } });
  // its API answers before it is ready
  await poll(() => client.request('GET', '/internal/ready').catch(() => undefined), 200, AbortSignal.timeout(60_000));
  if ((await client.storagePools.list()).length > 0) return;
  await client.request('POST', '/1.0/storage-pools', { body: { name: 'default', driver: 'dir', config: {} } });
}

const COMPUTE = 'nova-compute-lxd';
/** Where the log of the process that this program started begins; undefined: it found one. */
let logBegin: number | undefined;

/** `extra` are further configuration files; what they say wins. */
export function startCompute(paths: LabPaths, processes: Processes, extra: readonly string[] = []): void {
  const log = processes.logFile(COMPUTE);
  if (processes.pid(COMPUTE) === undefined) logBegin = existsSync(log) ? statSync(log).size : 0;
  const files = [paths.computeConf, ...extra].flatMap((file) => ['--config-file', file]);
  processes.start({ name: COMPUTE, argv: [bin('nova-compute-lxd'), ...files] });
}

/** Waits until it takes messages from its queue: Nova calls it up before, by what the process before it said. */
export async function waitForConsumer(processes: Processes): Promise<void> {
  const begin = logBegin;
  if (begin === undefined) return;
  const isUp = async (): Promise<boolean> =>
    readFileSync(processes.logFile(COMPUTE)).subarray(begin).includes('"message":"compute is up"');
  await processes.waitFor(COMPUTE, isUp, 60_000);
}

/** Writes nova.conf options that come after the lab's own. */
export function overrideFile(paths: LabPaths, name: string, text: string): string {
  const file = join(paths.etc, 'nova', `${name}.conf`);
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}
