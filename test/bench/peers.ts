// Engines to be measured against one another: ours, LXD, Incus; each a plain process with a directory of its own.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { poll } from '#src/lib/wait.ts';
import { engineAnswers } from '../openstack/lab/node.ts';

const execute = promisify(execFile);
const START_LIMIT_MS = 60_000;
/** USER_HZ, the same on every Linux that this runs on. */
const TICKS_A_SECOND = 100;
const CLIENT_LIMIT_MS = 300_000;

export type PeerName = 'lighterd' | 'lxd' | 'incus';

interface Launch {
  readonly argv: readonly [string, ...string[]];
  readonly directoryVariable: string;
}

const LAUNCHES: Readonly<Record<PeerName, Launch>> = {
  lighterd: {
    argv: [fileURLToPath(new URL('../../bin/lighterd', import.meta.url))],
    directoryVariable: 'LIGHTER_DIR',
  },
  lxd: { argv: ['lxd', '--group', 'root'], directoryVariable: 'LXD_DIR' },
  incus: { argv: ['incusd', '--group', 'root'], directoryVariable: 'INCUS_DIR' },
};

/** Those whose daemon is on this machine. */
export async function installedPeers(): Promise<readonly PeerName[]> {
  const names = Object.keys(LAUNCHES) as PeerName[];
  const found = await Promise.all(
    names.map(async (name) => {
      const isThere = await execute('which', [LAUNCHES[name].argv[0]]).then(
        () => true,
        () => false,
      );
      return isThere ? [name] : [];
    }),
  );
  return found.flat();
}

/** One running engine, driven by the stock client. */
export class Peer implements AsyncDisposable {
  readonly name: PeerName;
  readonly directory: string;
  readonly #process: ChildProcess;

  private constructor(name: PeerName, directory: string, process: ChildProcess) {
    this.name = name;
    this.directory = directory;
    this.#process = process;
  }

  static async start(name: PeerName, directory: string): Promise<Peer> {
    const { argv, directoryVariable } = LAUNCHES[name];
    mkdirSync(directory, { recursive: true, mode: 0o711 });
    const log = openSync(`${directory}.log`, 'a');
    const [file, ...args] = argv;
    const env = { ...process.env, [directoryVariable]: directory };
    const child = spawn(file, args, { stdio: ['ignore', log, log], env });
    closeSync(log);
    const peer = new Peer(name, directory, child);
    try {
      const answers = async (): Promise<true | undefined> => (await engineAnswers(peer.socketPath)) || undefined;
      await poll(answers, 200, AbortSignal.timeout(START_LIMIT_MS));
    } catch (cause) {
      await peer[Symbol.asyncDispose]();
      throw new Error(`${name} did not start; its log is ${directory}.log`, { cause });
    }
    return peer;
  }

  get socketPath(): string {
    return join(this.directory, 'unix.socket');
  }

  /** Of the daemon and of the programs that it waited for, in seconds. */
  processorSeconds(): number {
    const stat = readFileSync(`/proc/${this.#process.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // utime, stime, cutime, cstime of proc(5)
    const ticks = fields.slice(11, 15).map(Number);
    return ticks.reduce((sum, each) => sum + each, 0) / TICKS_A_SECOND;
  }

  /** The stock client, as a user calls it. */
  async lxc(...args: readonly string[]): Promise<string> {
    const running = execute('lxc', args, {
      env: { ...process.env, LXD_DIR: this.directory, LXD_CONF: join(this.directory, 'client') },
      maxBuffer: 64 << 20,
      timeout: CLIENT_LIMIT_MS,
    });
    // some verbs read a configuration from their input until it ends
    running.child.stdin?.end();
    return (await running).stdout;
  }

  /** What a run that failed left behind: guests outlive their engine. */
  async deleteInstances(): Promise<void> {
    const names = (await this.lxc('list', '-f', 'csv', '-c', 'n')).split('\n').filter(Boolean);
    if (names.length > 0) await this.lxc('delete', '-f', ...names);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) return;
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#process.kill('SIGTERM');
    await ended;
  }
}
