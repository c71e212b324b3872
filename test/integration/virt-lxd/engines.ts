// Real engines as plain processes with directories of their own, for tests of what speaks LXD's API.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EngineClient } from '#src/client/client.ts';
import { poll } from '#src/lib/wait.ts';
import { unmountBelow } from '../mounts.ts';

export interface RunningEngine extends AsyncDisposable {
  readonly socketPath: string;
  readonly client: EngineClient;
  /** Kills the daemon, as a crash does, and starts it again. */
  restart(): Promise<void>;
}

interface Engine {
  readonly argv: (directory: string) => readonly [string, ...string[]];
  readonly directoryVariable: string;
  /** Ends it with everything that it mounted. */
  readonly endSignal: NodeJS.Signals;
  readonly setUp: (client: EngineClient) => Promise<unknown>;
}

const makePool = async (client: EngineClient): Promise<void> => {
  await client.request('POST', '/1.0/storage-pools', { body: { name: 'default', driver: 'dir', config: {} } });
};

const LIGHTERD = join(import.meta.dirname, '../../../bin/lighterd');

const ENGINES = {
  lxd: {
    argv: (directory) => ['lxd', '--group', 'root', '--logfile', join(directory, 'lxd.log')],
    directoryVariable: 'LXD_DIR',
    endSignal: 'SIGPWR',
    setUp: makePool,
  },
  incus: {
    argv: (directory) => ['incusd', '--group', 'root', '--logfile', join(directory, 'incus.log')],
    directoryVariable: 'INCUS_DIR',
    endSignal: 'SIGPWR',
    setUp: makePool,
  },
  lighterd: {
    argv: (directory) => [LIGHTERD, '--group', 'root', '--logfile', join(directory, 'lighterd.log')],
    directoryVariable: 'LIGHTER_DIR',
    endSignal: 'SIGTERM',
    setUp: async () => {},
  },
} as const satisfies Record<string, Engine>;

export type EngineName = keyof typeof ENGINES;

/** The program that tests on an engine need. */
export const PROGRAMS = { lighterd: 'lxc-start', lxd: 'lxd', incus: 'incusd' } as const satisfies Record<
  EngineName,
  string
>;

const named = process.env['TEST_ENGINES']?.split(',');

/** Those that TEST_ENGINES names, comma-separated; else `usual`, since engines of others take long. */
export function chosenEngines(usual: readonly EngineName[]): readonly EngineName[] {
  const all = Object.keys(PROGRAMS) as EngineName[];
  const unknown = named?.find((name) => !all.some((known) => known === name));
  if (unknown !== undefined) throw new Error(`TEST_ENGINES names ${unknown}: there are ${all.join(', ')}`);
  return all.filter((name) => (named ?? usual).includes(name));
}

/** Ready, with a storage pool and no network. */
export async function startEngine(name: EngineName): Promise<RunningEngine> {
  const { argv, directoryVariable, endSignal, setUp }: Engine = ENGINES[name];
  const directory = await mkdtemp(join(tmpdir(), `${name}-`));
  await chmod(directory, 0o711); // the ids that containers are mapped to must get through
  const [program, ...args] = argv(directory);
  const socketPath = join(directory, 'unix.socket');
  const client = new EngineClient({ endpoint: { kind: 'unix', socketPath } });
  const start = async (): Promise<ChildProcess> => {
    const env = { PATH: process.env['PATH'] ?? '', [directoryVariable]: directory };
    const child = spawn(program, args, { env, stdio: 'ignore' });
    const isReady = async (): Promise<unknown> => client.request('GET', '/internal/ready').catch(() => undefined);
    await poll(isReady, 100, AbortSignal.timeout(60_000));
    return child;
  };
  let daemon = await start();
  await setUp(client);
  return {
    socketPath,
    client,
    async restart() {
      await end(daemon, 'SIGKILL');
      daemon = await start();
    },
    async [Symbol.asyncDispose]() {
      await removeAll(client);
      client.close();
      await end(daemon, endSignal);
      await unmountBelow(directory);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function end(daemon: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const gone = new Promise((resolve) => daemon.on('close', resolve));
  daemon.kill(signal);
  await gone;
}

/** Instances, images and pools: pools may be mounted. */
async function removeAll(client: EngineClient): Promise<void> {
  for (const { name, status } of await client.instances.list()) {
    if (status !== 'Stopped') await (await client.instances.setState(name, { action: 'stop', force: true })).wait();
    await (await client.instances.remove(name)).wait();
  }
  for (const { fingerprint } of await client.images.list()) await (await client.images.remove(fingerprint)).wait();
  const { devices, description, config } = await client.profiles.get('default');
  const kept = Object.entries(devices).filter(([, { type }]) => type !== 'disk');
  await client.profiles.update('default', { description, config, devices: Object.fromEntries(kept) });
  for (const { name } of await client.storagePools.list()) {
    await client.request('DELETE', `/1.0/storage-pools/${name}`);
  }
}
