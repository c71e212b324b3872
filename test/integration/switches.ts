// The daemons of Open vSwitch, for tests.
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { poll } from '#src/lib/wait.ts';
import { run } from './instances/daemon-support.ts';

const SOCKET = '/run/openvswitch/db.sock';

async function end(pid: string, signal: NodeJS.Signals): Promise<void> {
  process.kill(Number(pid), signal);
  await poll(async () => !existsSync(`/proc/${pid.trim()}`) || undefined, 20, AbortSignal.timeout(10_000));
}

/** Those that answer already are somebody's: then nothing is started. */
export class OvsDaemons implements AsyncDisposable {
  readonly #directory: string;
  #pids: readonly string[] = [];
  #restart: () => Promise<void> = () => Promise.reject(new Error('these daemons are not ours'));

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async start(directory: string): Promise<OvsDaemons> {
    const daemons = new OvsDaemons(directory);
    if (existsSync(SOCKET)) return daemons;
    await mkdir(directory);
    await mkdir('/run/openvswitch', { recursive: true });
    const file = (name: string): string => join(directory, name);
    const common = (name: string): string[] => [
      '--detach',
      '--no-chdir',
      `--pidfile=${file(`${name}.pid`)}`,
      `--log-file=${file(`${name}.log`)}`,
      `--unixctl=${file(`${name}.ctl`)}`,
    ];
    await run('ovsdb-tool', ['create', file('conf.db'), '/usr/share/openvswitch/vswitch.ovsschema']);
    await run('ovsdb-server', [file('conf.db'), `--remote=punix:${SOCKET}`, ...common('db')]);
    await run('ovs-vsctl', ['--no-wait', 'init']);
    await run('ovs-vswitchd', [`unix:${SOCKET}`, ...common('switch')]);
    daemons.#pids = await Promise.all(['switch', 'db'].map((name) => readFile(file(`${name}.pid`), 'utf8')));
    daemons.#restart = async () => {
      await end(daemons.#pids[0] ?? '', 'SIGKILL');
      await run('ovs-vswitchd', [`unix:${SOCKET}`, ...common('switch')]);
      daemons.#pids = [await readFile(file('switch.pid'), 'utf8'), daemons.#pids[1] ?? ''];
    };
    return daemons;
  }

  /** Of the daemon that forwards, by kill -9. */
  async restartSwitch(): Promise<void> {
    await this.#restart();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#pids.length === 0) return;
    for (const pid of this.#pids) await end(pid, 'SIGTERM');
    await rm(SOCKET, { force: true });
    await rm(this.#directory, { recursive: true, force: true });
  }
}
