// Bridges and ports of Open vSwitch, by ovs-vsctl: each call is one change of its database.
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from './command-error.ts';
import type { Host, RunResult } from './host.ts';

const PROGRAM = 'ovs-vsctl';
const PLACES = ['/usr/bin/ovs-vsctl', '/usr/local/bin/ovs-vsctl', '/usr/sbin/ovs-vsctl'];
const WAIT_SECONDS = 10;
const NO_BRIDGE = 2;
const NO_PORT = 1;
const NO_QUEUES = 'linux-noop';
const OWNER = 'nova-port';
/** How long an ovs-vswitchd is given to close a device that went. */
const STALE_SECONDS = 5;
/** How much longer than its own limit the program may take. */
const GRACE_MS = 5000;

export interface OvsConnection {
  /** Of its database, as ovs-vsctl takes it (unix:PATH, tcp:HOST:PORT …); absent: the socket of this machine. */
  readonly database?: string;
  /** How long an answer of the database is waited for; 0: for ever. */
  readonly timeoutSeconds?: number;
}

/** A port of somebody whose agent, or controller, finds it by the ids of its interface. */
export interface OvsAttachment {
  readonly port: string;
  /** Made when there is none of that name; `datapathType` counts only then. */
  readonly bridge: string;
  readonly datapathType?: string;
  /** The device has just been made: a port of that name belonged to an earlier one. */
  readonly isNew: boolean;
  readonly externalIds: Readonly<Record<string, string>>;
  readonly mtu?: number;
  /** VLAN of a new port, until somebody else sets it. */
  readonly firstTag?: number;
  /** What to do about the queues of the device; absent: nothing. */
  readonly queues?: OvsQueues;
}

/** Open vSwitch takes queues that it has not made from a device unless its port has a record that says to leave them. */
export interface OvsQueues {
  readonly action: 'leave' | 'take';
  /** By which the record is found again. */
  readonly owner: string;
  /** Of this owner: what queuesOf() told. */
  readonly records: readonly string[];
}

export interface OvsDetachment {
  readonly port: string;
  /** Records of queues that go as well. */
  readonly records?: readonly string[];
}

export interface OvsBridge {
  readonly name: string;
  readonly hwaddr: string;
  readonly mtu: number;
}

export class Ovs {
  readonly #host: Pick<Host, 'run' | 'exists' | 'links'>;
  readonly #connection: OvsConnection;

  constructor(host: Pick<Host, 'run' | 'exists' | 'links'>, connection: OvsConnection = {}) {
    this.#host = host;
    this.#connection = connection;
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

  /**
   * Idempotent, in one step, and without waiting for ovs-vswitchd: it may be on its way back from a restart, and does what the
   * database says then.
   */
  async attach(attachment: OvsAttachment, signal: AbortSignal): Promise<void> {
    try {
      await this.#attach(attachment, signal);
    } catch (error) {
      const isTaken = attachment.isNew && !signal.aborted && (await this.#hasPort(attachment.port, signal));
      if (!isTaken) throw error;
      await this.#removeStale(attachment.port, signal);
      await this.#attach(attachment, signal);
    }
  }

  async #hasPort(port: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#call(['--no-wait', 'port-to-br', port], [0, NO_PORT], signal)).exitCode === 0;
  }

  /**
   * A port whose device went. An ovs-vswitchd that sees it go and come in one step holds on to the old device, so it is given the
   * time to let go; one that does not run has none.
   */
  async #removeStale(port: string, signal: AbortSignal): Promise<void> {
    const options = [`--timeout=${STALE_SECONDS}`, ...this.#database()];
    const removal = ['--if-exists', 'del-port', port];
    const timeoutMs = STALE_SECONDS * 1000 + GRACE_MS;
    await this.#host.run([PROGRAM, ...options, ...removal], { timeoutMs, signal }).catch((error: unknown) => {
      if (!(error instanceof CommandError) || signal.aborted) throw error;
    });
    await this.#change([removal], signal);
  }

  async #attach(attachment: OvsAttachment, signal: AbortSignal): Promise<void> {
    const { bridge, port, datapathType, isNew, externalIds, mtu, firstTag, queues } = attachment;
    const hasBridge = await this.#host.exists(`/sys/class/net/${bridge}`);
    const ids = Object.entries(externalIds).map(([name, value]) => `external-ids:${name}=${JSON.stringify(value)}`);
    await this.#change(
      [
        ...(hasBridge ? [] : [['--may-exist', 'add-br', bridge]]),
        ...(hasBridge || datapathType === undefined
          ? []
          : [['set', 'Bridge', bridge, `datapath_type=${datapathType}`]]),
        [...(isNew ? [] : ['--may-exist']), 'add-port', bridge, port],
        ...(isNew && firstTag !== undefined ? [['set', 'Port', port, `tag=${firstTag}`]] : []),
        ['set', 'Interface', port, ...ids, ...(mtu === undefined ? [] : [`mtu_request=${mtu}`])],
        ...(queues ? queueCommands(attachment, queues) : []),
      ],
      signal,
    );
  }

  /** Absent is success. Like attach(), it waits for the database only. */
  async detach({ port, records = [] }: OvsDetachment, signal: AbortSignal): Promise<void> {
    await this.#change([['--if-exists', 'del-port', port]], signal);
    // the database lets none go that the port refers to, not even in the step in which that goes
    const removals = records.map((record) => ['--if-exists', 'destroy', 'QoS', record]);
    if (removals.length > 0) await this.#change(removals, signal);
  }

  /** '' is the kernel's, which is also 'system'; undefined: there is no such bridge. */
  async datapathOf(bridge: string, signal: AbortSignal): Promise<string | undefined> {
    const { stdout } = await this.#call(
      ['--no-wait', '--if-exists', 'get', 'Bridge', bridge, 'datapath_type'],
      [0],
      signal,
    );
    const said = stdout.trim();
    return said === '' ? undefined : said.replaceAll('"', '');
  }

  /** Ids of an owner's records by which Open vSwitch leaves queues alone. */
  async queuesOf(owner: string, signal: AbortSignal): Promise<readonly string[]> {
    return await this.#find('_uuid', `external-ids:${OWNER}="${owner}"`, signal);
  }

  /** Those who have such records. */
  async queueOwners(signal: AbortSignal): Promise<readonly string[]> {
    const ids = await this.#find('external_ids', `external-ids:${OWNER}!=""`, signal);
    return ids.flatMap((id) => (id.startsWith(`${OWNER}=`) ? [id.slice(OWNER.length + 1)] : []));
  }

  /** Of records of that kind. */
  async #find(column: string, condition: string, signal: AbortSignal): Promise<readonly string[]> {
    const query = ['--bare', `--columns=${column}`, 'find', 'QoS', `type=${NO_QUEUES}`, condition];
    const { stdout } = await this.#call(['--no-wait', ...query], [0], signal);
    return stdout.split(/\s+/).filter((word) => word !== '');
  }

  async #change(commands: readonly (readonly string[])[], signal: AbortSignal): Promise<void> {
    await this.#call(['--no-wait', ...commands.flatMap((command) => ['--', ...command])], [0], signal);
  }

  #database(): readonly string[] {
    const { database } = this.#connection;
    return database === undefined ? [] : [`--db=${database}`];
  }

  async #call(
    words: readonly string[],
    okExitCodes: readonly number[] = [0],
    signal?: AbortSignal,
  ): Promise<RunResult> {
    const { timeoutSeconds = WAIT_SECONDS } = this.#connection;
    const options = [`--timeout=${timeoutSeconds}`, ...this.#database()];
    const timeoutMs = timeoutSeconds === 0 ? Number.POSITIVE_INFINITY : timeoutSeconds * 1000 + GRACE_MS;
    try {
      const argv = [PROGRAM, ...options, ...words] as const;
      return await this.#host.run(argv, { timeoutMs, okExitCodes, ...(signal && { signal }) });
    } catch (cause) {
      if (!(cause instanceof CommandError) || signal?.aborted) throw cause;
      const why = cause.stderr.trim() === '' ? 'it does not answer' : cause.stderr.trim();
      throw new AppError('internal', `Open vSwitch: ${why}`, { cause });
    }
  }
}

/** Of a port whose QoS somebody else has set meanwhile, that stays when ours goes. */
function queueCommands({ port, isNew }: OvsAttachment, { action, owner, records }: OvsQueues): readonly string[][] {
  const [record, ...surplus] = records;
  const destroy = (id: string): string[][] => [
    ['remove', 'Port', port, 'qos', id],
    ['destroy', 'QoS', id],
  ];
  if (action === 'take') return records.flatMap(destroy);
  if (record === undefined) {
    const fresh = ['--id=@queues', 'create', 'QoS', `type=${NO_QUEUES}`, `external-ids:${OWNER}="${owner}"`];
    return [fresh, ['set', 'Port', port, 'qos=@queues']];
  }
  return [...surplus.flatMap(destroy), ...(isNew ? [['set', 'Port', port, `qos=${record}`]] : [])];
}
