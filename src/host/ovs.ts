// Bridges of Open vSwitch, by ovs-vsctl: each call is one change of its database, and waits until that has come true.
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from './command-error.ts';
import type { Host, RunResult } from './host.ts';

const PROGRAM = 'ovs-vsctl';
const PLACES = ['/usr/bin/ovs-vsctl', '/usr/local/bin/ovs-vsctl', '/usr/sbin/ovs-vsctl'];
const WAIT_SECONDS = 10;
const LIMIT_MS = 15_000;
const NO_BRIDGE = 2;
const NO_PORT = 1;

export interface OvsBridge {
  readonly name: string;
  readonly hwaddr: string;
  readonly mtu: number;
}

export class Ovs {
  readonly #host: Pick<Host, 'run' | 'exists' | 'links'>;

  constructor(host: Pick<Host, 'run' | 'exists' | 'links'>) {
    this.#host = host;
  }

  async isInstalled(): Promise<boolean> {
    for (const path of PLACES) if (await this.#host.exists(path)) return true;
    return false;
  }

  /** Nothing is asked where it is not installed. */
  async hasBridge(name: string): Promise<boolean> {
    if (!(await this.isInstalled())) return false;
    return (await this.#call(['br-exists', name], [0, NO_BRIDGE])).exitCode === 0;
  }

  /** Made, or changed to be so. Without Open vSwitch in the kernel its daemon forwards the packets itself. */
  async setBridge({ name, hwaddr, mtu }: OvsBridge): Promise<void> {
    const settings = ['--', 'set', 'bridge', name, `other-config:hwaddr="${hwaddr}"`];
    const size = ['--', 'set', 'interface', name, `mtu_request=${mtu}`];
    await this.#call(['--may-exist', 'add-br', name, ...settings, ...size]);
    if (await this.#host.links.find(name)) return;
    await this.#call(['set', 'bridge', name, 'datapath_type=netdev']);
    if (await this.#host.links.find(name)) return;
    throw new AppError('internal', `Open vSwitch cannot make the bridge "${name}": see the log of ovs-vswitchd`);
  }

  /** Absent is success. */
  async removeBridge(name: string): Promise<void> {
    await this.#call(['--if-exists', 'del-br', name]);
  }

  /** Undefined: it is no port of any. */
  async bridgeOf(port: string): Promise<string | undefined> {
    const { exitCode, stdout } = await this.#call(['port-to-br', port], [0, NO_PORT]);
    return exitCode === 0 ? stdout.trim() : undefined;
  }

  /** `settings` of the port, in the same step. */
  async addPort(bridge: string, port: string, settings: readonly string[] = []): Promise<void> {
    const more = settings.length === 0 ? [] : ['--', 'set', 'port', port, ...settings];
    await this.#call(['--may-exist', 'add-port', bridge, port, ...more]);
  }

  /** Absent is success. */
  async removePort(bridge: string, port: string): Promise<void> {
    await this.#call(['--if-exists', 'del-port', bridge, port]);
  }

  async #call(words: readonly string[], okExitCodes: readonly number[] = [0]): Promise<RunResult> {
    try {
      const argv = [PROGRAM, `--timeout=${WAIT_SECONDS}`, ...words] as const;
      return await this.#host.run(argv, { timeoutMs: LIMIT_MS, okExitCodes });
    } catch (cause) {
      if (!(cause instanceof CommandError)) throw cause;
      const why = cause.stderr.trim() === '' ? 'it does not answer' : cause.stderr.trim();
      throw new AppError('internal', `Open vSwitch: ${why}`, { cause });
    }
  }
}
